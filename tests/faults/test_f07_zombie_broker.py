"""F07: a brokerd stands still with work in its hands, is taken for dead, another one takes over, and it goes on as if nothing
had been: what it hands over late and acknowledges late does no harm."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from bench.cluster import Cluster
from tests.faults.frozen import frozen, heartbeats_over, taken_for_dead
from tests.faults.sampling import IS_LONG
from tests.faults.talk import talking

LINES = 40
TAKEN_S_MAX = 30.0

pytestmark = pytest.mark.timeout(600 if IS_LONG else 150)


async def test_f07_a_brokerd_that_comes_back_from_the_dead_does_no_harm(cluster: Cluster) -> None:
    async with talking(*cluster.nodes) as talk:
        await talk.say(LINES)
        for broker in cluster.brokers:  # behind the first turn, the second one has every shard
            await talk.wait_all_heard()
            os.kill(cluster.redis.pid, signal.SIGSTOP)
            try:
                await talk.say(LINES)
                await unacknowledged(cluster)  # its appends are in the socket of Redis, and it waits for the answers
                broker.signal(signal.SIGSTOP)
            finally:
                os.kill(cluster.redis.pid, signal.SIGCONT)  # now they are carried out, and the answers wait for it
            async with frozen(broker):
                await (heartbeats_over if IS_LONG else taken_for_dead)(cluster.rabbit, broker.env["BROKERD_NAME"])
                await talk.say(LINES)
                await talk.wait_all_heard()
            await talk.say(LINES)
            await talk.wait_all_heard()


async def unacknowledged(cluster: Cluster) -> None:
    """Until some brokerd holds batches."""
    async with asyncio.timeout(TAKEN_S_MAX):
        while True:
            said = await asyncio.to_thread(cluster.rabbit.ctl, "-q", "list_queues", "name", "messages_unacknowledged")
            rows = [line.split() for line in said.splitlines()]
            if any(row[1].isdigit() and int(row[1]) for row in rows if ".in." in row[0]):
                return
