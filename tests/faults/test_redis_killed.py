"""F03: Redis dies with our pipelines in its hands, and comes back with a file that takes it seconds to load."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bench.rabbit_server import RabbitServer
from bench.servers import RedisServer
from protocol.client import ClientState
from tests.faults.crashing import talk_meanwhile
from tests.faults.own_town import OwnTown
from tests.faults.talk import Talk, talking

KILLS = 3
FILLER = b"*2\r\n$4\r\nINCR\r\n$6\r\nfiller\r\n" * 10_000
FILLERS = 300  # 3 million commands, 93 MB: some seconds of loading
LINES = 50
LOOK_S = 0.005
LOADED_S_MAX = 60.0


class Place:
    """A town on a Redis of its own."""

    def __init__(self, folder: Path, rabbit: RabbitServer) -> None:
        self.redis = RedisServer(folder / "redis")
        self.town = OwnTown(folder, "rediskilled", self.redis, rabbit)

    async def wait_told(self, event: str, times: int) -> None:
        """Until brokerd, with a batch in its hands, found the store gone (or back) so often."""
        async with asyncio.timeout(LOADED_S_MAX):
            while self.town.brokers[0].log_path.read_text().count(f'"{event}"') < times:  # noqa: ASYNC110 - another process
                await asyncio.sleep(LOOK_S)

    def check_present(self, talk: Talk, before: tuple[ClientState, ClientState]) -> None:
        """Nobody was taken for absent: the sessions are the old ones, and bob's seat was not taken from him."""
        assert (talk.ann.state, talk.bob.state) == before
        assert b"phone" in self.redis.command("HGETALL", f"u:{{{talk.bob_name}}}:r")
        assert "node_absent" not in self.town.brokers[0].log_path.read_text()


@pytest.fixture
async def place(tmp_path: Path, rabbit_server: RabbitServer) -> AsyncIterator[Place]:
    place = Place(tmp_path, rabbit_server)
    with place.redis:
        try:
            await place.town.start()
            yield place
        finally:
            place.town.stop()


async def test_f03_a_redis_that_is_killed_with_pipelines_unanswered_costs_a_delay_and_no_message(place: Place) -> None:
    [node] = place.town.nodes
    async with talking(node, node) as talk:
        await talk.say(LINES)
        before = talk.ann.state, talk.bob.state
        async with talk_meanwhile(talk):
            for kill in range(KILLS):
                os.kill(place.redis.pid, signal.SIGSTOP)  # so that it has taken what it will never answer
                heard = len(talk.said)
                async with asyncio.timeout(LOADED_S_MAX):
                    while len(talk.said) < heard + LINES:  # noqa: ASYNC110 - what is accepted meanwhile
                        await asyncio.sleep(LOOK_S)
                place.redis.kill9()
                await place.wait_told("store_down", kill + 1)
                place.redis.start()
                await place.wait_told("store_back", kill + 1)
        await talk.wait_all_heard()
        place.check_present(talk, before)


async def test_f03_while_redis_loads_a_big_file_brokerd_waits_and_acknowledges_nothing(place: Place) -> None:
    [node], [broker], redis = place.town.nodes, place.town.brokers, place.redis
    async with talking(node, node) as talk:
        await talk.say(LINES)
        await talk.wait_all_heard()
        before = talk.ann.state, talk.bob.state
        redis.kill9()
        [log] = redis.folder.glob("appendonlydir/*.incr.aof")
        with log.open("ab") as file:
            for _ in range(FILLERS):
                file.write(FILLER)
        loading = asyncio.create_task(asyncio.to_thread(redis.start))
        while not await asyncio.to_thread(is_loading, redis):
            assert not loading.done(), "it was loaded before anybody saw it load"
            await asyncio.sleep(LOOK_S)
        await talk.say(LINES)
        await asyncio.to_thread(broker.kill9)  # what it had acknowledged would be gone now
        broker.begin()
        await talk.say(LINES)
        is_late = await asyncio.to_thread(is_loading, redis)
        assert is_late, "loaded too early: nothing was shown"
        assert len(talk.heard) == LINES
        await loading
        await talk.wait_all_heard()
        place.check_present(talk, before)


def is_loading(redis: RedisServer) -> bool:
    """Whether it says so. Not there at all is something else."""
    try:
        return redis.command("GET", "x").startswith(b"-LOADING")
    except OSError:
        return False
