"""What a broker counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Final

from brokerd.metrics import Sizes, Value, by_code
from brokerd.route import Routed
from protocol.envelope import BATCH_ITEMS_MAX
from protocol.errors import Code

ROUND_POSTS_MAX: Final = 64 * BATCH_ITEMS_MAX  # broker.WORK_BATCHES_MAX full ones


@dataclass(slots=True)
class Counts:
    """What this broker did since it started."""

    batches: int = 0
    posts: int = 0
    stored: int = 0
    repeats: int = 0
    bounced: int = 0
    dropped: int = 0
    parcels: int = 0
    acks: int = 0
    receipts: int = 0
    expired: int = 0
    retries: int = 0
    dead_letters: int = 0
    stale_nodes: int = 0


class Tally:
    """The counts, and what else metrics want to know of them."""

    def __init__(self) -> None:
        self.counts = Counts()
        self._sizes = Sizes(ROUND_POSTS_MAX)
        self._failed: Counter[Code] = Counter()

    def round(self, posts: int, routed: Routed, acks: int) -> None:
        """One round was worked off."""
        counts = self.counts
        counts.posts += posts
        counts.stored += routed.stored
        counts.repeats += routed.repeats
        counts.bounced += sum(routed.bounced.values())
        counts.dropped += routed.dropped
        counts.parcels += sum(map(len, routed.parcels.values()))
        counts.acks += acks
        self._sizes.of_bits[posts.bit_length()] += 1
        self._failed.update(routed.bounced)

    def samples(self, waiting: Iterable[int]) -> dict[str, Value]:
        """For metrics; `waiting` are the bytes of each batch that is not worked on yet."""
        sizes = list(waiting)
        return {
            **asdict(self.counts),
            "failed": by_code("reason", {**self._failed, Code.TTL_PASSED: self.counts.expired}),
            "waiting": len(sizes),
            "waiting_bytes": sum(sizes),
            "round_posts": self._sizes.buckets(self.counts.posts),
        }
