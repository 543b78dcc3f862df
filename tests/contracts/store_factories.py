"""Makers of the stores under contract: a SentQueue and the Register its appends look seats up in, one entry a technology.

A maker is an async context manager that yields Stores; what it yields is empty. The bounds are those of one user.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest
import structlog

from bench.servers import RedisServer
from brokerd.links.memory import MemoryRegister
from brokerd.links.redis import RedisStore
from brokerd.links.resp import RespLink
from brokerd.ports import Register, SentQueue
from tests.sim.odds import Odds
from tests.sim.process import Process, StoreLink
from tests.sim.store import Store

RETENTION_S = 1_000.0


class Bounds(NamedTuple):
    """How much one user's queue holds."""

    count_max: int = 10_000
    bytes_max: int = 64 * 1024 * 1024


class Stores(NamedTuple):
    """What one brokerd sees."""

    sent_queue: SentQueue
    register: Register


@asynccontextmanager
async def linked_redis(url: str) -> AsyncIterator[RespLink]:
    """A link to a Redis, running and ready."""
    link = RespLink(url, name="test")
    task = asyncio.create_task(link.run())
    try:
        async with asyncio.timeout(10):
            await link.wait_ready()
        yield link
    finally:
        task.cancel()
        await asyncio.wait([task])


@asynccontextmanager
async def redis_stores(request: pytest.FixtureRequest, bounds: Bounds) -> AsyncIterator[Stores]:
    """A real Redis, wiped."""
    server: RedisServer = request.getfixturevalue("redis_server")
    server.command("FLUSHALL")
    async with linked_redis(server.url) as link:
        store = RedisStore(link, log=structlog.get_logger(), retention_s=RETENTION_S, **bounds._asdict())
        server.command("SCRIPT", "FLUSH")  # every test also shows that a forgotten script is loaded again
        yield Stores(store, store)


@asynccontextmanager
async def embedded_stores(request: pytest.FixtureRequest, bounds: Bounds) -> AsyncIterator[Stores]:
    """One process alone: a SQLite file and a register in memory."""
    sqlite = pytest.importorskip("brokerd.links.sqlite", exc_type=ModuleNotFoundError)
    folder: Path = request.getfixturevalue("tmp_path")
    register = MemoryRegister()
    queue = sqlite.SqliteSentQueue(folder / "store", register=register, retention_s=RETENTION_S, **bounds._asdict())
    async with queue:
        yield Stores(queue, register)


@asynccontextmanager
async def simulated_stores(request: pytest.FixtureRequest, bounds: Bounds) -> AsyncIterator[Stores]:
    """The store of the simulated world, behind the link that its processes have: here nothing on it is slow or lost.

    It has the whole contract; what it lacks of the real ones (it never forgets a cid) is in tests/sim/store.py.
    """
    loop = asyncio.get_running_loop()
    store = Store(loop.time, retention_s=RETENTION_S, **bounds._asdict())
    link: Any = StoreLink(Process("a brokerd", loop, Random(1), Odds, delay_s_max=0.0), store)
    yield Stores(link, link)


FACTORIES: dict[str, Callable[[pytest.FixtureRequest, Bounds], AbstractAsyncContextManager[Stores]]] = {
    "redis": redis_stores,
    "sqlite-memory": embedded_stores,
    "simulated": simulated_stores,
}
