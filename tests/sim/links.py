"""What a simulated process has of the outside: its links to the store and to RabbitMQ. They are slow, break, and die
with their process; what left before it died may still arrive.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from brokerd.ports import Delivery, LinkDown, PostRefused
from tests.sim.odds import Odds

STEP_S = 1e-6  # timers of one instant have no order: what must stay in order is this far apart


class Process:
    """One chatd or brokerd. `die` is kill -9: nothing that it does afterwards has an effect."""

    def __init__(self, name: str, loop: Any, random: Random, odds: Callable[[], Odds]) -> None:
        self.name, self.loop, self.random, self._odds = name, loop, random, odds
        self.is_alive = True
        self.frozen_until_s = 0.0
        self.task: asyncio.Task[None] | None = None
        self.at_death: list[Callable[[], None]] = []
        self.store_down_until_s = 0.0

    @property
    def odds(self) -> Odds:
        return self._odds()

    def has(self, ratio: float) -> bool:
        """A throw of this process' own dice."""
        return bool(ratio) and self.random.random() < ratio

    def soon(self, last_s: float) -> float:
        """A little later, behind `last_s`, and not while it is frozen."""
        delay_s = self.random.random() ** 3 * 0.03
        return max(last_s + STEP_S, self.loop.time() + delay_s, self.frozen_until_s)

    def die(self) -> None:
        if self.is_alive:
            self.is_alive = False
            for tell in self.at_death:
                tell()
            if self.task is not None:
                self.loop.call_soon(self.task.cancel)


class StoreLink:
    """SentQueue and Register of one process: calls arrive in order, answers come in order, either may be lost."""

    def __init__(self, process: Process, store: Any) -> None:
        self._process, self._store = process, store
        self._asked_s = self._answered_s = 0.0
        self._has_ended = False

    def __getattr__(self, name: str) -> Any:
        act = getattr(self._store, name)

        async def call(*args: Any) -> Any:
            loop, answer = self._process.loop, self._process.loop.create_future()
            self._asked_s = self._process.soon(self._asked_s)
            loop.call_at(self._asked_s, self._arrive, act, args, answer)
            return await answer

        return call

    def _arrive(self, act: Callable[..., Any], args: Any, answer: asyncio.Future[Any]) -> None:
        process, odds = self._process, self._process.odds
        if not process.is_alive:
            self._has_ended = self._has_ended or process.random.random() < 0.5
            if not self._has_ended:
                act(*args)  # it had left
            return
        fault: Exception | None = None
        result = None
        if process.loop.time() < process.store_down_until_s or process.has(odds.store_down_before):
            fault = LinkDown("lost on its way there")
        else:
            result = act(*args)
            if process.has(odds.store_down_after):
                fault = LinkDown("lost on its way back")
        self._answered_s = process.soon(self._answered_s)
        process.loop.call_at(self._answered_s, self._answer, answer, result, fault)

    def _answer(self, answer: asyncio.Future[Any], result: Any, fault: Exception | None) -> None:
        if self._process.is_alive and not answer.done():
            if fault is not None:
                answer.set_exception(fault)
            else:
                answer.set_result(result)


class Shard:
    """A durable queue with one active consumer."""

    def __init__(self, number: int, loop: Any) -> None:
        self.number, self._loop = number, loop
        self.waiting: deque[tuple[bytes, bool]] = deque()
        self.held: dict[int, bytes] = {}
        self.consumers: list[tuple[Any, Callable[[Delivery], None]]] = []
        self._tags = 0
        self._term = 0

    def put(self, batch: bytes) -> None:
        self.waiting.append((batch, False))
        self.feed()

    def join(self, who: Any, take: Callable[[Delivery], None]) -> None:
        self.consumers.append((who, take))
        self._loop.call_soon(self.feed)

    def leave(self, who: Any) -> None:
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
            done = partial(self._done, who, self._term, self._tags)
            take(Delivery(self.number, batch, again, done))

    def _done(self, who: Any, term: int, tag: int) -> None:
        process = who.process
        if process.has(process.odds.crash_at_done):
            process.die()
        if process.is_alive and term == self._term:
            self.held.pop(tag, None)


class Rabbit:
    """All shards, and the inboxes of the nodes that have one."""

    def __init__(self, shards: int, loop: Any) -> None:
        self.shards = [Shard(number, loop) for number in range(shards)]
        self.inboxes: dict[str, tuple[Callable[[bytes], None], Callable[[], None]]] = {}

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
        if not refused:
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
        self._takes: dict[int, Callable[[Delivery], None]] = {}
        process.at_death.append(self._leave)

    async def consume(self, shard: int, take: Callable[[Delivery], None]) -> None:
        self._takes[shard] = take
        self._rabbit.shards[shard].join(self, take)

    def bury(self, delivery: Delivery, reason: str) -> asyncio.Future[None]:
        raise AssertionError(f"a batch was buried: {reason}")

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
        inbox = self._rabbit.inboxes.get(node)
        if inbox is not None:
            inbox[0](batch)
        elif self._process.is_alive:
            for told in self._told:
                told(node)
