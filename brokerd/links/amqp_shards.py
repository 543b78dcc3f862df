"""Consuming the shards from RabbitMQ: a channel for each shard, acknowledged in order, many with one frame.

Nobody waits for an ack, but each is an entry in the log of a quorum queue: at a low rate one for each batch costs RabbitMQ
as much as taking it. So an ack covers ACK_LATE_S, or a part of the prefetch; a crash makes that much come again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Final, TypeVar

import structlog

from brokerd.links.amqp_frames import ChannelSink
from brokerd.links.amqp_inbound import RabbitInbound
from brokerd.links.amqp_link import RabbitLink, Wire
from brokerd.links.amqp_marshal import ack_frame
from brokerd.links.amqp_tap import Tap
from brokerd.links.amqp_topology import Topology
from brokerd.ports import Delivery
from protocol.envelope import packed

PREFETCH_BATCHES_MAX: Final = 32  # of a shard; with BATCH_BYTES_MAX it bounds brokerd's memory
ACKS_PER_PREFETCH: Final = 4
ACK_LATE_S: Final = 0.05

T = TypeVar("T")

_log = structlog.get_logger("brokerd.amqp")


@dataclass(slots=True)
class ShardsCounts:
    """What was consumed since the start."""

    deliveries: int = 0
    delivery_bytes: int = 0
    redeliveries: int = 0
    done: int = 0
    done_late: int = 0
    ack_frames: int = 0
    cancelled: int = 0
    channels_closed: int = 0
    take_failures: int = 0
    given_up: int = 0


class RabbitShards:
    """The port Shards on a link of its own (an alarm blocks connections that publish, never one that only consumes).

    `dead` is where undecodable batches go. At most `prefetch_max` batches of a shard are not acknowledged.
    """

    def __init__(
        self, link: RabbitLink, dead: RabbitInbound, topology: Topology, *, prefetch_max: int = PREFETCH_BATCHES_MAX
    ) -> None:
        self._link, self._dead, self._topology = link, dead, topology
        self._prefetch_max = prefetch_max
        self._counts = ShardsCounts()
        self._consumers: list[_Consumer] = []

    async def consume(self, shard: int, take: Callable[[Delivery], None]) -> None:
        """Call `take` from now on; see the port. Returns once the broker knows the consumer, or at once while the link
        is down: then it is set up with the connection."""
        consumer = _Consumer(shard, take, self._link, self._topology, self._prefetch_max, self._counts)
        self._consumers.append(consumer)
        self._link.join(consumer)
        await self._link.wait_attached(consumer)

    def give_up_some(self, consumers: int) -> int:
        """Leave what is more than our part of the shards to the other brokerd, `consumers` in all; how many those are.

        RabbitMQ gives a shard to who consumed it first, so the brokerd that came first has all of them. Our part: of those that
        brought something since the last call, as many as there are shards for each consumer. A shard that is given up is
        consumed anew, behind the others: what was not acknowledged comes to the next one again, as if we had died.
        """
        busy = sorted((it for it in self._consumers if it.is_busy()), key=lambda it: -it.delivered)
        for consumer in self._consumers:
            consumer.seen = consumer.delivered
        surplus = over_part(busy, len(self._consumers), consumers)
        for consumer in surplus:
            self._link.attach_again(consumer)
        self._counts.given_up += len(surplus)
        return len(surplus)

    def bury(self, delivery: Delivery, reason: str) -> asyncio.Future[None]:
        """Begin to put the batch into the dead letters. Raises LinkDown when that cannot be begun now."""
        return self._dead.bury(delivery.shard, packed(delivery.body), reason)

    def statistics(self) -> dict[str, int]:
        """Counters of all shards."""
        return asdict(self._counts)


def over_part(busy: Sequence[T], shards: int, consumers: int) -> list[T]:
    """Of the busy ones, the busiest first, those that others may have: so that as many stay as the part of each, and the load is
    shared out as evenly as the numbers allow."""
    most = -(-shards // consumers)
    others = [it for at, it in enumerate(busy) if at % consumers]
    return others[: max(0, len(busy) - most)]


class _Consumer:
    """The consumer of one shard: a member of the link that has a new channel after each loss."""

    def __init__(
        self,
        shard: int,
        take: Callable[[Delivery], None],
        link: RabbitLink,
        topology: Topology,
        prefetch_max: int,
        counts: ShardsCounts,
    ) -> None:
        self._shard, self._take, self._link, self._topology = shard, take, link, topology
        self._prefetch_max, self._counts = prefetch_max, counts
        self._channel: _ShardChannel | None = None
        self.delivered = self.seen = 0  # deliveries; those of them at the last look

    def __str__(self) -> str:
        return f"shard-{self._shard}"

    async def attach(self, wire: Wire) -> None:
        self._drop()
        channel = await wire.open_channel(self, confirms=False)
        await self._topology.declare_shard(channel, self._shard)
        await channel.basic_qos(prefetch_count=self._prefetch_max)
        lost = partial(self._link.attach_again, self)
        ack_every = max(1, self._prefetch_max // ACKS_PER_PREFETCH)
        self._channel = _ShardChannel(
            self._shard, self._take_one, wire.tap, channel.number, self._counts, lost, ack_every
        )
        wire.tap.listen(channel.number, self._channel)
        await channel.basic_consume(self._topology.shard_queue(self._shard), never_called, consumer_tag=str(self))

    def is_busy(self) -> bool:
        """Whether it brought anything since the last look."""
        return self._channel is not None and self.delivered > self.seen

    def _take_one(self, delivery: Delivery) -> None:
        self.delivered += 1
        self._take(delivery)

    def detach(self) -> None:
        if self._channel is not None:
            self._channel.ack_now()
        self._drop()

    def _drop(self) -> None:
        if self._channel is not None:
            self._channel.is_open = False
            self._channel = None

    def end(self) -> None:
        """Nothing is owed to anybody."""


class _ShardChannel(ChannelSink):
    """One channel's deliveries and acks. Its tags are 1, 2, 3 … and mean nothing on the next channel."""

    def __init__(
        self,
        shard: int,
        take: Callable[[Delivery], None],
        tap: Tap,
        number: int,
        counts: ShardsCounts,
        lost: Callable[[], None],
        ack_every: int,
    ) -> None:
        self.is_open = True
        self._ack_every = ack_every  # at so many done, and at ACK_LATE_S after the first
        self._is_ack_timed = False
        self._shard, self._take, self._tap, self._number = shard, take, tap, number
        self._counts, self._lost = counts, lost
        self._done_tag = 0  # all up to it are done
        self._acked_tag = 0
        self._done_early: set[int] = set()  # done before one that came earlier; as many as the prefetch at most

    def delivered(self, tag: int, redelivered: bool, body: bytes) -> None:
        if not self.is_open:
            return
        counts = self._counts
        counts.deliveries += 1
        counts.delivery_bytes += len(body)
        counts.redeliveries += redelivered
        try:
            self._take(Delivery(self._shard, body, redelivered, partial(self._done, tag)))
        except Exception:  # a fault of the taker must not break the connection of all shards; the batch stays unacked
            counts.take_failures += 1
            _log.exception("delivery_take_failed", shard=self._shard, bytes=len(body))

    def _done(self, tag: int) -> None:
        if not self.is_open:
            self._counts.done_late += 1
            return
        self._counts.done += 1
        if tag != self._done_tag + 1:
            if tag > self._done_tag:
                self._done_early.add(tag)
            return
        before = self._done_tag - self._acked_tag
        self._done_tag = tag
        while self._done_tag + 1 in self._done_early:
            self._done_tag += 1
            self._done_early.remove(self._done_tag)
        if before < self._ack_every <= self._done_tag - self._acked_tag:
            self._tap.write_late(self._ack)
        elif not self._is_ack_timed:
            self._is_ack_timed = True
            asyncio.get_running_loop().call_later(ACK_LATE_S, self._ack_timed)

    def ack_now(self) -> None:
        """A link that ends in peace leaves nothing that is done to come again."""
        if ack := self._ack():
            self._tap.write([ack])

    def _ack_timed(self) -> None:
        self._is_ack_timed = False
        self._tap.write_late(self._ack)

    def _ack(self) -> bytes:
        if not self.is_open or self._acked_tag == self._done_tag:
            return b""
        multiple = self._done_tag > self._acked_tag + 1
        self._acked_tag = self._done_tag
        self._counts.ack_frames += 1
        return ack_frame(self._number, self._acked_tag, multiple)

    def cancelled(self) -> None:
        """The queue was deleted, or its leader is gone: declare and consume again."""
        self._counts.cancelled += 1
        self._lost()

    def closed(self, reason: str) -> None:
        self.is_open = False
        self._counts.channels_closed += 1
        _log.warning("amqp_channel_closed", shard=self._shard, reason=reason)
        self._lost()


async def never_called(message: Any) -> None:
    """What aiormq would call for a delivery; the tap takes them all."""
    raise AssertionError(f"aiormq got a delivery: {message}")
