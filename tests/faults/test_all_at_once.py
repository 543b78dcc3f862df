"""F06: everything dies at once and comes back in any order: each daemon comes up without its peers, says so, and heals."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bench.rabbit_server import RabbitServer
from bench.servers import RedisServer
from tests.faults.crashing import talk_meanwhile
from tests.faults.own_town import OwnTown
from tests.faults.sampling import IS_LONG, some
from tests.faults.talk import talking, wait_ready

KINDS = ("redis", "rabbitmq", "chatd", "brokerd")
ORDERS = list(itertools.permutations(KINDS))
LONELY = [order for order in ORDERS if order[0] == "chatd"]  # a short run takes one in which somebody sees nobody
READY_S_MAX = 60.0
SPOKEN_S_MAX = 100.0


class Whole:
    """A town with servers of its own. `up` is who runs, by kind."""

    def __init__(self, folder: Path) -> None:
        self.redis = RedisServer(folder / "redis")
        self.rabbit = RabbitServer(folder / "rabbit")
        self.town = OwnTown(folder, "whole", self.redis, self.rabbit)
        self.up: set[str] = set()

    async def start(self, kind: str) -> None:
        """One of the four. A daemon is begun: it may have nobody to talk to yet."""
        if kind in ("redis", "rabbitmq"):
            await asyncio.to_thread(self.redis.start if kind == "redis" else self.rabbit.start)
        elif kind == "chatd":
            await self.town.nodes[0].restart()  # it is there for its clients, whoever is missing
        else:
            self.town.brokers[0].begin()
        self.up.add(kind)

    async def kill_all(self) -> None:
        """kill -9, all before the first can notice that another is gone."""
        pids = [part.pid for part in (self.redis, self.rabbit, *self.town.daemons)]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for daemon in self.town.daemons:
            assert await asyncio.to_thread(daemon.stop) == -signal.SIGKILL
        await asyncio.to_thread(self.redis.stop)
        await asyncio.to_thread(self.rabbit.stop)
        self.up.clear()

    async def check(self) -> None:
        """chatd says who is missing, and brokerd has not given up."""
        if "chatd" in self.up:
            for server in {"redis", "rabbitmq"} - self.up:
                await wait_ready(self.town.nodes[0], not_up=server, s_max=READY_S_MAX)
        if "brokerd" in self.up:
            assert self.town.brokers[0].is_running

    def stop(self) -> None:
        """Whoever runs."""
        self.town.stop()
        for server in (self.rabbit, self.redis):
            server.stop()


@pytest.fixture
async def whole(tmp_path: Path) -> AsyncIterator[Whole]:
    whole = Whole(tmp_path)
    try:
        for kind in KINDS:
            await whole.start(kind)
        await wait_ready(whole.town.nodes[0], s_max=READY_S_MAX)
        yield whole
    finally:
        whole.stop()


@pytest.mark.timeout(1500)
async def test_f06_all_four_die_at_once_and_heal_in_whatever_order_they_come_back(whole: Whole) -> None:
    [node] = whole.town.nodes
    for order in ORDERS if IS_LONG else some(LONELY, 1):
        print("order:", *order)
        async with talking(node, node) as talk:
            talk.s_max = SPOKEN_S_MAX
            async with talk_meanwhile(talk):
                await talk.say(1)
                await whole.kill_all()
                for kind in order:
                    await whole.start(kind)
                    await whole.check()
                await wait_ready(node, s_max=READY_S_MAX)
            await talk.wait_all_heard()
