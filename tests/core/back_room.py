"""A broker on the links of one process: a queue, nodes and a register in memory, a SQLite file; all of them real."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import structlog

from brokerd.broker import Broker
from brokerd.links.memory import QUEUE_BATCHES_MAX, MemoryNodes, MemoryQueue, MemoryRegister
from brokerd.links.sqlite import SqliteSentQueue
from brokerd.ports import LinkDown, Seat
from protocol.codec import encode_body
from protocol.envelope import EntryPost, Parcel, Post, PostKind, pack_batch, unpack_parcels
from protocol.frames import pack_frame
from protocol.messages import Deliver, Message
from protocol.names import device_tag, message_id, shard_of
from protocol.wire import Type
from tests.core.peers import GENERATION, NOW_MS, messages_of

FAR_MS = NOW_MS + 3_600_000
WAIT_S_MAX = 10.0


async def until(is_so: Callable[[], Awaitable[bool] | bool]) -> None:
    """Wait for a condition; the test fails when it does not come."""
    async with asyncio.timeout(WAIT_S_MAX):
        while True:
            answer = is_so()
            if answer if isinstance(answer, bool) else await answer:
                return
            await asyncio.sleep(0.002)


class Outages:
    """Stands before a part and makes the calls that `down` names raise LinkDown, before or behind the real call."""

    def __init__(self, part: Any) -> None:
        self._part = part
        self.down: set[str] = set()
        self.lost_answers: set[str] = set()  # carried out once more, but nobody hears
        self.held: dict[str, asyncio.Event] = {}  # the answer waits for it
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._part, name)

        async def call(*args: Any) -> Any:
            self.calls.append(name)
            if name in self.down:
                raise LinkDown(f"{name} is down")
            answer = await real(*args)
            if name in self.held:
                await self.held[name].wait()
            if name in self.lost_answers:
                self.lost_answers.remove(name)
                raise LinkDown(f"{name} did not answer")
            return answer

        return call


class BackRoom:
    """Everything behind a node, and one node's inbox."""

    def __init__(self, store: SqliteSentQueue, register: MemoryRegister, shards: int, batches_max: int) -> None:
        self.shards = shards
        self.now_ms = NOW_MS
        self.queue = MemoryQueue(batches_max=batches_max)
        self.reserve = self.queue.reserve()
        self.nodes = MemoryNodes()
        self.register = register
        self.store = Outages(store)
        self.real_store = store
        self.parcels: list[Parcel] = []
        self.broker = Broker(
            "b1", shards, inbound=self.reserve, source=self.queue, nodes=self.nodes, sent_queue=self.store,
            register=register, clock_ms=lambda: self.now_ms, log=structlog.get_logger(),
        )  # fmt: skip

    async def seat(self, user: str, device: str = "phone", node: str = "n1") -> None:
        """A device that is logged in on a node whose inbox is `parcels`."""
        await self.open(user, device)
        await self.register.renew_lease(node, 60_000)
        await self.register.claim(user, Seat(device, node, "1.1"))

    async def open(self, user: str, device: str = "phone") -> None:
        """A device that is known."""
        await self.real_store.open(user, device, GENERATION, self.now_ms)

    def take(self, batch: bytes) -> None:
        """What comes for the node."""
        self.parcels += unpack_parcels(batch)[1]

    def post(self, *posts: Post, to: str = "bob") -> asyncio.Future[None]:
        """One batch to the shard of `to`."""
        return self.queue.post(shard_of(to, self.shards), pack_batch("n1", posts))

    async def read(self, user: str, after: int = 0) -> list[Message | None]:
        """The user's queue; None stands for a tombstone."""
        page = await self.real_store.read(user, after, 10_000, 1 << 30)
        return [None if not item.type else _message(seq, item) for seq, item in enumerate(page.entries, page.first)]


def _message(seq: int, item: Any) -> Message:
    return messages_of(pack_frame(item.type, item.flags, seq, item.body))[0]


@asynccontextmanager
async def back_room(folder: Path, shards: int = 4, batches_max: int = QUEUE_BATCHES_MAX) -> AsyncIterator[BackRoom]:
    """A back room whose broker runs."""
    register = MemoryRegister()
    async with SqliteSentQueue(folder / "store", register=register) as store:
        room = BackRoom(store, register, shards, batches_max)
        await room.nodes.open("n1", room.take, lambda: None)
        broker = asyncio.create_task(room.broker.run())
        try:
            yield room
        finally:
            broker.cancel()
            await asyncio.wait([broker])
            assert broker.cancelled(), broker.exception()


def entry(
    cid: int,
    to: str = "bob",
    *,
    sender: str = "ann",
    flags: int = 0,
    payload: bytes = b"tea?",
    expires_ms: int = FAR_MS,
) -> EntryPost:
    """Message `cid` of the sender's laptop."""
    tag = device_tag(sender, "laptop")
    body = encode_body(Deliver(0, 0, sender, message_id(tag, cid), NOW_MS, payload))
    return EntryPost(PostKind.ENTRY, to, tag, cid, Type.DELIVER, flags, expires_ms, body)


def payloads(messages: Sequence[Message | None]) -> list[bytes]:
    """What the messages say."""
    return [message.payload for message in messages if isinstance(message, Deliver)]
