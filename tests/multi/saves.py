"""`python -m tests.multi.saves`: one save alone under each setting of Redis, without RabbitMQ and without daemons.

The round trip from a store's append of one entry to its answer, one after the other. What the whole system does with it is
in tests/multi/durability.py; this shows the price of the setting itself, also on a machine that is busy with other things.
"""

from __future__ import annotations

import asyncio
import shutil
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import structlog
import uvloop

from bench.meter import Usage
from bench.sentinel import SentinelRedis
from brokerd.links.redis import RedisStore
from brokerd.links.resp import RespLink
from brokerd.ports import Append, Entry
from protocol.wire import Type
from tests.multi.durability import SETTINGS, Setting

ROUNDS: Final = 8
SAVES: Final = 150  # in one round
GENERATION: Final = b"12345678"


class Bench:
    """One setting with its servers, and the times of its saves."""

    def __init__(self, setting: Setting, folder: Path) -> None:
        self.setting = setting
        self.redis = SentinelRedis(folder, appendfsync=setting.fsync, options=setting.options)
        self.times_s: list[float] = []
        self.cpu_s = 0.0
        self._cid = 0

    async def link(self, stack: AsyncExitStack) -> None:
        """Connect as brokerd does."""
        link = RespLink(self.redis.url, name="saves", wait_replicas=self.setting.wait_replicas)
        task = asyncio.create_task(link.run())
        stack.callback(task.cancel)
        await link.wait_ready()
        self.store = RedisStore(link, log=structlog.get_logger())
        await self.store.open("ann", "phone", GENERATION, 1)

    async def save_some(self) -> None:
        """SAVES of them, one after the other."""
        before_s = self._used_s()
        for _ in range(SAVES):
            self._cid += 1
            entry = Entry(b"tag", self._cid, int(Type.DELIVER), 0, 0, b"x" * 100, 0)
            begun_s = time.perf_counter()
            [answer] = await self.store.append([Append("ann", [entry])], 1)
            self.times_s.append(time.perf_counter() - begun_s)
            assert answer.results == [self._cid]
        self.cpu_s += self._used_s() - before_s

    def _used_s(self) -> float:
        used = [Usage.of(server.pid) for server in self.redis.servers]
        return sum(one.user_s + one.system_s for one in used)

    def row(self) -> str:
        """For people."""
        cuts = statistics.quantiles(self.times_s, n=100)
        cpu_us = self.cpu_s / len(self.times_s) * 1e6
        return f"| {self.setting} | {cuts[49] * 1e3:.2f} | {cuts[98] * 1e3:.1f} | {cpu_us:.0f} |"


async def compare(benches: list[Bench]) -> None:
    """In turn, so that what else the machine does meets all of them."""
    async with AsyncExitStack() as stack:
        for bench in benches:
            await bench.link(stack)
        for _ in range(ROUNDS):
            for bench in benches:
                await bench.save_some()


def main() -> int:
    """The command line."""
    folder = Path(tempfile.mkdtemp(prefix="chatd-saves-"))
    benches = [Bench(setting, folder / f"redis{number}") for number, setting in enumerate(SETTINGS)]
    try:
        for bench in benches:
            bench.redis.start()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(compare(benches))
    finally:
        for bench in benches:
            bench.redis.stop()
        shutil.rmtree(folder, ignore_errors=True)
    print("| one save alone | p50 ms | p99 ms | CPU µs of the three Redis |\n|---|---|---|---|")
    print("\n".join(bench.row() for bench in benches))
    return 0


if __name__ == "__main__":
    sys.exit(main())
