"""One message's walk cut into its stages, each as a function of its input: what the microbenches and the cost gate run.

A round is USERS senders with a window of WINDOW messages each, one receiver a sender; a stage takes the whole round. Every
stage is given what the one before it made, by the product's own code.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from brokerd.ports import Appended, Opened, Seat
from brokerd.route import Plan, plan, route
from chatd.effects import Gate, PostBurst, PostEntry
from chatd.ports import Identity
from chatd.session import Session
from protocol.codec import encode
from protocol.connection import ServerConnection
from protocol.envelope import EntryPost, FramesParcel, pack_batch, unpack_parcels, unpack_posts
from protocol.messages import Hello, Send
from protocol.wire import CREDIT_MAX, GENERATION_BYTES, Limits, Scheme

USERS: Final = 8
WINDOW: Final = 32
MESSAGES: Final = USERS * WINDOW
PAYLOAD: Final = bytes(100)
NODE: Final = "bench"
NOW_S: Final = 100.0
NOW_MS: Final = 1_700_000_000_000
_GENERATION: Final = bytes(GENERATION_BYTES)


class Stage(NamedTuple):
    """`prepare(round)` makes the input, which is not measured; `run(input)` is the stage."""

    name: str
    what: str
    prepare: Callable[[int], Any]
    run: Callable[[Any], Any]


def sender(number: int) -> str:
    """A user's name."""
    return f"sender{number}"


def receiver(number: int) -> str:
    """A user's name."""
    return f"receiver{number}"


def open_session(user: str) -> Session:
    """Logged in, live, with credit for everything."""
    session = Session(ServerConnection(Limits(), now_s=NOW_S, preface=False), "1", Gate())
    hello = Hello(0, 0, 0, (), user, "bench", int(Scheme.TOKEN), "t", b"", CREDIT_MAX, {})
    session.receive(encode(hello), NOW_S, NOW_MS)
    session.user, session.device = user, "bench"
    identity, opened = Identity(user, None), Opened(0, 0, _GENERATION, 1)
    session.logged_in(hello, identity, opened, node=NODE, now_s=NOW_S, now_ms=NOW_MS)
    session.take_effects()
    session.conn.bytes_to_send()
    return session


def sends(number: int, first_cid: int) -> bytes:
    """What one client writes: a window of messages."""
    cids = range(first_cid, first_cid + WINDOW)
    return b"".join(encode(Send(cid, 0, receiver(number), PAYLOAD)) for cid in cids)


def _taken(pairs: Sequence[tuple[Session, Sequence[Send]]]) -> list[Session]:
    for session, messages in pairs:
        session._take_all(list(messages), NOW_MS)
    return [session for session, _ in pairs]


def _decoded(pairs: Sequence[tuple[Session, bytes]]) -> list[Any]:
    return [session.conn.receive(data, NOW_S) for session, data in pairs]


def posts(round_: int) -> list[EntryPost]:
    """The round as it is posted: decided by sessions."""
    out = []
    for number in range(USERS):
        session = open_session(sender(number))
        session.receive(sends(number, 1 + round_ * WINDOW), NOW_S, NOW_MS)
        for effect in session.take_effects():
            if isinstance(effect, PostBurst):
                out += effect.posts
            elif isinstance(effect, PostEntry):
                out.append(effect.post)
    assert len(out) == MESSAGES
    return out


def appended(round_: int) -> list[Appended]:
    """What the store answers: everything saved, every receiver on one node."""
    seqs = range(1 + round_ * WINDOW, 1 + (round_ + 1) * WINDOW)
    return [Appended(list(seqs), seqs[-1], (Seat("bench", NODE, "1.1"),)) for _ in range(USERS)]


def _parcels(work: tuple[Plan, list[Appended]]) -> list[bytes]:
    routed = route(*work, NOW_MS)
    return [pack_batch("broker", parcels) for parcels in routed.parcels.values()]


def _delivered(work: tuple[dict[str, Session], bytes]) -> dict[str, Session]:
    sessions, batch = work
    for parcel in unpack_parcels(batch)[1]:
        assert isinstance(parcel, FramesParcel)
        sessions[parcel.user].push(parcel.first, parcel.last, parcel.frames)
    return sessions


def handed(round_: int) -> tuple[dict[str, Session], bytes]:
    """The receivers' sessions, and the batch for their node."""
    [batch] = _parcels((plan(posts(round_)), appended(0)))
    return {receiver(number): open_session(receiver(number)) for number in range(USERS)}, batch


class Sink:
    """Sockets that take what is written, as the kernel takes it for a client on loopback."""

    def __init__(self) -> None:
        self._pairs = [socket.socketpair() for _ in range(USERS)]
        for pair in self._pairs:
            for end in pair:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)

    def prepare(self, round_: int) -> list[tuple[Session, socket.socket]]:
        """Sessions with everything to be written; the sockets are emptied."""
        for _, far in self._pairs:
            far.setblocking(False)
            try:
                while far.recv(1 << 20):
                    pass
            except BlockingIOError:
                far.setblocking(True)
        sessions = _delivered(handed(round_)).values()
        return [(session, near) for session, (near, _) in zip(sessions, self._pairs, strict=True)]

    def run(self, pairs: Sequence[tuple[Session, socket.socket]]) -> None:
        """One write a session, as at the end of a turn."""
        for session, near in pairs:
            near.send(b"".join(session.conn.bytes_to_send()))

    def close(self) -> None:
        """The end."""
        for pair in self._pairs:
            for end in pair:
                end.close()


def pure_stages() -> list[Stage]:
    """All that need neither a store nor a socket, in the order of the walk."""

    def to_decode(round_: int) -> Any:
        return [(open_session(sender(number)), sends(number, 1)) for number in range(USERS)]

    def to_decide(round_: int) -> Any:
        return [(session, session.conn.receive(data, NOW_S)) for session, data in to_decode(round_)]

    def to_accept(round_: int) -> Any:
        sessions = _taken(to_decide(round_))
        return [(session, range(1, 1 + WINDOW)) for session in sessions]

    def accept(pairs: Any) -> None:
        for session, cids in pairs:
            session.accepted(cids)

    return [
        Stage("decode", "bytes of a read → messages", to_decode, _decoded),
        Stage("decide", "message → a post, its body packed", to_decide, _taken),
        Stage("pack", "posts → one batch", posts, lambda items: pack_batch(NODE, items)),
        Stage("plan", "batch → posts → appends by receiver", lambda r: pack_batch(NODE, posts(r)), lambda batch: plan(unpack_posts(batch)[1])),
        Stage("route", "the store's answer → one batch a node", lambda r: (plan(posts(r)), appended(r)), _parcels),
        Stage("deliver", "batch of a node → sessions", handed, _delivered),
        Stage("accept", "confirm → ACCEPTED, one frame a window", to_accept, accept),
    ]  # fmt: skip


def append_stage(store: Any, runner: asyncio.Runner) -> tuple[Callable[[int], Any], Callable[[Any], Any]]:
    """Append a round to a SentQueue, durable."""

    async def run(work: Plan) -> Any:
        return await store.append(work.appends, NOW_MS)

    return (lambda round_: plan(posts(round_))), (lambda work: runner.run(run(work)))
