"""The sweeper: asks the store who may have something expired and posts a SWEEP to that user's shard.

The work itself is done by the shard's consumer (brokerd/broker.py), in the order of that shard. Any number of sweepers
may run at once: a SWEEP that finds nothing changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from brokerd.ports import Inbound, LinkDown, PostRefused, SentQueue
from protocol.envelope import PostKind, SweepPost, pack_batch
from protocol.names import shard_of

SWEEP_S: Final = 5.0
DUE_USERS_MAX: Final = 1000  # in one round


class Sweeper:
    """One task; `run` ends when cancelled."""

    def __init__(
        self, name: str, shards: int, inbound: Inbound, sent_queue: SentQueue, clock_ms: Callable[[], int], log: Any,
        every_s: float = SWEEP_S,
    ) -> None:  # fmt: skip
        self._name, self._shards = name, shards
        self._inbound, self._store = inbound, sent_queue
        self._clock_ms, self._log, self._every_s = clock_ms, log, every_s

    async def run(self) -> None:
        """Sweep every `every_s` seconds."""
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self.sweep()
            except (LinkDown, PostRefused) as down:
                self._log.info("sweep_put_off", error=str(down))

    async def sweep(self) -> int:
        """One round; the number of users that were due."""
        users = await self._store.due(self._clock_ms(), DUE_USERS_MAX)
        by_shard: dict[int, list[SweepPost]] = {}
        for user in users:
            by_shard.setdefault(shard_of(user, self._shards), []).append(SweepPost(PostKind.SWEEP, user))
        for shard, posts in by_shard.items():
            await self._inbound.post(shard, pack_batch(self._name, posts))
        return len(users)
