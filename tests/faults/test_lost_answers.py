"""F18: ACCEPTED is lost on its way, and the client says the same again, to another node, soon or much later."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bench.rabbit_server import RabbitServer
from bench.servers import RedisServer
from brokerd.links.redis_queue import MONTH_MS
from protocol.client import Client, MemoryStore
from protocol.messages import Deliver
from tests.chaos.network import DOWN, Door
from tests.faults.own_town import OwnTown
from tests.faults.talk import HOST, quick
from tests.faults.wrong_clock import DAY_S, WrongClock, why_no_clock

LINES = 5
ANSWER_S_MAX = 20.0


@pytest.fixture
async def town(tmp_path: Path, rabbit_server: RabbitServer) -> AsyncIterator[tuple[OwnTown, WrongClock]]:
    """Two nodes, a broker and Redis with one clock. It begins with a month of the dedupe."""
    if reason := why_no_clock():
        pytest.skip(reason)
    clock = WrongClock(tmp_path, "all")
    clock.step(MONTH_MS / 1000 - time.time() % (MONTH_MS / 1000))
    redis = RedisServer(tmp_path / "redis")
    town = OwnTown(tmp_path, "lostanswers", redis, rabbit_server, nodes=2)
    with clock.over_children():
        redis.start()
        try:
            await town.start()
            yield town, clock
        finally:
            town.stop()
            redis.stop()


async def hear(bob: Client, count: int) -> list[tuple[bytes, bytes]]:
    """The next messages: id and payload."""
    heard: list[tuple[bytes, bytes]] = []
    async with asyncio.timeout(ANSWER_S_MAX):
        async for message in bob:
            assert isinstance(message, Deliver)
            heard.append((message.id, message.payload))
            if len(heard) == count:
                break
    return heard


async def test_f18_a_resend_to_another_node_is_the_same_message_at_once_after_a_day_and_after_forty(
    town: tuple[OwnTown, WrongClock],
) -> None:
    (first, second), clock = town[0].nodes, town[1]
    began_s = MONTH_MS / 1000 - time.time() % (MONTH_MS / 1000)
    words = {name: await asyncio.to_thread(first.add_user, name) for name in ("ann", "bob")}
    door = Door(first.tcp_port)
    await door.open()
    async with Client(HOST, second.tcp_port, "bob", "phone", password=words["bob"], backoff=quick()) as bob:
        await bob.wait_drained()
        for days in (0, 1, 41):
            store = MemoryStore()

            def ann(port: int, store: MemoryStore = store, device: str = f"phone{days}") -> Client:
                return Client(HOST, port, "ann", device, password=words["ann"], store=store, backoff=quick())

            async with ann(door.port) as deaf:
                await deaf.wait_connected()
                assert door.hold(DOWN) == 1
                answers = [deaf.post("bob", b"%d days, line %d" % (days, line)) for line in range(LINES)]
                heard = await hear(bob, LINES)  # so they are durable, and ann does not know
                door.cut(half=True)
            assert [answer.done() and answer.exception() is None for answer in answers] == [False] * LINES
            door.mend()
            clock.step(began_s + days * DAY_S)
            async with ann(second.tcp_port) as again, asyncio.timeout(ANSWER_S_MAX):
                recovered = [await answer for _, answer in again.recovered]
                fence = await again.send("bob", b"fence")
            assert recovered == [id_ for id_, _ in heard]  # each was resent, and was told its first id
            assert await hear(bob, 1) == [(fence, b"fence")]
    door.close()
