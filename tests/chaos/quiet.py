"""Whether a town is quiet: what the stores say once everything is delivered (invariant I7)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

import structlog

from brokerd.links.redis import RedisStore
from brokerd.links.redis_register import seats_of
from brokerd.links.resp import RespLink
from brokerd.ports import LinkDown
from tests.chaos.crowd import Crowd
from tests.chaos.town import Town

LOOK_S_MAX: Final = 10.0


async def noise(town: Town, crowd: Crowd) -> list[str]:
    """What is not as it must be in the end, one line each; [] = quiet. The cheap questions first."""
    waits = [f"{label} waits for {', '.join(what)}" for label, what in crowd.ledger.unfinished().items()]
    waits += crowd.ledger.strangers()
    away = [f"{device.name} is not connected" for device in crowd.devices if device.name not in crowd.sessions]
    if waits or away:
        return waits + away
    try:
        loud = await _in_redis(town, crowd)
    except (LinkDown, TimeoutError) as down:
        return [f"redis: {down!r}"]
    return loud or list(await _in_rabbit(town))


async def registered(town: Town, crowd: Crowd) -> list[str]:
    """What the register says and is not so, or does not say and is so."""
    async with _linked(town) as link:
        return await _of_register(link, crowd)


async def _in_redis(town: Town, crowd: Crowd) -> list[str]:
    async with _linked(town) as link:
        store = RedisStore(link, log=structlog.get_logger("chaos"))
        loud: list[str] = []
        for user in crowd.ledger.of_user:
            loud += _of_queue(user, await store.status(user))
        return loud + await _of_register(link, crowd)


@asynccontextmanager
async def _linked(town: Town) -> AsyncIterator[RespLink]:
    link = RespLink(town.redis.url, name="chaos")
    task = asyncio.get_running_loop().create_task(link.run())
    try:
        async with asyncio.timeout(LOOK_S_MAX):
            await link.wait_ready()
            yield link
    finally:
        task.cancel()
        await asyncio.wait([task])


def _of_queue(user: str, status: Any) -> Iterator[str]:
    if status is None:
        yield f"{user} has no queue"
    elif status.floor != status.head or any(cursor != status.head for cursor in status.cursors.values()):
        yield f"{user}: sent_queue from {status.floor} to {status.head}, cursors {status.cursors}"


async def _of_register(link: RespLink, crowd: Crowd) -> list[str]:
    users, sessions = list(crowd.ledger.of_user), crowd.sessions
    loud = []
    for user, flat in zip(users, await link.pipeline([("HGETALL", f"u:{{{user}}}:r") for user in users]), strict=True):
        stands = {seat.device: (seat.node, seat.session.partition(".")[0]) for seat in seats_of(flat)}
        lives = {name.device: session for name, session in sessions.items() if name.user == user}
        if stands != lives:
            loud.append(f"{user}: the register says {stands}, live are {lives}")
    return loud


async def _in_rabbit(town: Town) -> Iterator[str]:
    said = await asyncio.to_thread(town.rabbit.ctl, "-q", "list_queues", "name", "messages")
    rows = [line.split() for line in said.splitlines()[1:]]
    return (f"the queue {name} holds {count}" for name, count in rows if count != "0")
