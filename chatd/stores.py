"""The store behind chatctl: the one that chatd (embedded) or chatd and brokerd (cluster) work on, opened beside them."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from brokerd.ports import LinkDown, Register, SentQueue, StoreChanged
from brokerd.support_ports import DeadLetters, Memory, Traces
from chatd.config import ChatConfig
from protocol.wire import GENERATION_BYTES

if TYPE_CHECKING:
    from brokerd.links.redis import RedisStore
    from brokerd.links.resp import RespLink
    from brokerd.links.sqlite import Seating

REACH_S_MAX: Final = 3.0


def open_store(config: ChatConfig, register: Seating | None = None) -> AbstractAsyncContextManager[SentQueue]:
    """The store of `config.mode`, to be used in `async with`: SQLite in the data folder, or Redis. Raises LinkDown when
    it can not be reached within REACH_S_MAX.

    `register` is the embedded node's own; without it, and from another process, appends answer without seats. The
    imports are inside because each mode needs only one of them.
    """
    return _redis_store(config) if config.mode == "cluster" else _sqlite_store(config, register)


def open_register(config: ChatConfig) -> AbstractAsyncContextManager[Register] | None:
    """The register of a cluster, as open_store. None: an embedded one, which is in the memory of the chatd that runs."""
    return _redis_store(config) if config.mode == "cluster" else None


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
async def _redis_store(config: ChatConfig, *, is_accepting: bool = False) -> AsyncIterator[RedisStore]:
    from brokerd.links.redis import RedisStore
    from brokerd.links.resp import Ask, RespLink
    from brokerd.links.store_identity import RabbitWitness, StoreIdentity

    identity = StoreIdentity(RabbitWitness(config.rabbit.url, config.prefix))

    async def check(ask: Ask) -> None:
        try:
            async with asyncio.timeout(REACH_S_MAX / 2):
                await identity.check(ask)
        except StoreChanged:
            if not is_accepting:
                raise
        except (LinkDown, TimeoutError):
            return  # without RabbitMQ nobody can say: what was asked for here can still be done

    link = RespLink(config.redis.url, name="chatctl", check=check, wait_replicas=config.redis.wait_replicas)
    async with _running(link):
        yield RedisStore(
            link,
            log=structlog.get_logger(),
            count_max=config.queue.count_max,
            bytes_max=config.queue.bytes_max,
            retention_s=config.queue.retention_s,
        )


@asynccontextmanager
async def _running(link: RespLink) -> AsyncIterator[RespLink]:
    """The link, while the block lasts."""
    # Not a TaskGroup: it would wrap what the caller's body raises into an ExceptionGroup.
    running = asyncio.create_task(link.run())
    try:
        async with asyncio.timeout(REACH_S_MAX):
            await link.wait_ready()
        yield link
    except TimeoutError:
        await link.pipeline([])  # raises LinkDown with the reason
        raise
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


class Records(NamedTuple):
    """What support looks into, beside the sent_queues."""

    traces: Traces
    memory: Memory


@asynccontextmanager
async def open_records(config: ChatConfig) -> AsyncIterator[Records]:
    """The traces and the dedupe of `config.mode`, to be used in `async with`. Raises LinkDown."""
    bounds = {"messages_max": config.traces.messages_max, "keep_s": config.traces.keep_s}
    if config.mode == "cluster":
        from brokerd.links.redis_memory import RedisMemory
        from brokerd.links.redis_traces import RedisTraces
        from brokerd.links.resp import RespLink

        async with _running(RespLink(config.redis.url, name="chatctl")) as link:
            yield Records(RedisTraces(link, **bounds), RedisMemory(link))
    else:
        from brokerd.links.sqlite_memory import SqliteMemory
        from brokerd.links.sqlite_traces import SqliteTraces

        config.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        async with SqliteTraces(config.traces_file, **bounds) as traces:
            yield Records(traces, SqliteMemory(config.store_file))


def open_dead_letters(config: ChatConfig) -> DeadLetters:
    """The dead letters of `config.mode`."""
    if config.mode == "cluster":
        from brokerd.links.amqp import Topology
        from brokerd.links.amqp_dead_letters import RabbitDeadLetters

        topology = Topology(config.prefix, quorum_size=config.rabbit.quorum_size)
        return RabbitDeadLetters(config.rabbit.url, topology, config.shards)
    from brokerd.links.dead_letters import FileDeadLetters

    return FileDeadLetters(config.dead_letters_file)


def waiting_returns(config: ChatConfig) -> int:
    """How many letters were put back and not yet taken by the server: none in a cluster, whose shards are RabbitMQ's."""
    if config.mode == "cluster":
        return 0
    from brokerd.links.dead_letters import in_tray, tray_of

    return len(in_tray(tray_of(config.dead_letters_file)))


async def accept_store(config: ChatConfig, users: Iterable[str]) -> None:
    """Take the store that is there for the right one from now on, with `users` known in it. Raises LinkDown.

    The users come first, for what was accepted for them is worked off at once. Every queue begins another life, for the
    store may be an older copy: devices begin anew where it says, instead of taking later messages for seen.
    """
    is_cluster = config.mode == "cluster"
    async with _redis_store(config, is_accepting=True) if is_cluster else _sqlite_store(config, None) as store:
        for user in users:
            await store.create_user(user, os.urandom(GENERATION_BYTES), time.time_ns() // 1_000_000)
    if is_cluster:
        from brokerd.links.redis_renewal import renew_queues
        from brokerd.links.resp import RespLink
        from brokerd.links.store_identity import RabbitWitness, accept

        async with _running(
            RespLink(config.redis.url, name="chatctl", wait_replicas=config.redis.wait_replicas)
        ) as link:
            await renew_queues(link)
            await accept(link, RabbitWitness(config.rabbit.url, config.prefix))
    else:
        from brokerd.links.sqlite_identity import SqliteIdentity

        SqliteIdentity(config.store_file).accept()


def back_up(config: ChatConfig, folder: Path) -> None:
    """Copy the embedded store and its traces into a folder, each as it is at one moment while a chatd works on it. Raises
    LinkDown."""
    from brokerd.links.sqlite_backup import back_up_file, back_up_store

    back_up_store(config.store_file, folder / config.store_file.name)
    if config.traces_file.exists():
        back_up_file(config.traces_file, folder / config.traces_file.name)
