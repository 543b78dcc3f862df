"""A cluster that a test hurt is made whole again."""

from __future__ import annotations

import asyncio
import signal

from bench.cluster import Cluster
from tests.faults.talk import wait_ready


async def mend(cluster: Cluster) -> None:
    """Every process runs and is not frozen, and every node serves."""
    daemons = (*cluster.brokers, *cluster.nodes)
    for daemon in daemons:
        if daemon.is_running:
            daemon.signal(signal.SIGCONT)
    if not cluster.redis.is_running:
        await asyncio.to_thread(cluster.redis.start)
    if not cluster.rabbit.is_running:
        await cluster.rabbit.start_soon()
    for daemon in daemons:
        if not daemon.is_running:
            await daemon.restart()
    for node in cluster.nodes:
        await wait_ready(node)
