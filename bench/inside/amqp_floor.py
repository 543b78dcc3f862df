"""The cluster's floor: publish, consume and confirm batches on RabbitMQ's queues, and nothing else.

On the same queues (quorum, as many as there are shards) and by the same way as the daemons: aiormq connects and declares,
brokerd's lean path publishes and consumes. What the cluster takes above this is what the walk costs.

    python -m bench.inside.amqp_floor throughput --url … --batch 300 --in-flight 3200
    python -m bench.inside.amqp_floor latency --url … --rate 1000

One line of JSON comes out, in the shape of the other scenarios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import struct
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import structlog
import uvloop
from hdrh.histogram import HdrHistogram

from bench.book import LATENCY_US_MAX, percentiles
from bench.meter import Meter, server_cpu_us
from bench.pace import Pace, wait_until
from brokerd.links.amqp import RabbitInbound, RabbitLink, RabbitShards, Topology
from brokerd.ports import Delivery
from protocol.envelope import packed

SHARDS: Final = 8
ENTRY_BYTES: Final = 60  # about what an entry carries beside its payload: names, id, time, origin
DRAIN_S_MAX: Final = 20.0
FULL_S: Final = 0.001  # until the next look whether there is room again
_NUMBER: Final = struct.Struct(">Q")


class Ends:
    """Both ends of the queues."""

    def __init__(self, inbound: RabbitInbound, source: RabbitShards) -> None:
        self.inbound, self.source = inbound, source

    async def consume(self, take: Callable[[Delivery], None]) -> None:
        """Every shard."""
        for shard in range(SHARDS):
            await self.source.consume(shard, take)


@asynccontextmanager
async def connected(url: str, queue_type: str) -> AsyncIterator[Ends]:
    """Connections of their own for publishing and for consuming, as a daemon has; the queues go at the end."""
    publishing, consuming = RabbitLink(url, "floor out"), RabbitLink(url, "floor in")
    topology = Topology(f"floor{time.time_ns()}", queue_type=queue_type)
    inbound = RabbitInbound(publishing, SHARDS, topology)
    ends = Ends(inbound, RabbitShards(consuming, inbound, topology))
    async with asyncio.TaskGroup() as tasks:
        for link in (publishing, consuming):
            tasks.create_task(link.run())
        await publishing.wait_ready()
        await consuming.wait_ready()
        yield ends
        await consuming.close()
        await publishing.close()


async def throughput(options: argparse.Namespace, ends: Ends, meter: Meter) -> dict[str, Any]:
    """Batches in flight up to a bound; a new one leaves when one is both confirmed and consumed."""
    body = bytes(options.batch * (options.payload + ENTRY_BYTES))
    free = asyncio.Semaphore(max(SHARDS, options.in_flight // options.batch))
    consumed = confirmed = sent = 0
    halves: dict[int, int] = dict.fromkeys(range(SHARDS), 0)  # by shard: consumed minus confirmed, in its order

    def half(shard: int, step: int) -> None:
        before = halves[shard]
        halves[shard] = before + step
        if abs(before + step) < abs(before):  # the other half of this batch was there already
            free.release()

    def take(delivery: Delivery) -> None:
        nonlocal consumed
        consumed += 1
        delivery.done()
        half(delivery.shard, 1)

    await ends.consume(take)

    def post(shard: int) -> None:
        nonlocal sent
        sent += 1

        def done(future: asyncio.Future[None]) -> None:
            nonlocal confirmed
            future.result()
            confirmed += 1
            half(shard, -1)

        ends.inbound.post(shard, body).add_done_callback(done)

    start_s = time.monotonic()
    begin_s, end_s = start_s + options.warmup, start_s + options.warmup + options.seconds
    before = 0
    while (now_s := time.monotonic()) < end_s:
        if not meter.is_running and now_s >= begin_s:
            before, begin_s = consumed, now_s
            meter.start()
        await free.acquire()
        post(sent % SHARDS)
    messages = (consumed - before) * options.batch
    rate = messages / (time.monotonic() - begin_s)
    processes = meter.stop(messages)
    await wait_until(lambda: consumed >= sent and confirmed >= sent, DRAIN_S_MAX)
    lost = (sent - consumed) * options.batch
    return {"delivered_per_s": round(rate, 1), "batch": options.batch, "lost": lost, **told(processes)}


async def latency(options: argparse.Namespace, ends: Ends, meter: Meter) -> dict[str, Any]:
    """Messages at an even pace, round the shards; what is due together for a shard leaves as one batch."""
    accepted, delivered = HdrHistogram(1, LATENCY_US_MAX, 3), HdrHistogram(1, LATENCY_US_MAX, 3)
    meant: list[float] = []
    item_bytes = options.payload + ENTRY_BYTES
    pad = bytes(item_bytes - _NUMBER.size)
    consumed = 0
    from_s = 0.0

    def note(histogram: HdrHistogram, number: int, now_s: float) -> None:
        if meant[number] >= from_s:
            histogram.record_value(max(1, int((now_s - meant[number]) * 1e6)))

    def take(delivery: Delivery) -> None:
        nonlocal consumed
        now_s, body = time.monotonic(), packed(delivery.body)
        for at in range(0, len(body), item_bytes):
            note(delivered, _NUMBER.unpack_from(body, at)[0], now_s)
            consumed += 1
        delivery.done()

    await ends.consume(take)
    piles: dict[int, list[int]] = {}

    def flush() -> None:
        for shard in list(piles):
            if not ends.inbound.is_ready:  # too much unconfirmed: what waits is late, and counted so
                loop.call_later(FULL_S, flush)
                return
            numbers = piles.pop(shard)
            body = b"".join([_NUMBER.pack(number) + pad for number in numbers])
            ends.inbound.post(shard, body).add_done_callback(partial(confirmed, numbers))

    def confirmed(numbers: list[int], _: asyncio.Future[None]) -> None:
        now_s = time.monotonic()
        for number in numbers:
            note(accepted, number, now_s)

    pace = Pace(options.rate, options.warmup + options.seconds)
    from_s = pace.start_s + options.warmup
    before = 0
    loop = asyncio.get_running_loop()
    async for number, meant_s in pace.times():
        if not meter.is_running and meant_s >= from_s:
            before = consumed
            meter.start()
        meant.append(meant_s)
        if not piles:
            loop.call_soon(flush)
        piles.setdefault(number % SHARDS, []).append(number)
    await wait_until(lambda: consumed >= len(meant), DRAIN_S_MAX)
    processes = meter.stop(consumed - before)
    return {
        "rate": options.rate,
        "accepted_ms": percentiles(accepted),
        "delivered_ms": percentiles(delivered),
        "late_ms": percentiles(pace.late),
        "lost": len(meant) - consumed,
        **told(processes),
    }


def told(processes: dict[str, dict[str, float]]) -> dict[str, Any]:
    """The counts that every scenario has."""
    cpu_us = round(server_cpu_us(processes), 3)
    return {
        "processes": processes, "server_cpu_us": cpu_us, "own_cpu_us": 0.0, "duplicates": 0, "misordered": 0,
        "errors": [],
    }  # fmt: skip


async def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser("amqp_floor")
    parser.add_argument("work", choices=("throughput", "latency"))
    parser.add_argument("--url", required=True)
    parser.add_argument("--pid", type=int, required=True, help="RabbitMQ's")
    parser.add_argument("--queue-type", default="quorum")
    parser.add_argument("--batch", type=int, default=256, help="messages in an AMQP message")
    parser.add_argument("--in-flight", type=int, default=3200, help="messages on their way")
    parser.add_argument("--payload", type=int, default=100)
    parser.add_argument("--rate", type=float, default=1000)
    parser.add_argument("--warmup", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    quiet = structlog.make_filtering_bound_logger(logging.WARNING)
    structlog.configure(wrapper_class=quiet, logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    work = throughput if options.work == "throughput" else latency
    async with connected(options.url, options.queue_type) as ends:
        result = await work(options, ends, Meter({"rabbitmq": options.pid}))
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(uvloop.run(main()))
