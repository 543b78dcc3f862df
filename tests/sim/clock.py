"""Virtual time: an event loop whose clock jumps to the next timer as soon as nothing is ready.

A run takes no longer than its work, whatever it waits for; a loop that has neither work nor timers is a hang, at once.
Timers of one instant fire in the order in which they were set, so that a seed decides everything.
"""

from __future__ import annotations

import asyncio
import itertools
from asyncio.events import Handle, TimerHandle
from collections import deque
from collections.abc import Callable
from contextvars import Context
from heapq import heappop, heappush
from typing import Any

BEGIN_S = 1000.0
BEGIN_MS = 1_700_000_000_000


class Deadlock(Exception):
    """Nothing is ready and nothing is timed: everybody waits for somebody."""


class VirtualLoop(asyncio.BaseEventLoop):
    """Begins at BEGIN_S; `leap_ms` lets days pass on the wall clock. It has no files, sockets, threads or signals."""

    def __init__(self) -> None:
        super().__init__()
        self.leap_ms = 0
        self._now_s = BEGIN_S
        self._timers: list[tuple[float, int, TimerHandle]] = []
        self._numbers = itertools.count()
        self._ready: deque[Handle]

    def time(self) -> float:
        """Virtual seconds."""
        return self._now_s

    def now_ms(self) -> int:
        """The wall clock of the simulated machines."""
        return BEGIN_MS + self.leap_ms + int((self._now_s - BEGIN_S) * 1000)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> TimerHandle:
        """See asyncio. Its own does the same, in an order that is not defined."""
        timer = TimerHandle(when, callback, args, self, context)
        heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    def _run_once(self) -> None:
        """One turn: what is due, and all that is ready when the turn begins."""
        ready, timers = self._ready, self._timers
        if not ready:
            while timers and timers[0][2].cancelled():
                heappop(timers)
            if not timers:
                raise Deadlock
            self._now_s = max(self._now_s, timers[0][0])
        while timers and timers[0][0] <= self._now_s:
            ready.append(heappop(timers)[2])
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle.cancelled():
                handle._run()
