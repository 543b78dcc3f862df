"""Several brokerd share the shards when one has too much to do. A brokerd that has time keeps what it has: the fewer there are
who work, the more messages share a round trip, and the less each costs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

LOOK_S: Final = 10.0  # between two looks
LEASE_S: Final = 3 * LOOK_S  # a brokerd counts for so long after it was seen
BUSY_SHARE: Final = 0.6  # of a core, over that time


async def share_shards(
    count: Callable[[], Awaitable[int]],
    give_up_some: Callable[[int], int],
    log: Any,
    *,
    look_s: float = LOOK_S,
    cpu_s: Callable[[], float] = time.process_time,
    now_s: Callable[[], float] = time.monotonic,
) -> None:
    """Until cancelled: `count` the brokerd there are, look how busy this one is, and when it is, `give_up_some(consumers)` (how
    many shards it gave up)."""
    used_s, seen_s = cpu_s(), now_s()
    while True:
        await asyncio.sleep(look_s)
        (used_before_s, seen_before_s), (used_s, seen_s) = (used_s, seen_s), (cpu_s(), now_s())
        share = (used_s - used_before_s) / max(seen_s - seen_before_s, look_s)
        consumers = await count()
        if share >= BUSY_SHARE and (given := give_up_some(consumers)):
            log.info("shards_given_up", shards=given, brokers=consumers, busy=round(share, 2))
