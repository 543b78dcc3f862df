"""How much goes through: pairs of senders and receivers, a window of unaccepted messages each, everything acknowledged."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from bench.book import Book
from bench.crowd import Crowd, Receives, Sends, Target
from bench.meter import Meter, own_cpu_us, server_cpu_us
from bench.meter import rss_mib as rss_mib  # for who looks at a server from a test
from bench.plan import Scenario
from bench.swarm import Receiver, Sender


async def run(plan: Scenario, target: Target, names: str) -> dict[str, Any]:
    """Load the target. `names` begins the users' names: no two runs on the same servers share them."""
    loop = asyncio.get_running_loop()
    crowd = _crowd(plan, target, names)
    await crowd.join(target, plan.transport)
    meter, counters_before = Meter(target.pids), target.counters()
    for sender in crowd.senders:
        sender.begin()
    await asyncio.sleep(plan.warmup_s)
    meter.start()
    delivered_before, start_s = crowd.delivered, loop.time()
    await asyncio.sleep(plan.seconds)
    delivered, elapsed_s = crowd.delivered - delivered_before, loop.time() - start_s
    processes = meter.stop(delivered)
    for sender in crowd.senders:
        sender.is_sending = False
    drain_s = await crowd.drain()
    counters = difference(target.counters(), counters_before)
    verdict = crowd.judge()
    crowd.close()
    return {
        "delivered_per_s": round(delivered / elapsed_s, 1),
        "server_cpu_us": round(server_cpu_us(processes), 3),
        "own_cpu_us": round(own_cpu_us(processes), 3),
        "drain_s": round(drain_s, 3),
        "deliveries_per_read": round(verdict.delivered / max(1, sum(peer.reads for peer in crowd.devices)), 2),
        "per_message": per_message(counters, verdict.delivered),
        "processes": processes,
        **asdict(verdict),
    }


def _crowd(plan: Scenario, target: Target, names: str) -> Crowd:
    make = target.pairs or partial(_pair, target, int(time.time() * 1e6))
    return Crowd.of(plan, names, make, None)


def _pair(
    target: Target, cid: int, names: str, number: int, plan: Scenario, book: Book | None
) -> tuple[Sends, Sequence[Receives]]:
    to, user = f"{names}r{number}", f"{names}s{number}"
    sender = Sender(user, target.token(user), to, plan.payload_bytes, plan.window, cid)
    token, devices = target.token(to), range(plan.devices)
    return sender, [Receiver(to, token, plan.payload_bytes, f"bench{device}") for device in devices]


def difference(after: dict[str, float], before: dict[str, float]) -> dict[str, float]:
    """What was counted in between."""
    return {name: value - before.get(name, 0) for name, value in after.items() if value != before.get(name, 0)}


def per_message(counters: dict[str, float], messages: int) -> dict[str, float]:
    """What the servers counted, told for one message: operations, and how many posts or parcels shared one."""
    shares = {
        "posts_per_batch": ("chatd_postbox_posted_total", "chatd_postbox_batches_total"),
        "parcels_per_batch": ("chatd_node_parcels_total", "chatd_inbox_deliveries_total"),
        "posts_per_commit": ("chatd_store_ledger_entries_total", "chatd_store_commits_total"),
    }
    told = {
        name: counters[whole] / counters[parts]
        for name, (whole, parts) in shares.items()
        if counters.get(parts) and whole in counters
    }
    operations = {
        "amqp_publishes_by_chatd": ("chatd_inbound_publishes_total", "chatd_nodes_publishes_total"),
        "amqp_deliveries_to_chatd": ("chatd_inbox_deliveries_total",),
        "redis_commands": ("redis_commands",),
    }
    for name, parts in operations.items():
        count = sum(counters.get(part, 0) for part in parts)
        if count:
            told[name] = count / max(1, messages)
    return {name: round(value, 5) for name, value in told.items()}
