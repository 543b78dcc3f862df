"""Each part of a cluster is killed between two messages of a conversation, and in the middle of one: it goes on by
itself, nothing is lost, doubled or out of order, and every receipt comes (promises 1 to 6, 10, 11, 13)."""

from __future__ import annotations

import asyncio

import pytest

from bench.cluster import Cluster
from protocol.client import Client, Closed, Connected
from protocol.errors import Code
from protocol.messages import Deliver
from tests.faults.talk import HOST, quick, talking, wait_ready

LINES = 60

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


async def test_rabbitmq_is_killed_and_started_again(cluster: Cluster) -> None:
    async with talking(*cluster.nodes) as talk:
        await talk.say(LINES)
        cluster.rabbit.kill9()
        await wait_ready(cluster.nodes[0], not_up="rabbitmq")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(talk.say(LINES))  # BUSY until it is back; the client sends it again
            await cluster.rabbit.start_soon()
        for node in cluster.nodes:
            await wait_ready(node)
        await talk.say(LINES)
        await talk.wait_all_heard()


async def test_a_device_that_logs_in_on_another_node_ends_its_older_session_for_good(cluster: Cluster) -> None:
    first, second = cluster.nodes
    word = await asyncio.to_thread(first.add_user, "carol")
    states: asyncio.Queue[object] = asyncio.Queue()
    async with Client(
        HOST, first.tcp_port, "carol", "phone", password=word, backoff=quick(), on_state=states.put_nowait
    ) as older:
        await older.wait_connected()
        async with Client(HOST, second.tcp_port, "carol", "phone", password=word, backoff=quick()) as newer:
            await newer.wait_connected()
            async with asyncio.timeout(10):
                while not isinstance(state := await states.get(), Closed):
                    pass
            assert state.code == Code.REPLACED
            assert isinstance(newer.state, Connected)


async def test_what_was_handed_to_a_dead_node_is_delivered_where_its_user_logs_in_next(cluster: Cluster) -> None:
    first, second = cluster.nodes
    words = {name: await asyncio.to_thread(first.add_user, name) for name in ("dora", "emil")}
    async with Client(HOST, second.tcp_port, "emil", "phone", password=words["emil"], backoff=quick()) as emil:
        await emil.wait_connected()
        second.kill9()  # its register entry stays
        async with Client(HOST, first.tcp_port, "dora", "phone", password=words["dora"], backoff=quick()) as dora:
            ids = [await dora.send("emil", b"%d" % number) for number in range(3)]
    async with Client(HOST, first.tcp_port, "emil", "phone", password=words["emil"], backoff=quick()) as emil:
        async with asyncio.timeout(20):
            got = [await anext(emil) for _ in range(3)]
        assert [message.id for message in got if isinstance(message, Deliver)] == ids
    await second.restart()


async def test_sigterm_drains_a_node_and_its_clients_go_on_when_it_is_back(cluster: Cluster) -> None:
    ann_node, bob_node = cluster.nodes
    async with talking(ann_node, bob_node) as talk:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(talk.say(LINES))
            code = await asyncio.to_thread(bob_node.stop)
        assert code == 0
        keys = cluster.redis.command("HLEN", f"u:{{{talk.bob_name}}}:r")
        assert keys.strip() == b":0"  # it left the register
        await bob_node.restart()
        await talk.say(LINES)
        await talk.wait_all_heard()
