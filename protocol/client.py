"""The Python client: send, iterate over what comes, forget about connections.

    async with Client("127.0.0.1", 7400, "ann", "laptop", password="…") as client:
        await client.send("bob", b"hello")
        async for message in client:
            ...

It reconnects, resumes, sends again what was not answered, drops repeats and acknowledges what the loop is done with.
How to use it: docs/client.md. The files, from the outside in: client (this, what an application calls), client_requests
and client_inbox (its two halves), client_link and client_wire (connections), client_core (every decision, pure),
client_store (what survives a restart). Spec: protocol/SPEC.md §10, §11.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self

from protocol.client_bell import Bell
from protocol.client_core import Backoff
from protocol.client_inbox import Inbox, Incomings
from protocol.client_link import ClientState, Clock, Closed, Connected, Connecting, Link, LoopClock, Reconnecting
from protocol.client_requests import ClientClosed, OutgoingFull, Refused, Requests
from protocol.client_store import Change, ClientStore, FileStore, MemoryStore, StoreBusy
from protocol.client_wire import TRANSPORTS, Address, Dial
from protocol.connection import ClientConnection
from protocol.errors import Code
from protocol.messages import (
    Accepted,
    Ack,
    Deliver,
    Drained,
    Error,
    Gone,
    Hello,
    Message,
    Pong,
    Read,
    ReadSync,
    Receipt,
    Send,
    Sent,
    Signal,
    Signalled,
    Welcome,
)  # fmt: skip
from protocol.names import NAME_ALLOWED, is_name
from protocol.wire import (
    CREDIT_DEFAULT,
    CREDIT_MAX,
    DEVICE_TAG_BYTES,
    FEATURES,
    RECEIPT_IDS_MAX,
    UNACCEPTED_MAX,
    VERSION_MINOR,
    Flag,
    Scheme,
)

__all__ = [
    "Backoff", "Client", "ClientClosed", "ClientState", "ClientStore", "Closed", "Connected", "Connecting", "FileStore",
    "Incomings", "MemoryStore", "OutgoingFull", "Reconnecting", "Refused", "StoreBusy",
]  # fmt: skip

_INFO: Final = {"client": "chatd-python"}


class Client:
    """One device of one user. Everything is called from one event loop, asyncio's own or uvloop."""

    def __init__(
        self, host: str, port: int, user: str, device: str, *, password: str | None = None,
        token: str | Callable[[], str] | None = None, transport: str = "tcp", path: str = "/ws",
        tls: ssl.SSLContext | None = None, credit: int = CREDIT_DEFAULT, unanswered_max: int = UNACCEPTED_MAX,
        store: ClientStore | None = None, auto_ack: bool = True, own_copies: bool = False,
        on_state: Callable[[ClientState], None] | None = None, backoff: Backoff | None = None, clock: Clock | None = None,
        dial: Dial | None = None,
    ) -> None:  # fmt: skip
        """`transport`: tcp, tls, ws, wss. `token` may be a function that gives a fresh one at each login.

        `credit`: deliveries that may wait here (1..16384). `unanswered_max`: requests that may be without an answer;
        then `send` waits. `store` defaults to memory. With auto_ack False the application calls `ack`. With
        `own_copies` the loop also yields SENT for what this very device sent. `on_state` is called on every change and
        must not wait. `backoff` and `clock` are for tests. `dial` gives a connected socket for `transport` tcp, in place of
        `host` and `port`. Raises ValueError for what can never work, and what the
        store raises (StoreBusy, OSError).
        """
        _check(user, device, password, token, transport, credit)
        if dial is not None and transport != "tcp":
            raise ValueError("dial is for the transport tcp")
        self._user, self._device = user, device
        self._secret: str | Callable[[], str] = token if token is not None else password or ""
        self._scheme = Scheme.PASSWORD if token is None else Scheme.TOKEN
        self._credit = credit
        self._own_copies = own_copies
        self._on_state = on_state
        self._unanswered_max = unanswered_max
        self._clock: Clock = clock or LoopClock()
        self._backoff = backoff or Backoff(random.uniform)
        self._link = Link(Address(transport, host, port, path, tls, dial), self, self._backoff, self._clock)
        self._store: ClientStore = store if store is not None else MemoryStore()
        kept = self._store.load()
        self._saved_place = (kept.generation, kept.position)
        self._inbox = Inbox(kept, auto_ack=auto_ack)
        self._requests = Requests(kept, _now_us(), unanswered_max, Backoff(random.uniform), self._clock)
        self._requests.on_release = self._schedule  # type: ignore[method-assign]
        self._tag = b""
        self._is_scheduled = False
        self._task: asyncio.Task[Closed] | None = None
        self._over: ClientClosed | None = None
        self._fault: OSError | None = None  # of the store
        self._changed = Bell()
        self.state: ClientState = Connecting()

    # --- life

    async def __aenter__(self) -> Self:
        """Begin to connect; nothing is waited for. What is posted now leaves when the server is there."""
        self._task = asyncio.get_running_loop().create_task(self._link.run(), name=f"chatd client of {self._user}")
        self._task.add_done_callback(self._on_done)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close. Leaving the block without an exception says that the message in hand is processed."""
        if kind is None:
            self._inbox.finish_all()
        await self.close()

    async def close(self) -> None:
        """Acknowledge what is due, say BYE, close. What has no answer yet stays in the store. May be called twice."""
        if self._task is None:
            return
        await self._link.close()
        self._task.cancel()
        await asyncio.wait([self._task])

    def _on_done(self, task: asyncio.Task[Closed]) -> None:
        """The link ended: by us, by a code, or because the store failed."""
        if self._fault is not None:
            closed = Closed(int(Code.INTERNAL), f"the store failed: {self._fault}")
        elif task.cancelled():
            closed = Closed(None, "closed by this side")
        elif (fault := task.exception()) is not None:
            closed = Closed(int(Code.INTERNAL), f"{type(fault).__name__}: {fault}")
        else:
            closed = task.result()
        self._over = ClientClosed(closed.code, closed.detail)
        self._inbox.close(self._over)
        self._requests.close(self._over)
        self._save_last()
        self.tell(closed)

    def _save_last(self) -> None:
        try:
            self._save()
        except OSError:
            pass  # it is over; what the server has is not lost, and what it lacks was refused to its poster
        self._store.close()

    # --- sending

    async def send(
        self, to: str, payload: bytes, *, receipt: bool = False, read_receipt: bool = False, ttl_s: int | None = None
    ) -> bytes:
        """Send a message; its id, once the server made it durable (ACCEPTED). Waits for room and for a connection.

        `receipt`: be told DELIVERED or EXPIRED; `read_receipt`: also READ. `ttl_s`: 1 s to 30 days, None = the server's.
        Raises Refused, ClientClosed. When it is cancelled, the message may go out all the same.
        """
        await self._requests.wait_room()
        return await self.post(to, payload, receipt=receipt, read_receipt=read_receipt, ttl_s=ttl_s)

    def post(
        self, to: str, payload: bytes, *, receipt: bool = False, read_receipt: bool = False, ttl_s: int | None = None
    ) -> asyncio.Future[bytes]:
        """As `send`, without waiting: posts leave in their order. Raises Refused, OutgoingFull, ClientClosed at once."""
        flags = (Flag.RECEIPT if receipt else 0) | (Flag.READ_RECEIPT if read_receipt else 0)
        future = self._requests.post(Send(0, int(flags), to, payload, ttl_s))
        self._schedule()
        return future

    async def read(self, to: str, ids: Sequence[bytes]) -> None:
        """Say that the user has read these messages of `to`. Returns when the server has it. Raises as `send`."""
        for at in range(0, len(ids), RECEIPT_IDS_MAX):
            await self._requests.wait_room()
            await self.post_read(to, ids[at : at + RECEIPT_IDS_MAX])

    def post_read(self, to: str, ids: Sequence[bytes]) -> asyncio.Future[bytes]:
        """As `read`, for 1 to 256 ids, without waiting. Raises as `post`."""
        if not 1 <= len(ids) <= RECEIPT_IDS_MAX:
            raise ValueError(f"{len(ids)} ids; 1..{RECEIPT_IDS_MAX} are allowed")
        future = self._requests.post(Read(0, 0, to, tuple(ids)))
        self._schedule()
        return future

    def signal(self, to: str, payload: bytes) -> bool:
        """An ephemeral message (typing …): lost when either side is offline. False when this side is."""
        line = self._link.line
        if line is None or not line.is_open or not is_name(to):
            return False
        line.connection.send(Signal(0, 0, to, payload))
        line.schedule()
        return True

    async def wait_room(self) -> None:
        """Until `post` would take another request. Raises ClientClosed."""
        await self._requests.wait_room()

    async def wait_answered(self) -> None:
        """Until every request has its answer. Raises ClientClosed."""
        await self._requests.wait_answered()

    @property
    def unanswered(self) -> int:
        """Requests without an answer, those of an earlier run included."""
        return len(self._requests)

    @property
    def recovered(self) -> list[tuple[Send | Read, asyncio.Future[bytes]]]:
        """What an earlier run left in the store and this one sends again, each with its future."""
        return self._requests.recovered

    # --- receiving

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Incomings:
        """The next message. Asking for it says that the one before is processed (unless auto_ack is off).

        The loop ends after close(); it raises ClientClosed when a code ended the client.
        """
        return await self._inbox.next(self._schedule)

    def ack(self, message: Incomings) -> None:
        """This message and all before it are processed: they will not come again. For auto_ack=False, or to leave a
        loop with `break` and still have the message done with."""
        self._inbox.finish(message)
        self._schedule()

    async def wait_drained(self) -> None:
        """Until everything that waited at login has arrived here. A loop must be taking messages meanwhile, or no more
        come than the credit allows. Raises ClientClosed."""
        await self._inbox.wait_drained()

    async def wait_taken(self) -> None:
        """Until the loop has taken all that arrived here, and asks for more. Raises ClientClosed."""
        await self._inbox.wait_taken()

    async def wait_connected(self) -> None:
        """Until a session stands. Raises ClientClosed."""
        while not isinstance(self.state, Connected):
            if self._over is not None:
                raise self._over
            await self._changed.wait()

    def is_own(self, message_id: bytes) -> bool:
        """Whether this very device made the id. Known after the first login."""
        return bool(self._tag) and message_id[:DEVICE_TAG_BYTES] == self._tag

    # --- the link's calls (protocol.client_link.Session)

    def hello(self) -> Hello:
        """What to log in with now."""
        place = self._inbox.place
        secret = self._secret if isinstance(self._secret, str) else self._secret()
        return Hello(
            place.hello(), 0, VERSION_MINOR, FEATURES, self._user, self._device, int(self._scheme), secret,
            place.generation, self._credit, _INFO,
        )  # fmt: skip

    def welcome(self, welcome: Welcome) -> None:
        """A session begins."""
        self._tag = welcome.device_tag
        self._requests.welcome(welcome)
        self._inbox.welcome(welcome)

    def receive(self, message: Message) -> str:
        """Everything but WELCOME. Gives the reason why the server must be left, "" for none."""
        inbox = self._inbox
        match message:
            case Deliver() | Receipt() | ReadSync():
                return inbox.put(message, message.ref, message.ref)
            case Accepted():
                self._requests.accepted(message)
            case Sent():
                if self.is_own(message.id) and not self._own_copies:
                    return inbox.skip(message.ref)
                return inbox.put(message, message.ref, message.ref)
            case Gone():
                return inbox.put(message, message.ref, message.last)
            case Signalled():
                inbox.put_signal(message)
            case Error():
                return (
                    "" if self._requests.failed(message) else message.detail or "nobody knows what became of a request"
                )
            case Drained():
                inbox.hear_drained()
            case Pong():
                return inbox.hear_pong(message)
            case _:
                pass  # PING and GOAWAY are the link's
        return ""

    def fill(self, connection: ClientConnection | None, *, is_taking: bool) -> None:
        """Keep first, then let it leave."""
        self._save()
        if connection is None:
            return
        connection.position = self._inbox.place.processed
        seq = self._inbox.place.ack_due()
        if seq is not None:
            connection.send(Ack(seq, 0))
        if is_taking:
            self._requests.transmit(connection)

    def part(self) -> None:
        """The session is over."""
        self._requests.part()

    def tell(self, state: ClientState) -> None:
        """The state changed."""
        self.state = state
        self._changed.ring()
        if self._on_state is not None:
            self._on_state(state)

    # --- one turn

    def _schedule(self) -> None:
        """At the end of this loop turn: keep what changed, write what may leave."""
        line = self._link.line
        if line is not None:
            line.schedule()
        elif not self._is_scheduled and self._over is None:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._turn_offline)

    def _turn_offline(self) -> None:
        self._is_scheduled = False
        try:
            self._save()
        except OSError as fault:
            self._fault = fault
            if self._task is not None:
                self._task.cancel()

    def _save(self) -> None:
        requests, place = self._requests, self._inbox.place
        here = (place.generation, place.processed)
        if requests.posted or requests.answered or here != self._saved_place:
            self._store.save(Change(requests.posted, requests.answered, None if here == self._saved_place else here))
            requests.posted, requests.answered, self._saved_place = [], [], here


def _now_us() -> int:
    """cids begin at the wall clock, so that a device without a store does not use a number twice."""
    return time.time_ns() // 1000


def _check(
    user: str, device: str, password: str | None, token: str | Callable[[], str] | None, transport: str, credit: int
) -> None:
    if (password is None) == (token is None):
        raise ValueError("give a password or a token")
    if transport not in TRANSPORTS:
        raise ValueError(f"transport is {transport!r}; {', '.join(TRANSPORTS)} are allowed")
    if not is_name(device) or not (is_name(user) or (user == "" and token is not None)):
        raise ValueError(f"user and device are {NAME_ALLOWED}")
    if not 1 <= credit <= CREDIT_MAX:
        raise ValueError(f"credit is {credit}; 1..{CREDIT_MAX} is allowed")
