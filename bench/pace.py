"""An even pace that does not wait for anybody, to a tenth of a millisecond.

An event loop's own timers count whole milliseconds: at 1,000 messages a second that would be as much as the server takes.
So the pace wakes by a timerfd of the kernel.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import AsyncIterator, Callable
from typing import Final

from hdrh.histogram import HdrHistogram

LATE_US_MAX: Final = 60_000_000
LOOK_S: Final = 0.005
TURN: Final = 16  # messages that leave without a look at what came in, when the pace fell behind
_CLOCK_MONOTONIC: Final = 1
_ABSOLUTE: Final = 1
_libc = ctypes.CDLL(None, use_errno=True)


async def wait_until(is_so: Callable[[], bool], s_max: float) -> float:
    """Look again and again, for `s_max` at most. How long it took, in s."""
    start_s = time.monotonic()
    while True:
        waited_s = time.monotonic() - start_s
        if is_so() or waited_s > s_max:
            return waited_s
        await asyncio.sleep(LOOK_S)


class _Timespec(ctypes.Structure):
    _fields_ = (("s", ctypes.c_long), ("ns", ctypes.c_long))


class _Setting(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class Alarm:
    """Wakes one task at times of time.monotonic()."""

    def __init__(self) -> None:
        self._fd: int = _libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._loop = asyncio.get_running_loop()
        self._woken: asyncio.Future[None] | None = None
        self._loop.add_reader(self._fd, self._ring)

    async def wait_until(self, at_s: float) -> None:
        """Wait until time.monotonic() says `at_s`."""
        at_ns = max(1, int(at_s * 1e9))
        setting = _Setting(_Timespec(0, 0), _Timespec(*divmod(at_ns, 1_000_000_000)))
        _libc.timerfd_settime(self._fd, _ABSOLUTE, ctypes.byref(setting), None)
        self._woken = self._loop.create_future()
        await self._woken

    def _ring(self) -> None:
        os.read(self._fd, 8)
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    def close(self) -> None:
        """The end."""
        self._loop.remove_reader(self._fd)
        os.close(self._fd)


class Pace:
    """`rate` messages a second for `seconds`. `late`: how far behind each intended time its message left, in µs."""

    def __init__(self, rate: float, seconds: float) -> None:
        self.start_s = time.monotonic() + 0.1
        self.late = HdrHistogram(1, LATE_US_MAX, 3)
        self._step_s = 1 / rate
        self._count = int(rate * seconds)

    async def times(self) -> AsyncIterator[tuple[int, float]]:
        """Number and intended time of one message after the other; what is due together comes without a pause."""
        alarm = Alarm()
        try:
            for number in range(self._count):
                meant_s = self.start_s + number * self._step_s
                if time.monotonic() < meant_s:
                    await alarm.wait_until(meant_s)
                elif number % TURN == 0:
                    await asyncio.sleep(0)
                self.late.record_value(max(1, int((time.monotonic() - meant_s) * 1e6)))
                yield number, meant_s
        finally:
            alarm.close()
