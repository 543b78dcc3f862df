"""Parcels to the nodes over RabbitMQ, and a node's own queue: fast, bounded, not durable. What is lost is found by its seq."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final

import structlog

from brokerd.links.amqp_frames import ChannelSink
from brokerd.links.amqp_link import RabbitLink, Wire
from brokerd.links.amqp_marshal import plain_content, publish_method
from brokerd.links.amqp_shards import never_called
from brokerd.links.amqp_topology import Topology

HANDED_BYTES_MAX: Final = 32 * 1024 * 1024  # written but not yet taken by the socket; beyond it parcels are dropped
WAITING_BATCHES_MAX: Final = 10_000  # kept while nothing can be handed; beyond it the oldest are dropped
WAITING_BYTES_MAX: Final = 8 * 1024 * 1024
METHODS_MAX: Final = 1024  # nodes whose publish method is kept ready

_log = structlog.get_logger("brokerd.amqp")


@dataclass(slots=True)
class NodesCounts:
    """What was handed to nodes since the start."""

    publishes: int = 0
    publish_bytes: int = 0
    returned: int = 0
    waited: int = 0
    dropped: int = 0


class RabbitNodes(ChannelSink):
    """The port Nodes on a link: mandatory, so that a node without a queue is told, but without confirms.

    Of a broker's two links the one that consumes may be back before this one. What it takes meanwhile would not reach the
    devices until their next PING, so batches wait here, WAITING_BATCHES_MAX and WAITING_BYTES_MAX of them at most.
    """

    def __init__(self, link: RabbitLink, topology: Topology, *, bytes_max: int = HANDED_BYTES_MAX) -> None:
        self._link, self._topology, self._bytes_max = link, topology, bytes_max
        self._counts = NodesCounts()
        self._told: Callable[[str], None] | None = None
        self._wire: Wire | None = None
        self._channel = 0
        self._methods: dict[str, bytes] = {}
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._waiting_bytes = 0
        link.join(self)

    def __str__(self) -> str:
        return "nodes"

    def hand(self, node: str, batch: bytes) -> None:
        """Send; keep it while the link is down or blocked by an alarm (then it leaves with the next one behind that); drop it
        while the link is `bytes_max` behind."""
        wire = self._wire
        if wire is None or wire.tap.is_blocked:
            return self._keep(node, batch)
        if wire.tap.is_choked and wire.tap.waiting_bytes > self._bytes_max:
            self._counts.dropped += 1
            return None
        if self._waiting:
            self._send_waiting(wire)
        return self._send(wire, node, batch)

    def _keep(self, node: str, batch: bytes) -> None:
        self._waiting.append((node, batch))
        self._waiting_bytes += len(batch)
        self._counts.waited += 1
        while len(self._waiting) > WAITING_BATCHES_MAX or self._waiting_bytes > WAITING_BYTES_MAX:
            self._waiting_bytes -= len(self._waiting.popleft()[1])
            self._counts.dropped += 1

    def _send_waiting(self, wire: Wire) -> None:
        waiting, self._waiting, self._waiting_bytes = self._waiting, deque(), 0
        for node, batch in waiting:
            self._send(wire, node, batch)

    def _send(self, wire: Wire, node: str, batch: bytes) -> None:
        method = self._methods.get(node)
        if method is None:
            if len(self._methods) >= METHODS_MAX:
                self._methods.clear()
            method = self._methods[node] = publish_method(self._channel, self._topology.node_queue(node))
        self._counts.publishes += 1
        self._counts.publish_bytes += len(batch)
        wire.tap.write([method, *plain_content(self._channel, batch, wire.frame_bytes_max)])

    def on_absent(self, told: Callable[[str], None]) -> None:
        """`told(node)` for every batch that found no queue."""
        self._told = told

    def statistics(self) -> dict[str, int]:
        """Counters."""
        return asdict(self._counts)

    async def attach(self, wire: Wire) -> None:
        channel = await wire.open_channel(self, confirms=False)
        self._channel = channel.number
        self._methods = {}
        wire.tap.listen(channel.number, self)
        self._wire = wire
        if not wire.tap.is_blocked:
            self._send_waiting(wire)

    def detach(self) -> None:
        self._wire = None

    def end(self) -> None:
        """Nothing is owed to anybody."""

    def returned(self, queue: str, message_id: bytes, reason: str) -> None:
        self._counts.returned += 1
        if self._told is None:
            return
        try:
            self._told(self._topology.node_of(queue))
        except Exception:  # a fault of the listener must not break the connection
            _log.exception("absent_told_failed", queue=queue)

    def closed(self, reason: str) -> None:
        _log.warning("amqp_channel_closed", member="nodes", reason=reason)
        self._link.attach_again(self)


@dataclass(slots=True)
class InboxCounts:
    """What came to this node since the start."""

    deliveries: int = 0
    delivery_bytes: int = 0
    gaps: int = 0
    cancelled: int = 0
    take_failures: int = 0


class RabbitNodeInbox:
    """The port NodeInbox on a link. The queue dies with the connection; after each loss there is a new one and a gap."""

    def __init__(self, link: RabbitLink, topology: Topology) -> None:
        self._link, self._topology = link, topology
        self._counts = InboxCounts()

    async def open(self, node: str, take: Callable[[bytes], None], on_gap: Callable[[], None]) -> None:
        """Call `take` from now on; see the port. Returns once the queue is there, or at once while the link is down:
        then it is set up with the connection."""
        queue = _NodeQueue(node, take, on_gap, self._link, self._topology, self._counts)
        self._link.join(queue)
        await self._link.wait_attached(queue)

    def statistics(self) -> dict[str, int]:
        """Counters."""
        return asdict(self._counts)


class _NodeQueue(ChannelSink):
    """A node's queue and its one consumer. While a dying connection still holds the name, the link tries again."""

    def __init__(
        self,
        node: str,
        take: Callable[[bytes], None],
        on_gap: Callable[[], None],
        link: RabbitLink,
        topology: Topology,
        counts: InboxCounts,
    ) -> None:
        self._node, self._take, self._on_gap = node, take, on_gap
        self._link, self._topology, self._counts = link, topology, counts
        self._was_open = False

    def __str__(self) -> str:
        return f"node-{self._node}"

    async def attach(self, wire: Wire) -> None:
        channel = await wire.open_channel(self, confirms=False)
        await self._topology.declare_node(channel, self._node)
        wire.tap.listen(channel.number, self)
        await channel.basic_consume(
            self._topology.node_queue(self._node), never_called, no_ack=True, exclusive=True, consumer_tag=str(self)
        )
        if self._was_open:
            self._counts.gaps += 1
            self._on_gap()
        self._was_open = True

    def detach(self) -> None:
        """Nothing is written on this channel."""

    def end(self) -> None:
        """Nothing is owed to anybody."""

    def delivered(self, tag: int, redelivered: bool, body: bytes) -> None:
        self._counts.deliveries += 1
        self._counts.delivery_bytes += len(body)
        try:
            self._take(body)
        except Exception:  # a fault of the taker must not break the connection
            self._counts.take_failures += 1
            _log.exception("parcels_take_failed", bytes=len(body))

    def cancelled(self) -> None:
        """Somebody deleted the queue."""
        self._counts.cancelled += 1
        self._link.attach_again(self)

    def closed(self, reason: str) -> None:
        _log.warning("amqp_channel_closed", member=str(self), reason=reason)
        self._link.attach_again(self)
