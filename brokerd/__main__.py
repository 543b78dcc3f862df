"""`brokerd`: read the configuration, connect to RabbitMQ and Redis, work off the shards."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any
from uuid import uuid4

import structlog

from brokerd.broker import Broker
from brokerd.care import Care
from brokerd.config import BrokerConfig, load
from brokerd.daemon import run_daemon
from brokerd.health_port import health_port
from brokerd.links.amqp import RabbitInbound, RabbitLink, RabbitNodes, RabbitShards, Topology
from brokerd.links.redis import RedisStore
from brokerd.links.redis_brokers import RedisBrokers
from brokerd.links.redis_traces import RedisTraces
from brokerd.links.resp import RespLink
from brokerd.links.store_identity import RabbitWitness, StoreIdentity
from brokerd.logs import Logs, logging_to
from brokerd.metrics import Metrics, health_of
from brokerd.notify import ServiceManager
from brokerd.pulse import Lag, raise_file_limit, supervised
from brokerd.sharing import LEASE_S, share_shards
from brokerd.sweeper import Sweeper
from brokerd.tracer import BrokerTracer
from brokerd.tracing import HopBuffer, Sample


def main() -> int:
    """The console script."""
    config = load()
    manager = ServiceManager()
    with logging_to(config.log, service="brokerd", broker=config.name) as logs:
        return run_daemon(lambda stop: serve(config, stop, manager, logs))


def now_ms() -> int:
    """Wall clock, for expiry and time stamps."""
    return time.time_ns() // 1_000_000


def _redis_parts(config: BrokerConfig, log: Any) -> tuple[RespLink, RedisStore, RedisTraces]:
    identity = StoreIdentity(RabbitWitness(config.rabbit.url, config.prefix), log)
    redis = RespLink(config.redis.url, name=config.name, check=identity.check, wait_replicas=config.redis.wait_replicas)
    store = RedisStore(
        redis,
        log=log,
        count_max=config.queue.count_max,
        bytes_max=config.queue.bytes_max,
        retention_s=config.queue.retention_s,
    )
    return redis, store, RedisTraces(redis, messages_max=config.traces.messages_max, keep_s=config.traces.keep_s)


async def serve(config: BrokerConfig, stop: asyncio.Event, manager: ServiceManager, logs: Logs) -> None:
    """One brokerd, until `stop`. What it was working on is not acknowledged, so another one takes it over."""
    log = structlog.get_logger()
    raise_file_limit(0, log)
    publishing = RabbitLink(config.rabbit.url, f"{config.name} out")
    consuming = RabbitLink(config.rabbit.url, f"{config.name} in")
    topology = Topology(config.prefix, quorum_size=config.rabbit.quorum_size)
    inbound = RabbitInbound(publishing, config.shards, topology)
    source = RabbitShards(consuming, inbound, topology, prefetch_max=config.batch.prefetch_max)
    nodes = RabbitNodes(publishing, topology)
    redis, store, traces = _redis_parts(config, log)
    hops = HopBuffer(traces, log)
    tracer = BrokerTracer(config.name, Sample(config.traces.one_in), hops, now_ms, log)
    broker = Broker(
        config.name, config.shards, inbound=inbound, source=source, nodes=nodes, sent_queue=store, register=store,
        clock_ms=now_ms, log=log, tracer=tracer,
    )  # fmt: skip
    brokers = RedisBrokers(redis, f"{config.name}:{uuid4().hex}", LEASE_S)
    sweeper = Sweeper(config.name, config.shards, inbound, store, now_ms, log)

    def parts() -> dict[str, str]:
        is_linked = publishing.is_ready and consuming.is_ready
        return {"redis": redis.state, "rabbitmq": "up" if is_linked else "not connected"}

    async def work_off() -> None:
        await redis.wait_ready()  # before a batch is taken: or it would be held without being worked off
        sys.stdout.write(f"brokerd {config.name} is ready\n")
        sys.stdout.flush()
        async with asyncio.TaskGroup() as beside:
            sharing = share_shards(brokers.count, source.give_up_some, log)
            for each in (broker.run(), sweeper.run(), hops.run(), sharing):
                beside.create_task(each)

    lag = Lag()
    metrics = Metrics(
        {
            "broker": broker.samples, "shards": source.statistics, "inbound": inbound.statistics, "nodes": nodes.statistics,
            "rabbitmq": publishing.statistics, "rabbitmq_in": consuming.statistics, "redis": redis.statistics,
            "traces": hops.statistics, "loop": lag.statistics, "parts": health_of(parts),
        }
    )  # fmt: skip
    care = Care(config, broker, parts, logs, log)
    health = health_port(config.http.host, config.http.port, metrics, parts)
    async with supervised(care, stop, manager, log, lag), health, asyncio.TaskGroup() as tasks:
        for link in (publishing, consuming):
            tasks.create_task(link.run())
        redis_task = tasks.create_task(redis.run())
        work = [tasks.create_task(work_off())]
        manager.ready()  # Redis may be away for hours: STATUS says so, and a boot does not wait for it
        await stop.wait()
        await consuming.close()  # no more batches; what is in flight comes again, and is told apart as a repeat
        for task in work:
            task.cancel()
        await publishing.close()
        await hops.flush()
        redis_task.cancel()
    log.info("broker_stopped", **broker.statistics(), traces=hops.statistics())


if __name__ == "__main__":
    sys.exit(main())
