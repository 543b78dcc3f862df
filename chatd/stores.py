"""The store behind chatctl: the one that chatd (embedded) or chatd and brokerd (cluster) work on, opened beside them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Final

import structlog

from brokerd.ports import SentQueue
from chatd.config import ChatConfig

if TYPE_CHECKING:
    from brokerd.links.sqlite import Seating

REACH_S_MAX: Final = 3.0


def open_store(config: ChatConfig, register: Seating | None = None) -> AbstractAsyncContextManager[SentQueue]:
    """The store of `config.mode`, to be used in `async with`: SQLite in the data folder, or Redis. Raises LinkDown when
    it can not be reached within REACH_S_MAX.

    `register` is the embedded node's own; without it, and from another process, appends answer without seats. The
    imports are inside because each mode needs only one of them.
    """
    return _redis_store(config) if config.mode == "cluster" else _sqlite_store(config, register)


def _sqlite_store(config: ChatConfig, register: Seating | None) -> AbstractAsyncContextManager[SentQueue]:
    from brokerd.links.sqlite import SqliteSentQueue

    config.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    return SqliteSentQueue(
        config.store_file,
        register=register,
        count_max=config.queue.count_max,
        bytes_max=config.queue.bytes_max,
        retention_s=config.queue.retention_s,
    )


@asynccontextmanager
async def _redis_store(config: ChatConfig) -> AsyncIterator[SentQueue]:
    from brokerd.links.redis import RedisStore
    from brokerd.links.resp import RespLink

    link = RespLink(config.redis.url, name="chatctl")
    store = RedisStore(
        link,
        log=structlog.get_logger(),
        count_max=config.queue.count_max,
        bytes_max=config.queue.bytes_max,
        retention_s=config.queue.retention_s,
    )
    # Not a TaskGroup: it would wrap what the caller's body raises into an ExceptionGroup.
    running = asyncio.create_task(link.run())
    try:
        async with asyncio.timeout(REACH_S_MAX):
            await link.wait_ready()
        yield store
    except TimeoutError:
        await link.pipeline([])  # raises LinkDown with the reason
        raise
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
