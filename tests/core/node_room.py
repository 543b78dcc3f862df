"""A switchboard and a postroom on real in-process links, with transports that the test holds in its hands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from brokerd.links.memory import MemoryNodes, MemoryQueue, MemoryRegister
from brokerd.links.sqlite import SqliteSentQueue
from brokerd.ports import Append, Entry, Seat
from chatd.line import Line
from chatd.ports import Identity, LoginRefused
from chatd.postroom import Postroom
from chatd.switchboard import Switchboard
from protocol.codec import encode, encode_body
from protocol.envelope import FramesParcel, Parcel, ParcelKind, pack_batch, unpack_parcels
from protocol.errors import Code
from protocol.messages import Error, Message
from protocol.wire import Limits, Type
from tests.core.back_room import FAR_MS, Outages, until
from tests.core.peers import NOW_MS, deliver, frames, hello, messages_of

SHARDS = 4


@dataclass
class TestWire:
    """A transport without a network. `pending` is what did not leave yet."""

    __test__ = False
    written: list[bytes] = field(default_factory=list)
    pending: int = 0
    is_reading: bool = True
    is_greeted: bool = False
    closed: tuple[Code | None, str] | None = None

    def write(self, chunks: list[bytes]) -> None:
        self.written += chunks

    def pending_bytes(self) -> int:
        return self.pending

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def greeted(self) -> None:
        self.is_greeted = True

    def close(self, code: Code | None, detail: str) -> None:
        self.closed = self.closed or (code, detail)


class OpenHouse:
    """Lets everybody in but those in `refused`; `shut` accounts are closed under their sessions."""

    def __init__(self) -> None:
        self.refused: dict[str, LoginRefused] = {}
        self.shut: set[str] = set()
        self.expires_s: float | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def prove(self, scheme: int, user: str, secret: str, peer: str) -> Identity:
        await self.gate.wait()
        if user in self.refused:
            raise self.refused[user]
        return Identity(user, self.expires_s)

    def is_open(self, user: str, proof: str = "") -> bool:
        return user not in self.shut


class Peer:
    """One client on a test wire."""

    def __init__(self, room: NodeRoom, user: str, device: str) -> None:
        self.wire = TestWire()
        line = room.board.enter(self.wire, "127.0.0.1:9", preface=False)
        assert line is not None
        self.line: Line = line
        self.user, self.device = user, device

    def say(self, *messages: Message) -> None:
        self.line.receive(b"".join(encode(message) for message in messages))

    def heard(self) -> list[Message]:
        """What was written to it since the last call."""
        written, self.wire.written = self.wire.written, []
        return messages_of(written)

    @property
    def is_in(self) -> bool:
        return self.line.session.is_open and self.line.seat is not None

    @property
    def end(self) -> Code | None:
        """The code that it was told at its end, when it was closed."""
        if self.wire.closed is None:
            return None
        return next((Code(it.code) for it in self.heard() if isinstance(it, Error)), self.wire.closed[0])

    def hang_up(self) -> None:
        self.line.lost("gone")


class NodeRoom:
    """One node, `n1`; the inbox of another, `n2`, is `elsewhere`. No broker runs: the test is the broker."""

    def __init__(
        self, store: SqliteSentQueue, register: MemoryRegister, tasks: asyncio.TaskGroup, limits: Limits
    ) -> None:
        self.queue, self.nodes = MemoryQueue(), MemoryNodes()
        self.real_store, self.store = store, Outages(store)
        self.real_register, self.register = register, Outages(register)
        self.accounts = OpenHouse()
        log = structlog.get_logger()
        self.board = Switchboard(
            "n1", shards=SHARDS, inbound=self.queue, nodes=self.nodes, sent_queue=self.store, register=self.register,
            accounts=self.accounts, limits=limits, outbox_bytes_max=1000, connections_max=50, tasks=tasks, log=log,
        )  # fmt: skip
        self.postroom = Postroom(self.board, log)
        self.elsewhere: list[Parcel] = []

    async def start(self) -> None:
        await self.nodes.open("n1", self.postroom.take, self.postroom.lost_some)
        await self.nodes.open("n2", lambda batch: self.elsewhere.extend(unpack_parcels(batch)[1]), lambda: None)
        for node in ("n1", "n2"):
            await self.real_register.renew_lease(node, 60_000)

    async def log_in(self, user: str = "ann", device: str = "laptop") -> Peer:
        """A session, through to WELCOME and DRAINED."""
        peer = Peer(self, user, device)
        peer.say(hello(user, device))
        await until(lambda: peer.is_in and bool(peer.wire.written))
        return peer

    async def save(self, *seqs: int, user: str = "ann") -> None:
        """Put the tests' messages into the queue, as a broker does before it hands them over."""
        entries = [Entry(b"o" * 9, seq, Type.DELIVER, 0, FAR_MS, encode_body(deliver(seq))) for seq in seqs]
        await self.real_store.append([Append(user, entries)], NOW_MS)

    def hand(self, *parcels: Parcel) -> None:
        """As a broker does."""
        self.postroom.take(pack_batch("b1", parcels))

    async def seats(self, user: str = "ann") -> list[Seat]:
        return (await self.real_register.seats([user]))[0]


def framed(first: int, last: int, user: str = "ann") -> FramesParcel:
    return FramesParcel(ParcelKind.FRAMES, user, first, last, frames(first, last))


@asynccontextmanager
async def node_room(folder: Path, limits: Limits | None = None) -> AsyncIterator[NodeRoom]:
    """A node that runs until the block ends."""
    register = MemoryRegister()
    async with SqliteSentQueue(folder / "store", register=register) as store, asyncio.TaskGroup() as tasks:
        room = NodeRoom(store, register, tasks, limits or Limits())
        await room.start()
        yield room
