"""F13: each link is cut off without a word, both ways and one way. It is noticed within the stated time, and after the
heal everything comes once and in order.

The times are the product's own, with a heartbeat of 1 s instead of 10 and a keepalive of 1 s instead of 30.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from bench.processes import Chatd
from bench.rabbit_server import RabbitServer
from bench.servers import RedisServer
from brokerd.links.amqp_link import HEARTBEAT_S, NOTICED_S_MAX
from brokerd.links.resp import RespLink
from brokerd.links.resp_stream import Limits
from brokerd.ports import LinkDown
from protocol.client import Client, Reconnecting
from protocol.messages import Deliver
from protocol.wire import KEEPALIVE_MISSES
from tests.chaos.network import DOWN, UP, Door
from tests.faults.rabbit_daemon import Poster, Taken, first_of_each, rabbit_daemon, until, within
from tests.faults.talk import HOST, quick

WAYS: Final = ((UP,), (DOWN,), (UP, DOWN))
KEEPALIVE_S: Final = 1
SLACK_S: Final = 4.0  # RabbitMQ's own check, and a crowded machine
COUNT: Final = 20

pytestmark = pytest.mark.timeout(120)


@asynccontextmanager
async def door_to(port: int) -> AsyncIterator[Door]:
    """A link that can be cut off."""
    door = Door(port)
    await door.open()
    try:
        yield door
    finally:
        door.close()
        await asyncio.gather(*door.tasks, return_exceptions=True)


async def test_f13_a_partition_to_rabbitmq_is_noticed_within_three_heartbeats(rabbit_server: RabbitServer) -> None:
    assert NOTICED_S_MAX == 3 * HEARTBEAT_S == 30
    await asyncio.gather(*(rabbit_cut_off(rabbit_server, ways) for ways in WAYS))


async def rabbit_cut_off(rabbit: RabbitServer, ways: tuple[str, ...]) -> None:
    """A daemon's two links to RabbitMQ, held while batches are on their way."""
    async with door_to(rabbit.port) as door:
        url = rabbit.url.replace(str(rabbit.port), str(door.port))
        async with rabbit_daemon(url, heartbeat_s=1) as daemon:
            poster, taken = Poster(daemon.inbound), Taken()
            await daemon.shards.consume(0, taken)
            poster.post_some(COUNT)
            await until(lambda: len(taken.bodies) == COUNT)
            begun_s = asyncio.get_running_loop().time()
            door.hold(*ways)
            poster.post_some(COUNT)
            await until(lambda: all(link.statistics()["losses"] for link in (daemon.publishing, daemon.consuming)))
            took_s = asyncio.get_running_loop().time() - begun_s
            door.mend()
            await within(asyncio.gather(*poster.posts))
            await until(lambda: len(first_of_each(taken.bodies)) == 2 * COUNT)
            assert first_of_each(taken.bodies) == poster.begun
            assert took_s < NOTICED_S_MAX / HEARTBEAT_S + SLACK_S, ways
            if DOWN in ways:  # it was our own watch; in the other case RabbitMQ misses our heartbeats
                assert all(link.statistics()["silences"] for link in (daemon.publishing, daemon.consuming)), ways


async def test_f13_a_partition_to_redis_is_noticed_within_its_stall(redis_server: RedisServer) -> None:
    limits = Limits()
    assert (limits.call_s_max, limits.stall_s_max) == (5.0, 10.0)
    await asyncio.gather(*(redis_cut_off(redis_server, ways) for ways in WAYS))


async def redis_cut_off(redis: RedisServer, ways: tuple[str, ...]) -> None:
    """A link to Redis, held while a call is on its way."""
    limits = Limits(call_s_max=0.5, stall_s_max=1.0)
    async with door_to(redis.port) as door:
        link = RespLink(f"redis://127.0.0.1:{door.port}", name="f13", limits=limits)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(link.run())
            await within(link.wait_ready())
            door.hold(*ways)
            begun_s = asyncio.get_running_loop().time()
            with pytest.raises(LinkDown):
                await link.pipeline([("ECHO", "before")])
            told_s = asyncio.get_running_loop().time() - begun_s
            await until(lambda: not link.is_ready)
            took_s = asyncio.get_running_loop().time() - begun_s
            door.mend()
            await within(link.wait_ready())
            assert await link.pipeline([("ECHO", "after")]) == [b"after"]
            assert told_s < limits.call_s_max + SLACK_S, ways
            assert took_s < 1.25 * limits.stall_s_max + SLACK_S, ways
            running.cancel()


@pytest.fixture
def hasty(tmp_path: Path) -> Iterator[Chatd]:
    """A chatd that asks for a sign of life every second."""
    server = Chatd(tmp_path / "chatd", env={"CHATD_LIMITS_KEEPALIVE_S": str(KEEPALIVE_S)})
    server.start()
    yield server
    assert server.stop() == 0


async def test_f13_a_partition_to_a_device_is_noticed_within_two_keepalives(hasty: Chatd) -> None:
    word = await asyncio.to_thread(hasty.add_user, "ann")
    async with Client(HOST, hasty.tcp_port, "ann", "laptop", password=word) as ann:
        await asyncio.gather(*(device_cut_off(hasty, ann, ways) for ways in WAYS))


async def device_cut_off(node: Chatd, ann: Client, ways: tuple[str, ...]) -> None:
    """bob's way to the server, held while ann writes to him."""
    name = f"bob-{'-'.join(ways)}"
    word = await asyncio.to_thread(node.add_user, name)
    states: asyncio.Queue[object] = asyncio.Queue()
    async with (
        door_to(node.tcp_port) as door,
        Client(HOST, door.port, name, "phone", password=word, backoff=quick(), on_state=states.put_nowait) as bob,
    ):
        await bob.wait_connected()
        said = [await ann.send(name, b"%d" % number) for number in range(COUNT)]
        begun_s = asyncio.get_running_loop().time()
        door.hold(*ways)
        said += [await ann.send(name, b"%d" % number) for number in range(COUNT)]
        async with asyncio.timeout(30):
            while not isinstance(await states.get(), Reconnecting):
                pass
        took_s = asyncio.get_running_loop().time() - begun_s
        door.mend()
        async with asyncio.timeout(30):
            heard = [await anext(bob) for _ in said]
        assert [message.id for message in heard if isinstance(message, Deliver)] == said
        assert took_s < KEEPALIVE_MISSES * KEEPALIVE_S + SLACK_S, ways
