"""What both daemons share: signals to an event, a loop, a clean end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable

import uvloop


def run_daemon(work: Callable[[asyncio.Event], Awaitable[None]]) -> int:
    """Run `work(stop)` on uvloop; SIGTERM and SIGINT set `stop`, a second one ends the process at once. Exit code."""

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()

        def end() -> None:
            if stop.is_set():
                os._exit(130)
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, end)
        await work(stop)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    sys.stdout.flush()
    return 0


async def until(stop: asyncio.Event, tasks: asyncio.TaskGroup, work: list[asyncio.Task[None]]) -> None:
    """Wait for the stop, then cancel `work` (tasks of `tasks`, which then ends)."""
    await stop.wait()
    for task in work:
        task.cancel()
