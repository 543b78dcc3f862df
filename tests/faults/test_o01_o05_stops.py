"""O01: SIGTERM under load drains a daemon. O05: a rolling restart under load loses nothing and doubles nothing; how long a
device is away and how the logins are spread have bounds (`make rolling` has the table)."""

from __future__ import annotations

import asyncio
import time

import pytest

from bench.cluster import Cluster
from tests.chaos.crowd import Habits
from tests.faults.talk import talking, wait_ready
from tests.rolling.run import roll

LINES = 60
DRAIN_S_MAX = 10.0  # the standard of drain_s_max
SLACK_S = 8.0  # behind the drain HTTP and sockets may take 2 x 3 s more, on a crowded machine
ABSENCE_S_MAX = 5.0  # on a crowded machine; alone it is some 100 ms
CROWD = Habits(users=24, messages_per_s=80.0)

pytestmark = pytest.mark.timeout(150)


@pytest.mark.parametrize("side", ["sender", "receiver"])
async def test_o01_sigterm_under_load_drains_a_node_in_time_and_loses_nothing(cluster: Cluster, side: str) -> None:
    ann_node, bob_node = cluster.nodes
    node = ann_node if side == "sender" else bob_node
    said_before = node.log_path.stat().st_size  # other tests took its servers away
    async with talking(ann_node, bob_node) as talk:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(5):
                tasks.create_task(talk.say(LINES))
            begun_s = time.monotonic()
            assert await asyncio.to_thread(node.stop) == 0
            assert time.monotonic() - begun_s < DRAIN_S_MAX + SLACK_S
            name = talk.ann_name if side == "sender" else talk.bob_name
            assert cluster.redis.command("HLEN", f"u:{{{name}}}:r").strip() == b":0", "it left the register"
            assert cluster.redis.command("KEYS", f"n:{{{node.env['CHATD_NODE']}:*").strip() == b"*0", "and its lease"
            await node.restart()
        await talk.wait_all_heard()
    said = node.log_path.read_bytes()[said_before:].decode()
    assert '"node_stopped"' in said
    assert "_failed" not in said


async def test_o01_sigterm_under_load_ends_a_brokerd_at_once_and_loses_nothing(cluster: Cluster) -> None:
    async with talking(*cluster.nodes) as talk:
        for broker in cluster.brokers:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(talk.say(LINES))
                assert await asyncio.to_thread(broker.stop) == 0
                await broker.restart()
        await talk.wait_all_heard()


async def test_o05_a_rolling_restart_loses_and_doubles_nothing(cluster: Cluster) -> None:
    for node in cluster.nodes:
        await wait_ready(node)
    outcome = await roll(cluster, CROWD, seed=5)
    assert not outcome.breaches, outcome.table()
    assert not outcome.unfinished, outcome.table()
    assert [step.exit_code for step in outcome.steps] == [0] * len(outcome.steps)
    assert any(step.moved for step in outcome.steps), "or nobody was met"
    assert max(step.absence_s_max for step in outcome.steps) < ABSENCE_S_MAX, outcome.table()
    # the jitter of GOAWAY's window: the devices of a node do not come back all at once
    assert all(step.peak <= max(6, step.moved / 2) for step in outcome.steps), outcome.table()
