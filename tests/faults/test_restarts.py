"""Each part of a cluster is killed between two messages of a conversation, and in the middle of one: it goes on by
itself, nothing is lost, doubled or out of order, and every receipt comes (promises 1 to 6, 10, 11, 13)."""

from __future__ import annotations

import asyncio

import pytest

from bench.cluster import Cluster
from tests.faults.rabbit_daemon import delete_queue
from tests.faults.talk import talking, wait_ready

LINES = 60
SHARDS = 8

pytestmark = pytest.mark.timeout(150)


@pytest.mark.parametrize("side", ["sender", "receiver"])
async def test_a_chatd_is_killed_and_started_again(cluster: Cluster, side: str) -> None:
    ann_node, bob_node = cluster.nodes
    async with talking(ann_node, bob_node) as talk:
        await talk.say(LINES)
        node = ann_node if side == "sender" else bob_node
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(talk.say(LINES))
            node.kill9()
            await node.restart()
        await talk.say(LINES)
        await talk.wait_all_heard()


async def test_each_brokerd_is_killed_in_turn(cluster: Cluster) -> None:
    async with talking(*cluster.nodes) as talk:
        for broker in cluster.brokers:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(talk.say(LINES))
                broker.kill9()
                await broker.restart()
            await talk.say(LINES)
        await talk.wait_all_heard()


async def test_without_any_brokerd_messages_are_accepted_and_wait(cluster: Cluster) -> None:
    async with talking(*cluster.nodes) as talk:
        await talk.say(1)
        await talk.wait_all_heard()
        for broker in cluster.brokers:
            broker.kill9()
        await talk.say(LINES)  # accepted: it is in RabbitMQ
        assert len(talk.heard) == 1
        for broker in cluster.brokers:
            await broker.restart()
        await talk.wait_all_heard()


async def test_redis_is_killed_and_started_again_and_meanwhile_messages_are_accepted(cluster: Cluster) -> None:
    async with talking(*cluster.nodes) as talk:
        await talk.say(LINES)
        cluster.redis.kill9()
        await wait_ready(cluster.nodes[0], not_up="redis")
        await talk.say(LINES)  # Redis down is delay, not loss
        await asyncio.to_thread(cluster.redis.start)
        await wait_ready(cluster.nodes[0])
        await talk.say(LINES)
        await talk.wait_all_heard()


async def test_f04_rabbitmq_is_killed_and_started_again_in_the_middle_of_a_conversation(cluster: Cluster) -> None:
    async with talking(*cluster.nodes) as talk:
        await talk.say(LINES)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(talk.say(LINES))
            cluster.rabbit.kill9()
            await wait_ready(cluster.nodes[0], not_up="rabbitmq")
            tasks.create_task(talk.say(LINES))  # BUSY until it is back; the client sends it again
            await cluster.rabbit.start_soon()
        for node in cluster.nodes:
            await wait_ready(node)
        await talk.say(LINES)
        await talk.wait_all_heard()


async def test_f09_shards_that_are_deleted_under_two_brokerd_leave_neither_of_them_idle(cluster: Cluster) -> None:
    async with talking(*cluster.nodes) as talk:
        await talk.say(LINES)
        await talk.wait_all_heard()
        await quiet(cluster)
        for shard in range(SHARDS):  # both are told that their consumers are cancelled
            await delete_queue(cluster.rabbit.url, f"chat.in.{shard}")
        await talk.say(LINES)
        await talk.wait_all_heard()
        for broker in cluster.brokers:  # each is left alone once: it must consume every shard
            broker.kill9()
            await talk.say(LINES)
            await talk.wait_all_heard()
            await broker.restart()


async def quiet(cluster: Cluster) -> None:
    """Until no shard holds anything."""
    async with asyncio.timeout(30):
        while True:
            said = await asyncio.to_thread(cluster.rabbit.ctl, "-q", "list_queues", "name", "messages")
            rows = [line.split() for line in said.splitlines()]
            if all(row[1] == "0" for row in rows if ".in." in row[0]):
                return
