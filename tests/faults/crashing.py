"""Daemons that die at a named point (brokerd/crash_points.py), and somebody who starts them again."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from bench.processes import Chatd, Daemon
from brokerd.crash_points import VARIABLE
from tests.faults.talk import Talk

LINES: Final = 10  # said at once
DEATH_S_MAX: Final = 30.0
AHEAD_MAX = 2_000  # lines; a queue holds 10,000, and then its senders are told FAILED, as promised
LOOK_S: Final = 0.01


async def arm(daemons: Sequence[Daemon], point: str, nth: int = 1) -> None:
    """Start them again so that each dies at the point."""
    for daemon in daemons:
        daemon.env[VARIABLE] = f"{point}:{nth}"
    await restart(daemons)


async def restart(daemons: Sequence[Daemon]) -> None:
    """End them well and start them again, together."""
    await asyncio.gather(*(asyncio.to_thread(daemon.stop) for daemon in daemons))
    await asyncio.gather(*(daemon.restart() for daemon in daemons))
    for daemon in daemons:
        if isinstance(daemon, Chatd):
            await asyncio.to_thread(daemon.wait_serving)


async def disarm(daemons: Sequence[Daemon]) -> None:
    """Whoever is still armed (a test failed) is made harmless."""
    armed = [daemon for daemon in daemons if daemon.env.pop(VARIABLE, "")]
    await restart(armed)


async def wait_dead(daemon: Daemon) -> None:
    """Until its process has ended by itself."""
    async with asyncio.timeout(DEATH_S_MAX):
        for _ in iter(lambda: daemon.is_running, False):
            await asyncio.sleep(LOOK_S)


@asynccontextmanager
async def talk_meanwhile(talk: Talk) -> AsyncIterator[None]:
    """ann speaks all the time, and once more when it is over; but never so far ahead of bob that his queue fills up."""
    is_over = False

    async def speak() -> None:
        while not is_over:
            if len(talk.said) - len(talk.heard) < AHEAD_MAX:
                await talk.say(LINES)
            else:
                await asyncio.sleep(LOOK_S)
        await talk.say(LINES)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(speak())
        yield
        is_over = True


async def talk_until_dead(talk: Talk, daemons: Sequence[Daemon]) -> int:
    """Say and hear while each of them dies and is started again, unarmed. How many deaths by SIGKILL there were."""
    deaths = 0

    async def bury(daemon: Daemon) -> None:
        nonlocal deaths
        await wait_dead(daemon)
        del daemon.env[VARIABLE]
        code = await asyncio.to_thread(daemon.stop)
        deaths += code == -signal.SIGKILL
        await daemon.restart()

    async with talk_meanwhile(talk):
        await asyncio.gather(*(bury(daemon) for daemon in daemons))
    return deaths
