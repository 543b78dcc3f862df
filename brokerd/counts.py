"""What a broker counts."""

from __future__ import annotations

from dataclasses import dataclass


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
