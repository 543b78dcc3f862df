"""A node of a cluster: RabbitMQ and Redis behind the ports, brokerd in processes of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from brokerd.links.amqp import RabbitInbound, RabbitLink, RabbitNodeInbox, RabbitNodes, Topology
from brokerd.links.redis import RedisStore
from brokerd.links.redis_traces import RedisTraces
from brokerd.links.redis_watch import RedisWatch
from brokerd.links.resp import RespLink
from brokerd.links.store_identity import RabbitWitness, StoreIdentity
from brokerd.tracing import HopBuffer, Sample
from chatd.config import ChatConfig
from chatd.node import Links

# At 5,000 messages a second on two cores, everything on them, with 8 shards: p50 24 to 9 ms, p99 58 to 19 ms (with 4 ms: 8 and 19;
# with 8 ms: 17 and 33), 325 to 251 µs of all servers' CPU each. At 1,000 a second there is no pace, and p50 is 2 ms.
PACE_S: Final = 0.005


@asynccontextmanager
async def cluster_links(config: ChatConfig, log: Any) -> AsyncIterator[Links]:
    """The links of a node. They connect by themselves, now and after every loss; nothing here waits for a peer."""
    publishing = RabbitLink(config.rabbit.url, f"{config.node} out")
    consuming = RabbitLink(config.rabbit.url, f"{config.node} in")
    topology = Topology(config.prefix, quorum_size=config.rabbit.quorum_size)
    inbound = RabbitInbound(publishing, config.shards, topology)
    nodes = RabbitNodes(publishing, topology)
    inbox = RabbitNodeInbox(consuming, topology)
    identity = StoreIdentity(RabbitWitness(config.rabbit.url, config.prefix), log)
    redis = RespLink(config.redis.url, name=config.node, check=identity.check, wait_replicas=config.redis.wait_replicas)
    store = RedisStore(
        redis,
        log=log,
        count_max=config.queue.count_max,
        bytes_max=config.queue.bytes_max,
        retention_s=config.queue.retention_s,
    )
    hops = HopBuffer(RedisTraces(redis, messages_max=config.traces.messages_max, keep_s=config.traces.keep_s), log)
    watch = RedisWatch(redis, log)

    def health() -> dict[str, str]:
        return {
            "rabbitmq": publishing.state if publishing.state != "up" else consuming.state,
            "redis": redis.state if redis.state != "up" else watch.state,
        }

    async with asyncio.TaskGroup() as tasks:
        redis_task, hops_task, watch_task = (tasks.create_task(it.run()) for it in (redis, hops, watch))
        for link in (publishing, consuming):
            tasks.create_task(link.run())
        yield Links(
            inbound=inbound,
            nodes=nodes,
            inbox=inbox,
            sent_queue=store,
            register=store,
            shards=config.shards,
            entrance=store,
            health=health,
            store_fault=lambda: redis.changed,
            store_full=lambda: watch.full,
            statistics={
                "rabbitmq": publishing.statistics,
                "rabbitmq_in": consuming.statistics,
                "inbound": inbound.statistics,
                "nodes": nodes.statistics,
                "inbox": inbox.statistics,
                "redis": redis.statistics,
                "traces": hops.statistics,
            },
            sample=Sample(config.traces.one_in),
            hops=hops,
            pace_s=PACE_S,
        )
        await publishing.close()
        await consuming.close()
        hops_task.cancel()
        watch_task.cancel()
        await hops.flush()
        redis_task.cancel()
