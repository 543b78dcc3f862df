"""The broker: it takes what has come from all its shards, saves it, looks up, routes, and only then acknowledges.

A batch is worked off like this: decode → one round trip to the store (append + dedupe + lookup, acks) → route (pure) →
one hand-over for each node → bounces posted and durable → the inbound batch is done. Whatever fails is repeated from the
start: every step is idempotent. Nothing is taken for absent because the store is down (promise 11).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, Final, TypeVar

from brokerd.batches import batches, stamp_back
from brokerd.counts import Tally
from brokerd.crash_points import WRITTEN_TURNS, crash_point, crash_point_that_waits
from brokerd.metrics import Value
from brokerd.outage import Outage
from brokerd.ports import (
    Ack,
    Acked,
    Appended,
    Delivery,
    Inbound,
    LinkDown,
    Nodes,
    PartlySaved,
    PostRefused,
    Register,
    SentQueue,
    Shards,
)
from brokerd.route import Handed, Plan, Routed, expired_posts, plan, route, route_part, told_posts
from brokerd.salvage import Salvage, remainder, told
from brokerd.tracer import BrokerTracer
from brokerd.tracing import HopBuffer, Sample
from protocol.envelope import EntryPost, Post, Undecodable, unpack_stamped
from protocol.errors import Code
from protocol.names import shard_of

WORK_BYTES_MAX: Final = 4 * 1024 * 1024  # of inbound in one round, which holds about eight copies of them
WORK_BATCHES_MAX: Final = 64
# Rounds at one time, of all shards together. With more of them a round holds less, and each costs a round trip to the store and
# a hand-over to each node: with one for each shard (8) at 5,000 messages a second hardly any held two messages.
ROUNDS_MAX: Final = 2
RETRY_S: Final = 0.25  # between two tries while the store or the queue is down
SWEEP_ENTRIES_MAX: Final = 256
SETTLING_MAX: Final = 1024  # settled and swept at one time; beyond it they wait, but never their shard
HANDED_SEATS_MAX: Final = 100_000  # seats remembered by node, to be released when the node is gone
HANDED_NODES_MAX: Final = 256  # every start of a node is a new one

T = TypeVar("T")
_Decoded = tuple[Delivery, list[Post]]

_delivered = crash_point("brokerd.delivered")
_before_save = crash_point("brokerd.before_save")
_save_asked = crash_point("brokerd.save_asked", turns=WRITTEN_TURNS)
_saved = crash_point("brokerd.saved")
_handed_over = crash_point_that_waits("brokerd.handed_over")
_before_ack = crash_point("brokerd.before_ack")
_device_acked = crash_point("brokerd.device_acked")
_receipts_posted = crash_point("brokerd.receipts_posted")


class Broker:
    """All shards of one brokerd. `run` is its only task; it ends when cancelled."""

    def __init__(
        self,
        name: str,
        shards: int,
        *,
        inbound: Inbound,
        source: Shards,
        nodes: Nodes,
        sent_queue: SentQueue,
        register: Register,
        clock_ms: Callable[[], int],
        log: Any,
        tracer: BrokerTracer | None = None,
    ) -> None:
        self.name = name
        self._tally = Tally()
        self.counts = self._tally.counts
        self._shards = shards
        self._inbound, self._source, self._nodes = inbound, source, nodes
        self._store, self._register = sent_queue, register
        self._clock_ms, self._log = clock_ms, log
        self._outage = Outage("store", log)
        self._tracer = tracer or BrokerTracer(name, Sample(0), HopBuffer(None, log), clock_ms, log)
        self._salvage = Salvage(self._round, sent_queue, clock_ms, log)
        self._handed: dict[str, dict[tuple[str, str], Handed]] = {}
        self._settling = 0
        self._to_settle: dict[tuple[str, str], Callable[[], Coroutine[Any, Any, None]]] = {}  # by user and device
        self._tasks: asyncio.TaskGroup | None = None
        self._waiting: list[deque[Delivery]] = [deque() for _ in range(shards)]
        self._in_work: set[int] = set()  # shards that have deliveries in a round: a later round may not pass it
        self._come = asyncio.Event()
        self._turn = 0
        nodes.on_absent(self._node_absent)

    async def run(self) -> None:
        """Consume every shard until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            for shard in range(self._shards):
                tasks.create_task(self._source.consume(shard, self._take), name=f"shard-{shard}")
            for number in range(ROUNDS_MAX):
                tasks.create_task(self._work_rounds(), name=f"rounds-{number}")

    def statistics(self) -> dict[str, int]:
        """Counters, for people."""
        return asdict(self.counts)

    def samples(self) -> dict[str, Value]:
        """For metrics."""
        return self._tally.samples(len(delivery.body) for waiting in self._waiting for delivery in waiting)

    # --- rounds

    def _take(self, delivery: Delivery) -> None:
        self._waiting[delivery.shard].append(delivery)
        self._come.set()

    async def _work_rounds(self) -> None:
        """One round after the other, each with what is there of all shards that no other round has in work."""
        while True:
            taken = self._take_round()
            if not taken:
                self._come.clear()
                await self._come.wait()
                continue
            shards = {delivery.shard for delivery in taken}
            self._in_work |= shards
            try:
                await self._work(taken)
            finally:
                self._in_work -= shards

    def _take_round(self) -> list[Delivery]:
        """What waits, in the order of each shard, up to the bounds of one round; another shard is the first each time."""
        taken: list[Delivery] = []
        room = WORK_BYTES_MAX
        self._turn += 1
        for at in range(self._shards):
            shard = (self._turn + at) % self._shards
            waiting = self._waiting[shard]
            if shard in self._in_work:
                continue
            while waiting and len(taken) < WORK_BATCHES_MAX and (room >= len(waiting[0].body) or not taken):
                room -= len(waiting[0].body)
                taken.append(waiting.popleft())
        return taken

    async def _work(self, deliveries: list[Delivery]) -> None:
        """Decode, once; what cannot be decoded is buried."""
        _delivered()
        decoded: list[_Decoded] = []
        for delivery in deliveries:
            try:
                node, posts, stamp = unpack_stamped(delivery.body)
                decoded.append((delivery, posts))
                if stamp:
                    self._nodes.hand(node, stamp_back(self.name, delivery.shard, stamp))
            except Undecodable as fault:
                self._bury(delivery, str(fault))
        if decoded:
            await self._try(decoded)

    async def _try(self, decoded: list[_Decoded]) -> None:
        """One round; when it fails, batch by batch, so that a poison one does not stop its shard for ever."""
        try:
            bounces = await self._until_up(self._round, [post for _, posts in decoded for post in posts])
            self._finish([delivery for delivery, _ in decoded], bounces)
        except Exception:
            self._log.exception("round_failed", batches=len(decoded))
            for delivery, posts in decoded:
                bounces, bad = await self._until_up(self._salvage.run, posts)
                if bad:
                    self._bury(remainder(delivery, posts, bad, self.name), told(bad), bounces, [it.post for it in bad])
                else:
                    self._finish([delivery], bounces)

    async def _until_up(self, work: Callable[[Sequence[Post]], Awaitable[T]], posts: Sequence[Post]) -> T:
        """`work`, again and again while a link is down: that is no reason to bury anything."""
        while True:
            try:
                return await work(posts)
            except LinkDown:
                await asyncio.sleep(RETRY_S)

    async def _round(self, posts: Sequence[Post]) -> list[EntryPost]:
        """All posts, in order, in one round trip. The bounces, which must be durable before the batches are done with."""
        work = plan(posts)
        _before_save()
        appended, acked = await self._ask_store(work)
        _saved()
        now_ms = self._clock_ms()
        routed = route(work, appended, now_ms)
        self._tracer.routed(work, appended, routed, now_ms)
        self._hand_over(routed)
        await _handed_over()
        self._tally.round(len(posts), routed, len(work.acks))
        for ack, answer in zip(work.acks, acked, strict=True):
            if answer.owed:
                has_room = self._settling < SETTLING_MAX
                self._begin(ack.user, ack.device, partial(self._settle, ack, answer if has_room else None))
        for user in work.sweeps:
            self._begin(user, "", partial(self._sweep, user))
        return routed.bounces

    async def _ask_store(self, work: Plan) -> tuple[list[Appended], list[Acked]]:
        """Append and acknowledge in one pipelined round trip; again and again while the store is down."""
        while True:
            _save_asked()
            try:
                answers = await self._ask_once(work, self._clock_ms())
                self._outage.over()
                return answers
            except LinkDown as down:
                if isinstance(down, PartlySaved):  # its receivers make room, if they hear of it
                    self._hand_over(route_part(work, down.appended, self._clock_ms()))
                self.counts.retries += 1
                self._outage.failed(down)
            await asyncio.sleep(RETRY_S)

    async def _ask_once(self, work: Plan, now_ms: int) -> tuple[list[Appended], list[Acked]]:
        if not (work.acks or work.troubles):
            return await self._append(work, now_ms), []
        acking = asyncio.create_task(self._acknowledge(work, now_ms))  # written in the turn of the loop of the other
        try:
            appended = await self._append(work, now_ms)
        except BaseException:
            acking.cancel()
            await asyncio.wait([acking])
            if not acking.cancelled():
                acking.exception()  # the first fault is enough
            raise
        return appended, await acking

    async def _append(self, work: Plan, now_ms: int) -> list[Appended]:
        return await self._store.append(work.appends, now_ms) if work.appends else []

    async def _acknowledge(self, work: Plan, now_ms: int) -> list[Acked]:
        for trouble in work.troubles:
            await self._store.note_trouble(trouble.user, trouble.device, trouble.reason, trouble.at_ms)
        return await self._store.acknowledge(work.acks, now_ms) if work.acks else []

    def _hand_over(self, routed: Routed) -> None:
        for node, parcels in routed.parcels.items():
            for batch in batches(self.name, parcels):
                self._nodes.hand(node, batch)
            seats = self._handed[node] = self._handed.pop(node, {})  # the node used last stands last
            if len(self._handed) > HANDED_NODES_MAX:
                del self._handed[next(iter(self._handed))]  # long gone: its lease ended, its seats with it
            if len(seats) > HANDED_SEATS_MAX:
                seats.clear()  # worst case: a stale seat is found again at its next message
            for handed in routed.handed[node]:
                seats[handed.user, handed.seat.device] = handed

    def _finish(self, deliveries: list[Delivery], bounces: list[EntryPost]) -> None:
        """Acknowledge the inbound batches; behind the bounces, when there are any."""
        _before_ack()
        self.counts.batches += len(deliveries)
        if not bounces:
            for delivery in deliveries:
                delivery.done()
            return

        async def bounce() -> None:
            await self._post_all(bounces)
            for delivery in deliveries:
                delivery.done()

        assert self._tasks is not None
        self._tasks.create_task(bounce())

    def _bury(
        self, delivery: Delivery, reason: str, bounces: Sequence[EntryPost] = (), posts: Sequence[Post] = ()
    ) -> None:  # fmt: skip
        """A batch that cannot be worked off goes to the dead letters: the shard must not stand still for it."""
        self.counts.dead_letters += 1
        self._tracer.buried(posts, reason)
        self._log.error("batch_undecodable", shard=delivery.shard, bytes=len(delivery.body), reason=reason)

        async def bury() -> None:
            while True:
                try:
                    await self._source.bury(delivery, reason)
                except (LinkDown, PostRefused):
                    await asyncio.sleep(RETRY_S)
                else:
                    await self._post_all(bounces)
                    return delivery.done()

        assert self._tasks is not None
        self._tasks.create_task(bury())

    # --- receipts and expiry, beside the shard's work

    def _begin(self, user: str, device: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start something beside the worker, now or in its turn; a newer one of the same device takes its place.

        The worker must not wait for it: receipts may be durable only once this very worker, or another that waits as
        well, has saved them.
        """
        self._to_settle[user, device] = work
        self._begin_more()

    def _begin_more(self) -> None:
        assert self._tasks is not None
        while self._to_settle and self._settling < SETTLING_MAX:
            work = self._to_settle.pop(next(iter(self._to_settle)))
            self._settling += 1
            self._tasks.create_task(self._and_next(work()))

    async def _and_next(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except LinkDown as down:
            self._log.warning("settling_interrupted", error=str(down))  # the sweep finds it again
        except Exception:  # one user's broken entry must not end the broker of all
            self._log.exception("settling_failed")
        finally:
            self._settling -= 1
        self._begin_more()

    async def _settle(self, ack: Ack, answer: Acked | None) -> None:
        """Post the receipts that an ack made due; forget that they were owed only when they are durable.

        Without an answer (its bodies were let go while the ack waited for its turn) the store is asked once more.
        """
        if answer is None:
            [answer] = await self._store.acknowledge([ack], self._clock_ms())
        while answer.owed:
            _device_acked()
            posts = told_posts(ack.user, answer.owed, self._clock_ms(), answer.generation)
            await self._post_all(posts)
            _receipts_posted()
            self.counts.receipts += len(posts)
            self._tracer.told(ack.user, answer.owed)
            ack = ack._replace(settled=answer.owed[-1].seq, generation=answer.generation)
            [answer] = await self._store.acknowledge([ack], self._clock_ms())

    async def _sweep(self, user: str) -> None:
        """Tell senders what expired, then make tombstones of it."""
        now_ms = self._clock_ms()
        [answer] = await self._store.acknowledge([Ack(user, "", 0, 0)], now_ms)
        await self._settle(Ack(user, "", 0, 0), answer)  # receipts that a crash left owed
        while True:
            owed = await self._store.expired(user, now_ms, SWEEP_ENTRIES_MAX)
            await self._post_all(expired_posts(user, owed, now_ms))
            await self._store.bury(user, [item.seq for item in owed], Code.TTL_PASSED, now_ms)
            self.counts.expired += len(owed)
            self._tracer.expired(user, owed)
            if len(owed) < SWEEP_ENTRIES_MAX:
                return

    async def _post_all(self, posts: Sequence[EntryPost]) -> None:
        """Post entries to the shards of their receivers and wait until they are durable, however long it takes.

        They travel in batches of their own: a batch of receipts never waits for another receipt, so no two batches can
        wait for each other.
        """
        by_shard: dict[int, list[EntryPost]] = {}
        for post in posts:
            by_shard.setdefault(shard_of(post.to, self._shards), []).append(post)
        for shard, items in by_shard.items():
            for batch in batches(self.name, items):
                await self._post(shard, batch)

    async def _post(self, shard: int, batch: bytes) -> None:
        while True:
            try:
                return await self._inbound.post(shard, batch)
            except (LinkDown, PostRefused) as down:
                self.counts.retries += 1
                self._log.warning("receipts_delayed", shard=shard, error=str(down))
                await asyncio.sleep(RETRY_S)

    # --- stale seats

    def _node_absent(self, node: str) -> None:
        """A hand-over came back: the node has no queue. Its seats, as they were handed to, are released."""
        seats = self._handed.pop(node, None)
        if not seats or self._tasks is None:
            return
        self.counts.stale_nodes += 1
        self._log.info("node_absent", node=node, seats=len(seats))
        self._tasks.create_task(self._release(list(seats.values())))

    async def _release(self, handed: list[Handed]) -> None:
        try:
            for item in handed:
                await self._register.release(item.user, item.seat)
        except LinkDown:
            self._log.warning("release_interrupted")  # each is found again at its next message
