"""A daemon under a service manager: READY, STATUS, RELOADING and STOPPING are told, and the watchdog is fed.

A beat is a step of the event loop. It is told to the watchdog only when it came in time and the daemon's own checks
found no fault. A thread with a timer would go on beating for a loop that is stuck. Another server's absence is no fault
of ours: a restart would not bring it back, and would end every session.
"""

from __future__ import annotations

import asyncio
import bisect
import resource
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol

from brokerd.metrics import Buckets, Value
from brokerd.notify import ServiceManager

BEAT_S: Final = 1.0
BEATS: Final = 6  # at least, in one watchdog time: some may come late
LATE_S_MAX: Final = 1.0  # a loop that is this late is not well
LAG_BOUNDS_S: Final = (0.001, 0.01, 0.05, 0.25, 1.0, 5.0)
SPARE_FILES: Final = 256  # beside connections: links, listeners, the store, logs


class Patient(Protocol):
    """Whose pulse it is."""

    def status(self) -> str:
        """How it is, in one line for people."""

    def fault(self) -> str:
        """Why it is not well by itself and should be restarted; "" when it is."""

    def stop_s_max(self) -> float:
        """How long a stop may take."""

    def reload(self) -> object:
        """Take a changed configuration over, or keep the old one and log why."""


class Lag:
    """How late the event loop was, one measurement a beat."""

    def __init__(self) -> None:
        self._counts = [0] * (len(LAG_BOUNDS_S) + 1)
        self._sum_s = 0.0

    def add(self, late_s: float) -> None:
        """A step came so late; a clock's grain may make it early."""
        late_s = max(0.0, late_s)
        self._counts[bisect.bisect_left(LAG_BOUNDS_S, late_s)] += 1
        self._sum_s += late_s

    def statistics(self) -> dict[str, Value]:
        """For metrics."""
        return {"lag_seconds": Buckets(LAG_BOUNDS_S, tuple(self._counts), self._sum_s)}


class Pulse:
    """`run` beats until it is cancelled."""

    def __init__(
        self, patient: Patient, manager: ServiceManager, log: Any, now_s: Callable[[], float], lag: Lag | None = None
    ) -> None:
        self._patient = patient
        self._manager = manager
        self._log = log
        self._now_s = now_s
        self._lag = lag or Lag()
        watchdog_s = manager.watchdog_s
        self.beat_s = BEAT_S if watchdog_s is None else min(BEAT_S, watchdog_s / BEATS)
        self._late_s_max = LATE_S_MAX if watchdog_s is None else min(LATE_S_MAX, watchdog_s / BEATS)

    async def run(self) -> None:
        """Beat for ever."""
        while True:
            due_s = self._now_s() + self.beat_s
            await asyncio.sleep(self.beat_s)
            self.beat(self._now_s() - due_s)

    def beat(self, late_s: float) -> None:
        """One beat, that came `late_s` after its time."""
        self._lag.add(late_s)
        self._manager.status(self._patient.status())
        fault = self._patient.fault()
        if late_s > self._late_s_max:
            self._log.warning("loop_late", seconds=round(late_s, 3))
        elif fault:
            self._log.error("watchdog_not_fed", why=fault)
        else:
            self._manager.alive()


@asynccontextmanager
async def supervised(
    patient: Patient, stop: asyncio.Event, manager: ServiceManager, log: Any, lag: Lag | None = None
) -> AsyncIterator[None]:
    """While it is open the pulse beats, SIGHUP reloads, and a stop is announced before anything else is done about it."""
    loop = asyncio.get_running_loop()

    def reload() -> None:
        manager.reloading()
        patient.reload()
        manager.ready()

    async def announce() -> None:
        await stop.wait()
        manager.stopping(patient.stop_s_max())

    loop.add_signal_handler(signal.SIGHUP, reload)
    async with asyncio.TaskGroup() as tasks:
        beside = [tasks.create_task(Pulse(patient, manager, log, loop.time, lag).run()), tasks.create_task(announce())]
        yield
        for task in beside:
            task.cancel()


def raise_file_limit(connections_max: int, log: Any) -> None:
    """Take as many files as may be had, and say how many that is: what a unit asks for above the machine's own limit is
    cut without a word."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections_max + SPARE_FILES
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    told = log.info if hard >= needed else log.warning
    told("file_limit", files_max=hard, needed=needed, connections_max=connections_max)
