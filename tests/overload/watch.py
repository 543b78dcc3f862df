"""What a process costs while something happens: memory before, at its peak and after, and CPU."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

SAMPLE_S: Final = 0.2
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


def rss_mib(pid: int) -> float:
    """Resident memory now; 0 for a process that is gone."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as statm:
            return int(statm.read().split()[1]) * PAGE_BYTES / 2**20
    except (OSError, IndexError):
        return 0.0


def cpu_s(pid: int) -> float:
    """Seconds of CPU so far; 0 for a process that is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            fields = stat.read().rsplit(b")", 1)[1].split()
    except (OSError, IndexError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


@dataclass(slots=True)
class Memory:
    """MiB of one process."""

    before: float
    peak: float
    after: float = 0.0

    @property
    def growth(self) -> float:
        """From before to the peak."""
        return self.peak - self.before


class Sampler:
    """`async with Sampler(pids) as sampler:` looks five times a second. The numbers are whole once the block is left."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self.pids = dict(pids)
        self.memory = {name: Memory(rss_mib(pid), rss_mib(pid)) for name, pid in pids.items()}
        self._cpu_before = {name: cpu_s(pid) for name, pid in pids.items()}
        self.cpu_s: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None

    def moved(self, pids: Mapping[str, int]) -> None:
        """A process was started again."""
        self.pids.update(pids)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._sample())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])
        for name, pid in self.pids.items():
            self._look(name, pid)
            self.memory[name].after = rss_mib(pid)
            self.cpu_s[name] = cpu_s(pid) - self._cpu_before[name]

    async def _sample(self) -> None:
        while True:
            for name, pid in self.pids.items():
                self._look(name, pid)
            await asyncio.sleep(SAMPLE_S)

    def _look(self, name: str, pid: int) -> None:
        memory = self.memory[name]
        memory.peak = max(memory.peak, rss_mib(pid))


async def until(is_so: Callable[[], bool], s_max: float) -> bool:
    """Whether it became so in time."""
    end_s = time.monotonic() + s_max
    while not is_so():
        if time.monotonic() > end_s:
            return False
        await asyncio.sleep(0.02)
    return True
