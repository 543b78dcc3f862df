"""What both daemons share: signals to an event, a loop, a clean end."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

import structlog
import uvloop

from brokerd import crash_points

# Objects (more made than let go) between two looks for cycles. Python's own 700 is less than one read of a busy socket makes:
# of a full chatd's CPU 9.4 % went into looking at messages that were about to leave; none is seen with 10,000 and more.
YOUNG_OBJECTS: Final = 20_000
TWICE_S: Final = 0.5  # a make or a supervisor that signals a whole group may tell us twice at once


class StartFailed(Exception):
    """The daemon cannot start; the text says why, in words for its operator."""


def run_daemon(work: Callable[[asyncio.Event], Awaitable[None]]) -> int:
    """Run `work(stop)` on uvloop; SIGTERM and SIGINT set `stop`, a second one ends the process at once. Exit code."""

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        told_s = 0.0

        def end() -> None:
            nonlocal told_s
            if not stop.is_set():
                told_s = loop.time()
            elif loop.time() - told_s > TWICE_S:
                os._exit(130)
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, end)
        if point := crash_points.armed():
            structlog.get_logger().warning("crash_point_armed", point=point)
        await work(stop)

    look_seldom_for_cycles()
    faulthandler.enable()  # a watchdog's SIGABRT shows on standard error where every thread was
    reasons: list[str] = []
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(main())
        except* StartFailed as failed:
            reasons = [str(fault) for fault in _leaves(failed)]
    sys.stdout.flush()
    sys.stderr.write("".join(f"{reason}\n" for reason in reasons))
    return 1 if reasons else 0


def look_seldom_for_cycles() -> None:
    """Set the garbage collector for a process that makes and drops much, and hardly ever in cycles. What is there now (the
    modules) is never looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])


def _leaves(fault: BaseException) -> Iterator[BaseException]:
    """The exceptions in a group, however deep."""
    if isinstance(fault, BaseExceptionGroup):
        for inner in fault.exceptions:
            yield from _leaves(inner)
    else:
        yield fault
