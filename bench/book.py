"""Where latencies are noted."""

from __future__ import annotations

from typing import Final

from hdrh.histogram import HdrHistogram

LATENCY_US_MAX: Final = 60_000_000
PERCENTILES: Final = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99_9": 99.9}


class Book:
    """The histograms of all pairs. What was meant to leave before `from_s` is warm-up."""

    def __init__(self) -> None:
        self.accepted = HdrHistogram(1, LATENCY_US_MAX, 3)
        self.delivered = HdrHistogram(1, LATENCY_US_MAX, 3)
        self.from_s = 0.0


def percentiles(histogram: HdrHistogram) -> dict[str, float]:
    """Milliseconds by percentile, and the largest."""
    values = {name: histogram.get_value_at_percentile(at) / 1000 for name, at in PERCENTILES.items()}
    return {**values, "max": histogram.get_max_value() / 1000}
