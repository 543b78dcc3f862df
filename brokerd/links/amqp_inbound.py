"""Posting to the shards over RabbitMQ: persistent, mandatory, confirmed, a bounded window of batches on their way.

The next batch does not wait for the confirm of the one before (that would cost a round trip each). What is not confirmed
when the connection breaks is published again, in order, before anything newer; a batch the broker had taken then comes
twice, and brokerd's dedupe drops it.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, dataclass
from typing import Final

import structlog

from brokerd.links.amqp_frames import ChannelSink
from brokerd.links.amqp_link import RabbitLink, Wire
from brokerd.links.amqp_marshal import header_table, post_content, publish_method
from brokerd.links.amqp_topology import Topology
from brokerd.links.amqp_watch import CONFIRM_S_MAX, ConfirmWatch
from brokerd.links.amqp_window import OpenPost, Window
from brokerd.ports import LinkDown, PostRefused
from protocol.envelope import Batch, packed

UNCONFIRMED_POSTS_MAX: Final = 256
UNCONFIRMED_BYTES_MAX: Final = 32 * 1024 * 1024
REASON_CHARS_MAX: Final = 500
NACKS_MAX: Final = 6  # of one post, then it is refused: 2.3 s
NACK_PAUSE_S: Final = 0.1  # before the new channel, doubled at each nack
NACK_DOUBLINGS_MAX: Final = 3

_log = structlog.get_logger("brokerd.amqp")


@dataclass(slots=True)
class InboundCounts:
    """What was posted since the start."""

    publishes: int = 0
    publish_bytes: int = 0
    republishes: int = 0
    confirms: int = 0
    nacks: int = 0
    returned: int = 0
    refused_down: int = 0
    strange_confirms: int = 0
    stalls: int = 0
    overtaken: int = 0


class RabbitInbound:
    """The port Inbound on a link, and the way to the dead letters. Declares the shards' queues at every connect.

    At most `posts_max` batches and about `bytes_max` bytes are unconfirmed; at that bound `is_ready` is False. So it is
    when nothing was confirmed for `confirm_s_max`; then the link also tries another host.
    """

    def __init__(
        self,
        link: RabbitLink,
        shards: int,
        topology: Topology,
        *,
        posts_max: int = UNCONFIRMED_POSTS_MAX,
        bytes_max: int = UNCONFIRMED_BYTES_MAX,
        confirm_s_max: float = CONFIRM_S_MAX,
    ) -> None:
        self._link, self._shards, self._topology = link, shards, topology
        self._queues = [topology.shard_queue(shard) for shard in range(shards)]
        self._window = Window(posts_max, bytes_max)
        self._watch = ConfirmWatch(self._window, confirm_s_max, self._overtaken, self._silent)
        self._is_stalled = False
        self._counts = InboundCounts()
        self._wire: Wire | None = None
        self._channel = _PostChannel(self, 0)
        self._methods: dict[str, bytes] = {}
        link.join(self)

    def __str__(self) -> str:
        return "inbound"

    # --- the port

    @property
    def is_ready(self) -> bool:
        """Whether a post would be taken now: connected, no alarm, room in the window, and the broker confirms."""
        wire = self._wire
        return wire is not None and not wire.tap.is_blocked and not self._window.is_full and not self._is_stalled

    def post(self, shard: int, batch: Batch) -> asyncio.Future[None]:
        """Begin to post; see the port. Raises LinkDown when `is_ready` is False."""
        return self._post(self._queues[shard], b"", packed(batch))

    def bury(self, shard: int, batch: bytes, reason: str) -> asyncio.Future[None]:
        """Put a batch into the dead letters, with its reason, shard and time as headers. Fails and raises as `post`."""
        headers = header_table(
            {"reason": reason[:REASON_CHARS_MAX], "shard": shard, "at_ms": time.time_ns() // 1_000_000}
        )
        return self._post(self._topology.dead, headers, batch)

    def statistics(self) -> dict[str, int]:
        """Counters, and what is unconfirmed now."""
        return asdict(self._counts) | {
            "unconfirmed": self._window.open_posts,
            "unconfirmed_bytes": self._window.open_bytes,
            "is_ready": int(self.is_ready),
        }

    # --- publishing

    def _post(self, queue: str, headers: bytes, batch: bytes) -> asyncio.Future[None]:
        wire = self._wire
        if wire is None or not self.is_ready:
            self._counts.refused_down += 1
            raise LinkDown("RabbitMQ: " + self._why_not())
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        post = OpenPost(queue, headers, batch, done)
        self._publish(wire, self._window.add(post), post)
        return done

    def _publish(self, wire: Wire, tag: int, post: OpenPost) -> None:
        method = self._methods.get(post.queue)
        if method is None:
            method = self._methods[post.queue] = publish_method(self._channel.number, post.queue)
        self._counts.publishes += 1
        self._counts.publish_bytes += len(post.body)
        content = post_content(self._channel.number, tag, post.body, wire.frame_bytes_max, post.headers)
        wire.tap.write([method, *content])
        self._watch.begin()

    def _overtaken(self) -> None:
        self._counts.overtaken += 1
        _log.warning("amqp_confirm_overdue", unconfirmed=self._window.open_posts)
        self._link.attach_again(self)

    def _silent(self) -> None:
        wire = self._wire
        if wire is None or wire.tap.is_blocked:  # an alarm says itself why, and when it is over
            self._watch.restart()
        else:
            self._counts.stalls += not self._is_stalled
            self._is_stalled = True
            _log.warning("amqp_no_confirms", unconfirmed=self._window.open_posts)
            self._link.move_on("nothing is confirmed")

    def _why_not(self) -> str:
        if self._wire is None:
            return "not connected"
        if self._is_stalled:
            return "nothing is confirmed"
        return "blocked by an alarm" if self._wire.tap.is_blocked else "too much unconfirmed"

    # --- a member of the link

    async def attach(self, wire: Wire) -> None:
        channel = await wire.open_channel(self, confirms=True)
        for shard in range(self._shards):
            await self._topology.declare_shard(channel, shard)
        await self._topology.declare_dead(channel)
        self._channel = _PostChannel(self, channel.number)
        self._methods = {}
        wire.tap.listen(channel.number, self._channel)
        self._wire = wire
        for tag, post in self._window.renumber():
            self._counts.republishes += 1
            self._publish(wire, tag, post)
        self._watch.restart()

    def detach(self) -> None:
        self._wire = None
        self._channel.is_open = False

    def end(self) -> None:
        self._watch.stop()
        for post in self._window.clear():
            post.end(LinkDown("RabbitMQ: the link was closed"))

    # --- what the broker says

    def confirmed(self, tag: int, multiple: bool) -> None:
        """The broker is through with these posts: they are durable, but for those it sent back before."""
        settled = self._window.settle(tag, multiple)
        self._is_heard()
        self._counts.confirms += len(settled)
        self._counts.strange_confirms += not settled
        is_queue_gone = False
        for post in settled:
            post.end(PostRefused(post.refusal) if post.refusal else None)
            is_queue_gone = is_queue_gone or bool(post.refusal)
        if is_queue_gone:
            self._link.attach_again(self)  # declares it; what is still open is posted again behind that

    def _is_heard(self) -> None:
        self._is_stalled = False
        self._watch.heard_s = asyncio.get_running_loop().time()

    def refused(self, tag: int, multiple: bool) -> None:
        """The broker did not take these posts. It may be that a queue had no leader; then a channel goes on refusing what is
        for that queue (seen with RabbitMQ 3.10), and a new one asks anew who the leader is. So all that is open is
        published again, in order; what is refused again and again, is refused."""
        nacked = self._window.up_to(tag, multiple)
        self._counts.nacks += len(nacked)
        self._is_heard()
        for one, post in nacked:
            post.nacks += 1
            if post.nacks >= NACKS_MAX:
                self._window.settle(one, False)
                post.end(PostRefused(post.refusal or "not taken by the broker"))
        most = max((post.nacks for _, post in nacked), default=1)
        self._link.attach_again(self, pause_s=NACK_PAUSE_S * 2.0 ** min(most - 1, NACK_DOUBLINGS_MAX))

    def sent_back(self, queue: str, message_id: bytes, reason: str) -> None:
        """There is no such queue: somebody deleted it. The confirm of this post still comes, and refuses it."""
        self._counts.returned += 1
        post = self._window.find(int(message_id, 16)) if message_id else None
        if post is not None:
            post.refusal = f"{queue}: {reason}"

    def channel_closed(self, reason: str) -> None:
        """Set up a new one."""
        _log.warning("amqp_channel_closed", member=str(self), reason=reason)
        self._link.attach_again(self)


class _PostChannel(ChannelSink):
    """One channel in confirm mode. Its tags mean nothing on the next one, so what comes late is dropped."""

    def __init__(self, inbound: RabbitInbound, number: int) -> None:
        self.number = number
        self.is_open = True
        self._inbound = inbound

    def acked(self, tag: int, multiple: bool) -> None:
        if self.is_open:
            self._inbound.confirmed(tag, multiple)

    def nacked(self, tag: int, multiple: bool) -> None:
        if self.is_open:
            self._inbound.refused(tag, multiple)

    def returned(self, queue: str, message_id: bytes, reason: str) -> None:
        if self.is_open:
            self._inbound.sent_back(queue, message_id, reason)

    def closed(self, reason: str) -> None:
        if self.is_open:
            self._inbound.channel_closed(reason)
