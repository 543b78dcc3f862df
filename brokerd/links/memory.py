"""The links of one process alone: the register, the shards and the way to the nodes, all in this process' memory.

Nothing here is durable by itself, and nothing has to be. A post is answered only when its batch was done with, that is,
when the sent_queue had saved it; what was posted and not yet answered when the process dies was never accepted, and its
sender sends it again. All calls come from one event loop, and nobody is ever called inside his own call.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from brokerd.links.dead_letters import append_dead_letter
from brokerd.ports import Delivery, LinkDown, Row, Seat
from brokerd.support_ports import DeadLetter
from protocol.envelope import Batch, packed

QUEUE_BATCHES_MAX: Final = 4096  # posted and not done with, over all shards; at the bound senders get BUSY
QUEUE_BYTES_MAX: Final = 64 * 1024 * 1024
INBOX_BATCHES_MAX: Final = (
    4096  # handed to one node in one turn of the loop; beyond it batches drop and sessions catch up
)
INBOX_BYTES_MAX: Final = 64 * 1024 * 1024
DEAD_LETTERS_MAX: Final = 64  # kept in memory, the newest; the file keeps more


def rows_of(seats: Mapping[str, Seat], lease_ends_s: Mapping[str, float], now_s: float) -> list[Row]:
    """What Register.rows shows of one user's seats (by device) and of the leases of all nodes."""
    return [
        Row(device, seat.node, seat.session, max(0, round((lease_ends_s.get(seat.node, 0.0) - now_s) * 1000)))
        for device, seat in sorted(seats.items())
    ]


class MemoryRegister:
    """Register in a dict. Seats of a node are seen while its lease lives, as everywhere; `clock_s` is for tests."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._seats: dict[str, dict[str, Seat]] = {}
        self._lease_ends_s: dict[str, float] = {}

    async def claim(self, user: str, seat: Seat, former: Seat | None = None) -> Seat | None:
        """Put the seat in; give the one it replaced (None: there was none, or it was this very one)."""
        devices = self._seats.setdefault(user, {})
        standing = devices.get(seat.device)
        if former is not None and standing not in (None, former, seat):
            return standing
        devices[seat.device] = seat
        return None if standing in (former, seat) else standing

    async def release(self, user: str, seat: Seat) -> bool:
        """Take the seat out if it is still exactly this one."""
        devices = self._seats.get(user)
        if devices is None or devices.get(seat.device) != seat:
            return False
        del devices[seat.device]
        if not devices:
            del self._seats[user]
        return True

    async def seats(self, users: Sequence[str]) -> list[list[Seat]]:
        """The seats of each user on nodes whose lease lives."""
        return [list(self.seats_now(user)) for user in users]

    def seats_now(self, user: str) -> Sequence[Seat]:
        """The seats of one user at this very moment, without waiting: what the sent_queue asks after its commit."""
        devices = self._seats.get(user)
        if devices is None:
            return ()
        now_s = self._clock_s()
        return [seat for seat in devices.values() if self._lease_ends_s.get(seat.node, 0.0) > now_s]

    async def rows(self, user: str) -> list[Row]:
        """All that is written of a user, by device."""
        return rows_of(self._seats.get(user, {}), self._lease_ends_s, self._clock_s())

    async def renew_lease(self, node: str, ttl_ms: int) -> bool:
        """Say that the node lives for another ttl; whether its lease still stood."""
        now_s = self._clock_s()
        stood = self._lease_ends_s.get(node, 0.0) > now_s
        self._lease_ends_s[node] = now_s + ttl_ms / 1000
        return stood

    async def drop_lease(self, node: str) -> None:
        """Say that the node is gone: its seats are seen no more."""
        self._lease_ends_s.pop(node, None)


class _Batch:
    """One posted batch, until it is done with."""

    __slots__ = ("body", "posted", "redelivered")

    def __init__(self, body: Batch, posted: asyncio.Future[None]) -> None:
        self.body = body
        self.posted = posted
        self.redelivered = False


class _Shard:
    """One shard: what waits, what its consumer holds, and who consumes it (the first) or waits to (the others)."""

    __slots__ = ("consumers", "held", "number", "waiting")

    def __init__(self, number: int) -> None:
        self.number = number
        self.waiting: deque[_Batch] = deque()
        self.held: dict[_Batch, None] = {}  # in the order of delivery
        self.consumers: deque[tuple[MemoryShards, Callable[[Delivery], None]]] = deque()


class MemoryQueue:
    """Inbound and Shards in one: `post` is answered by the consumer's `done`, so ACCEPTED is as durable as its save.

    At either bound `is_ready` is False and `post` raises LinkDown; a batch that was begun is never given up.
    `dead_letters_path`: where batches that could not be decoded are written, None = they are only kept in memory.
    """

    def __init__(
        self,
        *,
        batches_max: int = QUEUE_BATCHES_MAX,
        bytes_max: int = QUEUE_BYTES_MAX,
        dead_letters_path: Path | None = None,
    ) -> None:
        self._batches_max = batches_max
        self._bytes_max = bytes_max
        self._dead_letters_path = dead_letters_path
        self._shards: dict[int, _Shard] = {}
        self._batches = 0
        self._bytes = 0
        self._own = MemoryShards(self)
        self.dead_letters: deque[DeadLetter] = deque(maxlen=DEAD_LETTERS_MAX)

    @property
    def is_ready(self) -> bool:
        """Whether a post would be taken now."""
        return self._batches < self._batches_max and self._bytes < self._bytes_max

    def post(self, shard: int, batch: Batch) -> asyncio.Future[None]:
        """Begin to post; the future is done when the consumer was done with the batch. Raises LinkDown at the bound."""
        if not self.is_ready:
            raise LinkDown(f"the queue is full: {self._batches} batches, {self._bytes} bytes")
        return self.post_over(shard, batch)

    def post_over(self, shard: int, batch: Batch) -> asyncio.Future[None]:
        """As `post`, over the bounds as well."""
        loop = asyncio.get_running_loop()
        item = _Batch(batch, loop.create_future())
        self._batches += 1
        self._bytes += len(batch)
        place = self._shard(shard)
        place.waiting.append(item)
        loop.call_soon(self._deliver, place)
        return item.posted

    async def consume(self, shard: int, take: Callable[[Delivery], None]) -> None:
        """Call `take` for every batch of the shard from now on, once it is this consumer's turn."""
        await self._own.consume(shard, take)

    def bury(self, delivery: Delivery, reason: str) -> asyncio.Future[None]:
        """Keep the batch as a dead letter. The future fails with LinkDown when the file could not be written."""
        letter = DeadLetter(delivery.shard, reason, int(time.time() * 1000), packed(delivery.body))
        self.dead_letters.append(letter)
        loop = asyncio.get_running_loop()
        if self._dead_letters_path is None:
            buried: asyncio.Future[None] = loop.create_future()
            buried.set_result(None)
            return buried
        return loop.run_in_executor(None, append_dead_letter, self._dead_letters_path, letter)

    def reserve(self) -> MemoryReserve:
        """The broker's way to post what it owes to senders."""
        return MemoryReserve(self)

    def rival(self) -> MemoryShards:
        """A second brokerd's way to the same shards: it gets what the others give up."""
        return MemoryShards(self)

    def statistics(self) -> dict[str, int]:
        """What waits or is being worked on: batches, bytes."""
        return {"waiting": self._batches, "waiting_bytes": self._bytes}

    def _shard(self, number: int) -> _Shard:
        place = self._shards.get(number)
        if place is None:
            place = self._shards[number] = _Shard(number)
        return place

    def _join(self, number: int, consumer: MemoryShards, take: Callable[[Delivery], None]) -> None:
        place = self._shard(number)
        place.consumers.append((consumer, take))
        asyncio.get_running_loop().call_soon(self._drain, place)

    def _leave(self, consumer: MemoryShards) -> None:
        """What this consumer held comes again, in its order, to the next one."""
        loop = asyncio.get_running_loop()
        for place in self._shards.values():
            was_active = bool(place.consumers) and place.consumers[0][0] is consumer
            place.consumers = deque(pair for pair in place.consumers if pair[0] is not consumer)
            if was_active:
                for item in reversed(place.held):
                    item.redelivered = True
                    place.waiting.appendleft(item)
                place.held = {}
                loop.call_soon(self._drain, place)

    def _drain(self, place: _Shard) -> None:
        for _ in range(len(place.waiting)):
            asyncio.get_running_loop().call_soon(self._deliver, place)

    def _deliver(self, place: _Shard) -> None:
        """Hand over one batch: a `take` that raises hurts no other (the loop reports it; the batch stays unanswered)."""
        if place.waiting and place.consumers:
            item = place.waiting.popleft()
            place.held[item] = None
            take = place.consumers[0][1]
            take(Delivery(place.number, item.body, item.redelivered, partial(self._done, place, place.held, item)))

    def _done(self, place: _Shard, held: dict[_Batch, None], item: _Batch) -> None:
        if held is not place.held or item not in held:
            return  # done before, or its consumer has left: the batch comes again
        del held[item]
        self._batches -= 1
        self._bytes -= len(item.body)
        if not item.posted.done():
            item.posted.set_result(None)


class MemoryReserve:
    """Inbound for the broker itself: never shut, because a full queue empties only when the receipts and bounces that its
    batches wait for find a place. It stays bounded: a batch that is held brings about as many as it has entries."""

    is_ready = True

    def __init__(self, queue: MemoryQueue) -> None:
        self._queue = queue

    def post(self, shard: int, batch: Batch) -> asyncio.Future[None]:
        """See MemoryQueue.post; over its bounds as well."""
        return self._queue.post_over(shard, batch)


class MemoryShards:
    """One consumer's way to the shards of a MemoryQueue. Closing it is what a dying brokerd does."""

    def __init__(self, queue: MemoryQueue) -> None:
        self._queue = queue

    async def consume(self, shard: int, take: Callable[[Delivery], None]) -> None:
        """Call `take` for every batch of the shard from now on, once the consumers before this one are gone."""
        self._queue._join(shard, self, take)

    def bury(self, delivery: Delivery, reason: str) -> asyncio.Future[None]:
        """Keep the batch as a dead letter."""
        return self._queue.bury(delivery, reason)

    def close(self) -> None:
        """Go. Batches that were taken and not done with come again to the next consumer."""
        self._queue._leave(self)


class _Inbox:
    """The open inbox of one node, and what is on its way to it."""

    __slots__ = ("bytes", "on_gap", "take", "waiting")

    def __init__(self, take: Callable[[bytes], None], on_gap: Callable[[], None]) -> None:
        self.take = take
        self.on_gap = on_gap
        self.waiting: deque[bytes] = deque()
        self.bytes = 0


class MemoryNodes:
    """Nodes and NodeInbox in one: a batch reaches the node's inbox in the next turn of the loop.

    Over the bounds of an inbox the batch is dropped and its node told of the gap: its sessions catch up.
    """

    def __init__(self, *, batches_max: int = INBOX_BATCHES_MAX, bytes_max: int = INBOX_BYTES_MAX) -> None:
        self._batches_max = batches_max
        self._bytes_max = bytes_max
        self._inboxes: dict[str, _Inbox] = {}
        self._told: list[Callable[[str], None]] = []

    def hand(self, node: str, batch: bytes) -> None:
        """Send a batch to a node. Never waits, never raises."""
        loop = asyncio.get_running_loop()
        inbox = self._inboxes.get(node)
        if inbox is None:
            for told in self._told:
                loop.call_soon(told, node)
            return
        if len(inbox.waiting) >= self._batches_max or inbox.bytes + len(batch) > self._bytes_max:
            loop.call_soon(inbox.on_gap)
            return
        inbox.waiting.append(batch)
        inbox.bytes += len(batch)
        loop.call_soon(self._deliver, node, inbox)

    def on_absent(self, told: Callable[[str], None]) -> None:
        """`told(node)` is called when a batch was handed to a node that has no inbox."""
        self._told.append(told)

    async def open(self, node: str, take: Callable[[bytes], None], on_gap: Callable[[], None]) -> None:
        """Call `take` for every batch for `node` from now on. Raises LinkDown when that node's inbox is open already."""
        if node in self._inboxes:
            raise LinkDown(f"the inbox of {node} is open already")
        self._inboxes[node] = _Inbox(take, on_gap)

    def shut(self, node: str) -> None:
        """The node is gone: what was on its way is dropped, what comes is told as absent."""
        self._inboxes.pop(node, None)

    def _deliver(self, node: str, inbox: _Inbox) -> None:
        batch = inbox.waiting.popleft()
        inbox.bytes -= len(batch)
        if self._inboxes.get(node) is inbox:
            inbox.take(batch)
