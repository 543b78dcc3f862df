"""Metrics of both daemons: plain integers in the parts, turned into samples only when somebody scrapes.

A counter of prometheus_client costs 0.5 µs a step, an attribute 0.07 µs: so the parts count in slots, and one collector
reads their `statistics()`. A thing has one name, whichever daemon counts it: chatd_<source>_<name>; counters end in _total.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Final, NamedTuple

from protocol.errors import Code

if TYPE_CHECKING:
    from prometheus_client import Metric

GAUGES: Final = frozenset(
    {
        "sessions",
        "connections_open",
        "connections_max",
        "paused_readers",
        "outbox_bytes",
        "open",
        "strangers",
        "waiting",
        "waiting_bytes",
        "in_flight",
        "shards_behind",
        "settling",
        "unconfirmed",
        "unconfirmed_bytes",
        "is_ready",
        "is_blocked",
        "waiting_commands",
        "age_seconds",
    }
)
HELP: Final = {
    "node_accepted": "messages of clients that became durable",
    "node_delivered": "entries written to sessions, receipts and copies included",
    "node_acks": "acknowledgements of devices",
    "node_gaps": "hand-overs that were missed and repaired by reading",
    "node_bytes_in": "bytes that came from clients, without TLS and the frames of WebSocket",
    "node_bytes_out": "bytes that were written to clients, without TLS and the frames of WebSocket",
    "node_refused_sends": "messages that were not taken, by the code that the sender was told",
    "node_refused_logins": "logins that did not become sessions, by the code that the client was told",
    "node_sessions": "sessions that are logged in here",
    "node_connections_max": "limits.connections_max",
    "node_paused_readers": "clients that read so slowly that nothing live is written to them",
    "node_outbox_bytes": "bytes that wait for those clients",
    "doors_open": "connections, HTTP included",
    "doors_strangers": "connections that have not yet said who they are",
    "postbox_waiting_bytes": "bytes of posts that the queue does not take yet",
    "postbox_shards_behind": "shards for which who says much is read more slowly",
    "postbox_batch_posts": "posts in a batch to a shard",
    "broker_stored": "entries saved to the queues of users",
    "broker_repeats": "posts that were saved before, and dropped",
    "broker_failed": "messages whose sender was told FAILED, by the reason",
    "broker_expired": "messages whose time to live passed before an acknowledgement",
    "broker_waiting": "batches that came and are not worked on yet",
    "broker_round_posts": "posts in one round trip to the store",
    "shards_redeliveries": "batches that RabbitMQ delivered again",
    "node_closed_sessions": "sessions that ended, by the code that the client was told; none: it left by itself",
    "loop_lag_seconds": "how late a step of the event loop came, measured once a second",
    "canary_accepted_seconds": "how long a message of the canary took until it was durable",
    "canary_delivered_seconds": "how long a message of the canary took until it was delivered",
    "canary_late": "messages of the canary that were due while the one before was still under way",
    "canary_given_up": "messages of the canary that did not come within a minute",
    "canary_age_seconds": "how long ago a message of the canary was last delivered; before the first one: since the start",
    "parts_up": "1: this part is up; 0: /readyz says why it is not",
}


class ByLabel(NamedTuple):
    """Counters (or gauges) of one name, told apart by a label."""

    label: str
    values: Mapping[str, float]
    is_gauge: bool = False


def by_code(label: str, counts: Mapping[Code, int]) -> ByLabel:
    """Counters by the names of error codes."""
    return ByLabel(label, {code.name: number for code, number in counts.items()})


class Buckets(NamedTuple):
    """A histogram: how many were at most each bound and above the one before; `counts` has one more, for all above."""

    bounds: Sequence[float]
    counts: Sequence[int]
    total: float


class Sizes:
    """Counts whole numbers by their length in bits: one addition each, and the bounds 1, 3, 7, 15 … are made at a scrape.
    A part that counts on its hot path adds to `of_bits[number.bit_length()]` itself."""

    __slots__ = ("of_bits",)

    def __init__(self, most: int) -> None:
        self.of_bits = [0] * (most.bit_length() + 1)

    def buckets(self, total: float) -> Buckets:
        """As a histogram; `total` is the sum, which the part counts anyhow."""
        none, *counts = self.of_bits
        return Buckets([2**bits - 1 for bits in range(1, len(counts) + 1)], [none + counts[0], *counts[1:], 0], total)


class Seconds:
    """Counts times of a few ms to some seconds."""

    BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

    __slots__ = ("_counts", "_sum_s")

    def __init__(self) -> None:
        self._counts = [0] * (len(self.BOUNDS_S) + 1)
        self._sum_s = 0.0

    def add(self, seconds: float) -> None:
        """One more."""
        self._counts[bisect_left(self.BOUNDS_S, seconds)] += 1
        self._sum_s += seconds

    def buckets(self) -> Buckets:
        """As a histogram."""
        return Buckets(self.BOUNDS_S, tuple(self._counts), self._sum_s)


Value = float | ByLabel | Buckets
Source = Callable[[], Mapping[str, Value]]


class Metrics:
    """Sources by name, e.g. {"node": …, "postbox": …}."""

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self._sources = sources

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """The text for an Accept header (OpenMetrics or the plain format), and its content type."""
        from prometheus_client import CollectorRegistry, ProcessCollector
        from prometheus_client.exposition import choose_encoder

        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        ProcessCollector(registry=registry)
        encode, content_type = choose_encoder(accept)
        return encode(registry), content_type

    def read(self, source: str) -> Mapping[str, Value]:
        """What one source says now; nothing when there is none of this name."""
        return self._sources[source]() if source in self._sources else {}

    def collect(self) -> Iterator[Metric]:
        """For prometheus_client."""
        for source, read in self._sources.items():
            for name, value in read().items():
                yield _family(f"{source}_{name}", name in GAUGES, value)


def _family(name: str, is_gauge: bool, value: Value) -> Metric:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    full, says = f"chatd_{name}", HELP.get(name, name.replace("_", " "))
    if isinstance(value, Buckets):
        bounds = [*(str(float(bound)) for bound in value.bounds), "+Inf"]
        counted = list(zip(bounds, accumulate(map(float, value.counts)), strict=True))
        return HistogramMetricFamily(full, says, buckets=counted, sum_value=value.total)
    if not isinstance(value, ByLabel):
        return (GaugeMetricFamily if is_gauge else CounterMetricFamily)(full, says, value=value)
    family = (GaugeMetricFamily if value.is_gauge else CounterMetricFamily)(full, says, labels=[value.label])
    for label, number in value.values.items():
        family.add_metric([label], number)
    return family


def health_of(parts: Callable[[], Mapping[str, str]]) -> Source:
    """The parts of /readyz as 1 and 0."""
    return lambda: {"up": ByLabel("part", {part: float(said == "up") for part, said in parts().items()}, is_gauge=True)}
