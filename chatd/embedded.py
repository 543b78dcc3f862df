"""One process alone: the same node and the same broker on in-process links and an SQLite file. No Redis, no RabbitMQ.

A composition, not a branch: this file and cluster.py are the only ones that name what stands behind the ports.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from brokerd.broker import Broker
from brokerd.daemon import StartFailed
from brokerd.links.dead_letters import ReturnTray
from brokerd.links.memory import MemoryNodes, MemoryQueue, MemoryRegister
from brokerd.links.sqlite import SqliteSentQueue
from brokerd.links.sqlite_identity import SqliteIdentity
from brokerd.links.sqlite_traces import SqliteTraces
from brokerd.ports import LinkDown
from brokerd.sweeper import Sweeper
from brokerd.tracer import BrokerTracer
from brokerd.tracing import HopBuffer, Sample
from chatd.config import ChatConfig
from chatd.node import Links
from protocol.envelope import Batch

# There is one brokerd to work them off, and a round takes what is there of all of them. Eight shards cut it into eight batches,
# of two messages each at 5,000 messages a second.
SHARDS: Final = 1


class _OneShard:
    """Inbound for letters of a time when there were more, which are in the dead letters with their shard."""

    def __init__(self, queue: MemoryQueue) -> None:
        self._queue = queue

    @property
    def is_ready(self) -> bool:
        """See Inbound."""
        return self._queue.is_ready

    def post(self, _shard: int, batch: Batch) -> asyncio.Future[None]:
        """See Inbound."""
        return self._queue.post(0, batch)


@asynccontextmanager
async def embedded_links(config: ChatConfig, now_ms: Callable[[], int], log: Any) -> AsyncIterator[Links]:
    """The links of a node whose back room runs beside it; the back room ends last."""
    config.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    register = MemoryRegister()
    queue = MemoryQueue(dead_letters_path=config.dead_letters_file)
    nodes = MemoryNodes()
    store = SqliteSentQueue(
        config.store_file,
        register=register,
        count_max=config.queue.count_max,
        bytes_max=config.queue.bytes_max,
        retention_s=config.queue.retention_s,
    )
    traces = SqliteTraces(config.traces_file, messages_max=config.traces.messages_max, keep_s=config.traces.keep_s)
    sample, hops = Sample(config.traces.one_in), HopBuffer(traces, log)
    identity = SqliteIdentity(config.store_file)
    try:
        identity.check()
    except LinkDown as fault:
        raise StartFailed(str(fault)) from None
    async with store, traces:
        identity.claim()
        broker = Broker(
            "embedded", SHARDS, inbound=queue.reserve(), source=queue, nodes=nodes, sent_queue=store, register=register,
            clock_ms=now_ms, log=log, tracer=BrokerTracer("embedded", sample, hops, now_ms, log),
        )  # fmt: skip
        tray = ReturnTray(config.dead_letters_file, config.shards, _OneShard(queue), log)
        async with asyncio.TaskGroup() as tasks:
            back_room = [
                tasks.create_task(broker.run()),
                tasks.create_task(Sweeper("embedded", SHARDS, queue, store, now_ms, log).run()),
                tasks.create_task(hops.run()),
                tasks.create_task(tray.run()),
                tasks.create_task(store.watch()),
            ]
            yield Links(
                inbound=queue,
                nodes=nodes,
                inbox=nodes,
                sent_queue=store,
                register=register,
                shards=SHARDS,
                health=lambda: {
                    "queue": "up" if queue.is_ready else "full",
                    "store": identity.fault() or store.trouble or "up",
                },
                store_fault=identity.fault,
                store_full=lambda: store.trouble,
                statistics={
                    "broker": broker.samples,
                    "queue": queue.statistics,
                    "store": lambda: store.statistics()._asdict(),
                    "traces": hops.statistics,
                },
                sample=sample,
                hops=hops,
            )
            for task in back_room:
                task.cancel()
        await hops.flush()
