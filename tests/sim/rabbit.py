"""The RabbitMQ of the simulated world, and the links of a process to it.

tests/contracts/test_queues.py runs on them as it does on RabbitMQ. What they do not have of it: bounds (no alarm, no
prefetch, no queue is ever full) and connections: `part` breaks one link of a process, the others stay.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial

from brokerd.ports import Delivery, LinkDown, PostRefused
from tests.sim.process import Process

_Take = Callable[[Delivery], None]


class Shard:
    """A durable queue with one active consumer, the first of `consumers`."""

    def __init__(self, number: int, loop: asyncio.AbstractEventLoop) -> None:
        self.number, self._loop = number, loop
        self.waiting: deque[tuple[bytes, bool]] = deque()
        self.held: dict[int, bytes] = {}
        self.consumers: list[tuple[ShardsLink, _Take]] = []
        self._tags = 0
        self._term = 0

    def put(self, batch: bytes) -> None:
        self.waiting.append((batch, False))
        self.feed()

    def join(self, who: ShardsLink, take: _Take) -> None:
        self.consumers.append((who, take))
        self._loop.call_soon(self.feed)

    def leave(self, who: ShardsLink) -> None:
        was_active = bool(self.consumers) and self.consumers[0][0] is who
        self.consumers = [pair for pair in self.consumers if pair[0] is not who]
        if was_active:
            self._term += 1
            self.waiting.extendleft((batch, True) for batch in reversed(self.held.values()))
            self.held = {}
            self._loop.call_soon(self.feed)

    def feed(self) -> None:
        while self.waiting and self.consumers:
            batch, again = self.waiting.popleft()
            self._tags += 1
            self.held[self._tags] = batch
            who, take = self.consumers[0]
            take(Delivery(self.number, batch, again, partial(self._done, who, self._term, self._tags)))

    def _done(self, who: ShardsLink, term: int, tag: int) -> None:
        process = who.process
        if process.has(process.odds.crash_at_done):
            process.die()
        if process.is_alive and term == self._term:
            self.held.pop(tag, None)


class Rabbit:
    """All shards, the dead letters, and the inboxes of the nodes that have one."""

    def __init__(self, shards: int, loop: asyncio.AbstractEventLoop) -> None:
        self.shards = [Shard(number, loop) for number in range(shards)]
        self.inboxes: dict[str, Callable[[bytes], None]] = {}
        self.dead: list[tuple[bytes, str]] = []
        self.nacked: list[bytes] = []  # batches that were refused; a later one may have been taken

    def is_empty(self) -> bool:
        return not any(shard.waiting or shard.held for shard in self.shards)


class InboundLink:
    """Inbound of one process: what has no confirm when the link breaks is posted again, in order."""

    def __init__(self, process: Process, rabbit: Rabbit) -> None:
        self._process, self._rabbit = process, rabbit
        self._unconfirmed: dict[asyncio.Future[None], tuple[int, bytes]] = {}
        self._epoch = 0
        self._sent_s = self._confirmed_s = 0.0
        self.is_ready = True

    def post(self, shard: int, batch: bytes) -> asyncio.Future[None]:
        if not self.is_ready:
            raise LinkDown("no link")
        process = self._process
        if process.has(process.odds.crash_at_post):
            process.die()
        confirmed: asyncio.Future[None] = process.loop.create_future()
        self._unconfirmed[confirmed] = (shard, batch)
        self._send(confirmed, shard, batch)
        return confirmed

    def _send(self, confirmed: asyncio.Future[None], shard: int, batch: bytes) -> None:
        self._sent_s = self._process.soon(self._sent_s)
        self._process.loop.call_at(self._sent_s, self._arrive, self._epoch, confirmed, shard, batch)

    def _arrive(self, epoch: int, confirmed: asyncio.Future[None], shard: int, batch: bytes) -> None:
        process = self._process
        if epoch != self._epoch:
            return
        if not process.is_alive and process.random.random() < 0.5:
            self._epoch += 1  # the first that did not leave, and so none behind it
            return
        refused = process.has(process.odds.post_refused)
        if refused:
            self._rabbit.nacked.append(batch)
        else:
            self._rabbit.shards[shard].put(batch)
        self._confirmed_s = process.soon(self._confirmed_s)
        process.loop.call_at(self._confirmed_s, self._confirm, epoch, confirmed, refused)

    def _confirm(self, epoch: int, confirmed: asyncio.Future[None], refused: bool) -> None:
        if epoch != self._epoch or not self._process.is_alive:
            return
        self._unconfirmed.pop(confirmed, None)
        if confirmed.done():
            return
        if refused:
            confirmed.set_exception(PostRefused("nack"))
        else:
            confirmed.set_result(None)

    def part(self, for_s: float) -> None:
        """The link breaks and comes back."""
        if self.is_ready:
            self._epoch += 1
            self.is_ready = False
            self._process.loop.call_later(for_s, self._back)

    def _back(self) -> None:
        self.is_ready = True
        for confirmed, (shard, batch) in self._unconfirmed.items():
            self._send(confirmed, shard, batch)


class ShardsLink:
    """Shards of one brokerd."""

    def __init__(self, process: Process, rabbit: Rabbit) -> None:
        self.process, self._rabbit = process, rabbit
        self._takes: dict[int, _Take] = {}
        process.at_death.append(self._leave)

    async def consume(self, shard: int, take: _Take) -> None:
        self._takes[shard] = take
        self._rabbit.shards[shard].join(self, take)

    def bury(self, delivery: Delivery, reason: str) -> asyncio.Future[None]:
        self._rabbit.dead.append((delivery.body, reason))
        buried: asyncio.Future[None] = self.process.loop.create_future()
        buried.set_result(None)
        return buried

    def part(self, for_s: float) -> None:
        """RabbitMQ gives its shards to others; it comes back as the last in the row."""
        self._leave()
        self.process.loop.call_later(for_s, self._back)

    def _leave(self) -> None:
        for shard in self._takes:
            self._rabbit.shards[shard].leave(self)

    def _back(self) -> None:
        if self.process.is_alive:
            for shard, take in self._takes.items():
                self._rabbit.shards[shard].leave(self)
                self._rabbit.shards[shard].join(self, take)


class NodesLink:
    """Nodes of one process: in order, lossy; who has no inbox is told."""

    def __init__(self, process: Process, rabbit: Rabbit) -> None:
        self._process, self._rabbit = process, rabbit
        self._told: list[Callable[[str], None]] = []
        self._handed_s = 0.0

    def on_absent(self, told: Callable[[str], None]) -> None:
        self._told.append(told)

    def hand(self, node: str, batch: bytes) -> None:
        process = self._process
        if process.has(process.odds.crash_at_hand):
            process.die()
        if not process.is_alive or process.has(process.odds.parcel_lost):
            return
        for _ in range(1 + process.has(process.odds.parcel_repeated)):
            self._handed_s = process.soon(self._handed_s)
            process.loop.call_at(self._handed_s, self._arrive, node, batch)

    def _arrive(self, node: str, batch: bytes) -> None:
        take = self._rabbit.inboxes.get(node)
        if take is not None:
            take(batch)
        elif self._process.is_alive:
            for told in self._told:
                told(node)


class InboxLink:
    """NodeInbox of one process: gone with it, and for a while when the link breaks."""

    def __init__(self, process: Process, rabbit: Rabbit) -> None:
        self._process, self._rabbit = process, rabbit
        self._node = ""
        self._take: Callable[[bytes], None] | None = None
        self._on_gap: Callable[[], None] | None = None
        process.at_death.append(self.close)

    async def open(self, node: str, take: Callable[[bytes], None], on_gap: Callable[[], None]) -> None:
        loop = self._process.loop
        opened: asyncio.Future[None] = loop.create_future()
        self._node, self._take, self._on_gap = node, take, on_gap
        loop.call_at(self._process.soon(0.0), self._open, opened)
        await opened

    def _open(self, opened: asyncio.Future[None]) -> None:
        if self._process.is_alive and self._take is not None and not opened.done():
            self._rabbit.inboxes[self._node] = self._take
            opened.set_result(None)

    def close(self) -> None:
        """No more parcels come."""
        self._rabbit.inboxes.pop(self._node, None)

    def part(self, for_s: float) -> None:
        """The link breaks and comes back: parcels may have been lost."""
        if self._node in self._rabbit.inboxes:
            self.close()
            self._process.loop.call_later(for_s, self._back)

    def _back(self) -> None:
        if self._process.is_alive and self._take is not None and self._on_gap is not None:
            self._rabbit.inboxes[self._node] = self._take
            self._on_gap()
