"""Crash points: named places at which a test lets a daemon die by SIGKILL, to see what the others make of it.

Not armed (always, but in tests) a point is a function that does nothing. CHATD_CRASH_AT=<point>[:nth] in the environment
arms one: the process kills itself when it gets there for the nth time (default: the first). Points are resolved when
their module is imported. A point with `turns` dies so many turns of the loop later, when what was written before it has
left for the socket. tests/faults counts the deaths: a point that nobody reached proves nothing.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Final

VARIABLE: Final = "CHATD_CRASH_AT"
CHATD_POINTS: Final = (
    "chatd.frame_read",  # off the socket, nothing decided
    "chatd.before_publish",
    "chatd.published",  # on its way to the queue, not confirmed
    "chatd.confirmed",  # durable, and its sender is not told
    "chatd.written",  # to the receiver's socket
    "chatd.ack_read",  # of a device, not posted yet
)
BROKERD_POINTS: Final = (
    "brokerd.delivered",  # a batch came
    "brokerd.before_save",  # decoded and planned; the look-up is one step with the save
    "brokerd.save_asked",  # on its way to the store, no answer yet
    "brokerd.saved",
    "brokerd.handed_over",  # on its way to the nodes, inbound not acknowledged
    "brokerd.before_ack",  # of the inbound batch; the hand-over has not left
    "brokerd.device_acked",  # cursor moved, receipts not posted
    "brokerd.receipts_posted",  # durable, and still owed
)
POINTS: Final = CHATD_POINTS + BROKERD_POINTS
WRITTEN_TURNS: Final = 4  # a task's first step, the link's own flush, the loop's write, and one more


def armed() -> str:
    """The point that is armed, "" = none. Ends the process when there is no such point."""
    name, _, nth = os.environ.get(VARIABLE, "").partition(":")
    if name and (name not in POINTS or (nth and not nth.isdecimal())):
        raise SystemExit(f"{VARIABLE}: there is no point {name}:{nth or 1}; there are {', '.join(POINTS)}")
    return name


def crash_point(name: str, *, turns: int = 0) -> Callable[[], None]:
    """What to call at the point `name`."""
    assert name in POINTS, name
    return _Armed(turns).reach if armed() == name else _pass


def crash_point_that_waits(name: str) -> Callable[[], Awaitable[None]]:
    """What to await at the point `name`: nothing behind it happens any more, and all before it has left."""
    assert name in POINTS, name
    return _Armed(WRITTEN_TURNS).wait if armed() == name else _wait_nothing


def _pass() -> None:
    return


async def _wait_nothing() -> None:
    return


class _Armed:
    def __init__(self, turns: int) -> None:
        self._left = int(os.environ[VARIABLE].partition(":")[2] or 1)
        self._turns = turns

    def reach(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._die_after(self._turns)

    async def wait(self) -> None:
        self.reach()
        if self._left <= 0:
            await asyncio.Event().wait()

    def _die_after(self, turns: int) -> None:
        if turns == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        asyncio.get_running_loop().call_soon(self._die_after, turns - 1)
