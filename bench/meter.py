"""What processes cost, read from /proc: seconds of CPU, resident memory, context switches, calls of read and write.

Everything is told for 100,000 messages or for one, so that runs of different lengths compare.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SWARM: Final = "swarm"  # the load generator's own name among the processes: it is measured, never counted as a server
PER: Final = 100_000
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_FOREIGN: Final = ("redis", "rabbitmq")  # server processes that are not ours


@dataclass(frozen=True, slots=True)
class Usage:
    """What one process has used since it started. `io_calls`: read, write and the like, without sendto and recvfrom;
    -1 where the kernel does not tell."""

    user_s: float
    system_s: float
    waits: int  # voluntary context switches, of all its threads that live
    preemptions: int
    io_calls: int

    @classmethod
    def of(cls, pid: int) -> Usage:
        """Of a process that runs. Raises FileNotFoundError when it does not."""
        fields = Path(f"/proc/{pid}/stat").read_bytes().rsplit(b")", 1)[1].split()
        waits, preemptions = _switches(pid)
        user_s, system_s = (int(ticks) / _TICKS_PER_S for ticks in fields[11:13])
        return cls(user_s, system_s, waits, preemptions, _io_calls(pid))

    def since(self, before: Usage, messages: int) -> dict[str, float]:
        """What was used since `before`, for PER messages, and CPU for one message in µs."""
        scale = PER / max(1, messages)
        user_s, system_s = self.user_s - before.user_s, self.system_s - before.system_s
        told = {
            "cpu_us_per_msg": (user_s + system_s) / max(1, messages) * 1e6,
            "user_s_per_100k": user_s * scale,
            "system_s_per_100k": system_s * scale,
            "waits_per_100k": (self.waits - before.waits) * scale,
            "preemptions_per_100k": (self.preemptions - before.preemptions) * scale,
        }
        if self.io_calls >= 0:
            told["io_calls_per_100k"] = (self.io_calls - before.io_calls) * scale
        return {name: round(value, 3) for name, value in told.items()}


def _switches(pid: int) -> tuple[int, int]:
    waits = preemptions = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        try:
            lines = status.read_text().rsplit("\n", 3)
        except (FileNotFoundError, ProcessLookupError):
            continue  # a thread that ended meanwhile
        waits += int(lines[-3].split()[-1])
        preemptions += int(lines[-2].split()[-1])
    return waits, preemptions


def _io_calls(pid: int) -> int:
    try:
        fields = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    except PermissionError:
        return -1
    return int(fields["syscr"]) + int(fields["syscw"])


def rss_bytes(pid: int) -> int:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES


def rss_mib(pid: int) -> float:
    """Resident memory of a process, in MiB."""
    return rss_bytes(pid) / 2**20


class Meter:
    """Measures processes between `start` and `stop`; this process is one of them, as SWARM."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = {**pids, SWARM: os.getpid()}
        self._before: dict[str, Usage] = {}

    @property
    def is_running(self) -> bool:
        """Whether it was started."""
        return bool(self._before)

    def start(self) -> None:
        """From now on."""
        self._before = {name: Usage.of(pid) for name, pid in self._pids.items()}

    def stop(self, messages: int) -> dict[str, dict[str, float]]:
        """By process: what `messages` messages cost, and how much memory it holds now."""
        return {
            name: {**Usage.of(pid).since(self._before[name], messages), "rss_mib": round(rss_mib(pid), 1)}
            for name, pid in self._pids.items()
        }


def server_cpu_us(processes: Mapping[str, Mapping[str, float]]) -> float:
    """CPU of all server processes for one message."""
    return sum(used["cpu_us_per_msg"] for name, used in processes.items() if name != SWARM)


def own_cpu_us(processes: Mapping[str, Mapping[str, float]]) -> float:
    """The same without Redis and RabbitMQ."""
    return sum(used["cpu_us_per_msg"] for name, used in processes.items() if name not in (SWARM, *_FOREIGN))
