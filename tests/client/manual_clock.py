"""A clock that a test moves; to sleep on it is to move it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from protocol.client_bell import Bell


class ManualClock:
    """protocol.client_link.Clock. `slept` is every wait between two connections."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        self.timers: list[asyncio.TimerHandle] = []
        self.on_sleep: Callable[[], object] | None = None
        self._bell = Bell()

    def now_s(self) -> float:
        return self.now

    async def sleep(self, wait_s: float) -> None:
        self.slept.append(wait_s)
        if self.on_sleep is not None:
            self.on_sleep()
        self.advance(wait_s)
        await asyncio.sleep(0)

    def call_later(self, wait_s: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(self.now + wait_s, call, (), asyncio.get_running_loop())
        self.timers.append(timer)
        self._bell.ring()
        return timer

    async def until_timer(self, wait_s: float) -> None:
        """Until somebody waits for so long."""
        async with asyncio.timeout(10):
            while wait_s not in self.waiting():
                await self._bell.wait()

    def waiting(self) -> list[float]:
        """How long until each timer that was not cancelled."""
        return sorted(timer.when() - self.now for timer in self.timers if not timer.cancelled())

    def advance(self, seconds: float) -> None:
        self.now += seconds
        due = [timer for timer in self.timers if timer.when() <= self.now + 1e-6 and not timer.cancelled()]
        self.timers = [timer for timer in self.timers if timer not in due and not timer.cancelled()]
        for timer in due:
            timer._run()
