"""F17: acknowledging out of order, and two brokers on one shard: the order of the posts holds, whoever dies."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from bench.cluster import Cluster
from bench.rabbit_server import RabbitServer
from brokerd.links.amqp import RabbitShards
from tests.chaos.network import Door
from tests.faults.crashing import talk_meanwhile
from tests.faults.rabbit_daemon import Taken, rabbit_daemon, until, within
from tests.faults.talk import talking
from tests.rabbit_links import linked_rabbit

BATCHES = [b"%d" % number for number in range(1, 11)]
KILLS = 3


@pytest.mark.parametrize(("finished", "acked"), [((2, 4, 6), 0), ((1, 2, 3, 5, 9), 3), ((3, 2, 1), 3), ((10, 9), 0)])
async def test_f17_a_broker_that_finishes_out_of_order_and_dies_leaves_no_hole_to_the_next(
    rabbit_server: RabbitServer, finished: tuple[int, ...], acked: int
) -> None:
    dying, heir = Taken(finishes=False), Taken()
    door = Door(rabbit_server.port)
    await door.open()
    async with (
        rabbit_daemon(rabbit_server.url, consuming_url=f"amqp://guest:guest@127.0.0.1:{door.port}/") as first,
        linked_rabbit(rabbit_server.url, "heir") as link,
    ):
        await within(first.shards.consume(0, dying))
        for batch in BATCHES:
            first.inbound.post(0, batch)
        await until(lambda: dying.bodies == BATCHES)
        for number in finished:
            dying.held[number - 1].done()
        await until(lambda: first.shards.statistics()["ack_frames"] >= (acked > 0))
        second = RabbitShards(link, first.inbound, first.topology)
        await within(second.consume(0, heir))
        door.close()
        await until(lambda: len(heir.bodies) >= len(BATCHES) - acked)
        assert heir.bodies == BATCHES[acked:]


async def test_f17_of_two_brokers_on_a_shard_one_is_active_and_the_order_holds_when_it_is_killed(
    cluster: Cluster,
) -> None:
    said = cluster.rabbit.ctl("-q", "list_consumers", "queue_name", "active")
    rows = [line.split() for line in said.splitlines() if ".in." in line]
    assert Counter(queue for queue, _ in rows) == {queue: len(cluster.brokers) for queue, _ in rows}
    assert Counter(queue for queue, active in rows if active == "true") == {queue: 1 for queue, _ in rows}
    async with talking(*cluster.nodes) as talk:
        async with talk_meanwhile(talk):
            for number in range(KILLS):  # from the second on it is the active one: the other was the last to come
                victim = cluster.brokers[number % len(cluster.brokers)]
                await asyncio.to_thread(victim.kill9)
                await victim.restart()
        await talk.wait_all_heard()
