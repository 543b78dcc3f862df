"""F14: wall clocks that step by an hour, each process by itself. Deadlines do not notice; what is wall time says what it does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from bench.processes import Daemon
from bench.rabbit_server import RabbitServer
from bench.servers import RedisServer
from bench.tokens import Mint
from brokerd.links.redis_queue import MONTH_MS
from protocol.client import Client, ClientClosed
from protocol.messages import Deliver, Receipt
from protocol.wire import Status
from tests.faults.crashing import arm, talk_meanwhile, talk_until_dead
from tests.faults.own_town import OwnTown
from tests.faults.talk import HOST, quick, talking
from tests.faults.wrong_clock import HOUR_S, WrongClock, why_no_clock

MONTH_S: Final = MONTH_MS / 1000
ENDED_S_MAX = 20.0
LINES = 30
TICKS_S = 1.2  # in which a node looks at all of its deadlines
HALF_HOUR_S = HOUR_S // 2


class Clocks:
    """A town in which chatd, brokerd and redis each have a clock."""

    def __init__(self, folder: Path, rabbit: RabbitServer) -> None:
        self.redis = RedisServer(folder / "redis")
        self.town = OwnTown(folder, "clocks", self.redis, rabbit)
        [self.node], [self.broker] = self.town.nodes, self.town.brokers
        self.mint = Mint(self.node.data_dir)
        self.of = {name: WrongClock(folder, name) for name in ("chatd", "brokerd", "redis")}
        self.node.env.update(self.of["chatd"].env)
        self.broker.env.update(self.of["brokerd"].env)

    def start(self) -> None:
        with self.of["redis"].over_children():
            self.redis.start()
        daemons: list[Daemon] = self.town.daemons
        for daemon in daemons:
            daemon.start()
        self.node.wait_serving()

    def stop(self) -> None:
        self.town.stop()
        self.redis.stop()

    def client(self, user: str, token: str) -> Client:
        return Client(HOST, self.node.tcp_port, user, "phone", token=token, backoff=quick())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, rabbit_server: RabbitServer) -> Iterator[Clocks]:
    if reason := why_no_clock():
        pytest.skip(reason)
    whole = Clocks(tmp_path_factory.mktemp("clocks"), rabbit_server)
    try:
        whole.start()
        yield whole
    finally:
        whole.stop()


@pytest.fixture
def clocks(whole: Clocks) -> Iterator[Clocks]:
    yield whole
    for clock in whole.of.values():
        clock.step(0)


async def test_f14_steps_of_an_hour_in_any_process_change_nothing_for_those_who_talk_or_listen(clocks: Clocks) -> None:
    async with talking(clocks.node, clocks.node) as talk, clocks.client("ida", clocks.mint.token("ida")) as ida:
        await ida.wait_drained()  # and says nothing more: if a deadline went by the wall clock, hers would be over
        sessions = talk.ann.state, talk.bob.state, ida.state
        async with talk_meanwhile(talk):
            for clock in clocks.of.values():
                for off_s in (-HOUR_S, HOUR_S):
                    clock.step(off_s)
                    said, seen_s = len(talk.said) + LINES, time.monotonic() + TICKS_S
                    async with asyncio.timeout(ENDED_S_MAX):
                        while len(talk.said) < said or time.monotonic() < seen_s:  # noqa: ASYNC110 - both must be
                            await asyncio.sleep(0.01)
                clock.step(0)
        await talk.wait_all_heard()
        assert (talk.ann.state, talk.bob.state, ida.state) == sessions


async def ended(client: Client) -> str:
    """How the client's session ended for good."""
    async with asyncio.timeout(ENDED_S_MAX):
        try:
            async for _ in client:
                pass
        except ClientClosed as fault:
            return str(fault)
    return ""


async def test_f14_a_token_counts_by_the_clock_of_its_node_and_again_when_that_is_right(clocks: Clocks) -> None:
    clock, fresh = clocks.of["chatd"], clocks.mint.token("tess", ttl_s=HALF_HOUR_S)
    async with clocks.client("tess", fresh) as tess:
        await tess.wait_drained()
        clock.step(HOUR_S)
        assert "TOKEN_EXPIRED" in await ended(tess)
    async with clocks.client("tess", fresh) as tess:
        assert "TOKEN_EXPIRED" in await ended(tess)
    clock.step(-HOUR_S)  # it is not issued yet
    async with clocks.client("tess", fresh) as tess:
        assert "BAD_CREDENTIALS" in await ended(tess)
    clock.step(0)
    async with clocks.client("tess", fresh) as tess:
        await tess.wait_drained()
        clock.step(-HOUR_S)  # who is in stays in: nothing of a session is issued again
        await tess.send("tess", b"still here")
        clock.step(0)
        await tess.send("tess", b"and here")


async def told(client: Client, *ids: bytes) -> list[int]:
    """What became of these messages, by their receipts."""
    became: dict[bytes, int] = {}
    async with asyncio.timeout(ENDED_S_MAX):
        async for message in client:
            if isinstance(message, Receipt):
                became |= dict.fromkeys(message.ids, message.status)
            if became.keys() >= set(ids):
                break
    return [became[id_] for id_ in ids]


async def heard_up_to(client: Client, id_: bytes) -> list[bytes]:
    """The ids of the messages that come, up to this one."""
    heard: list[bytes] = []
    async with asyncio.timeout(ENDED_S_MAX):
        async for message in client:
            if isinstance(message, Deliver):
                heard.append(message.id)
                if message.id == id_:
                    break
    return heard


async def test_f14_whatever_a_wrong_clock_makes_of_a_time_to_live_its_sender_is_told(clocks: Clocks) -> None:
    tokens = {name: clocks.mint.token(name) for name in ("uma", "vic")}
    async with clocks.client("vic", tokens["vic"]) as vic:
        await vic.wait_drained()
    async with clocks.client("uma", tokens["uma"]) as uma:
        kept = [await uma.send("vic", b"for ever", receipt=True)]
        clocks.of["chatd"].step(-HOUR_S)  # over before it begins
        early = await uma.send("vic", b"for ten minutes", ttl_s=600, receipt=True)
        assert await told(uma, early) == [Status.EXPIRED]
        kept.append(await uma.send("vic", b"for ever", receipt=True))
        clocks.of["chatd"].step(0)
        kept.append(await uma.send("vic", b"for half an hour", ttl_s=HALF_HOUR_S, receipt=True))
        clocks.of["redis"].step(HOUR_S)
        kept.append(await uma.send("vic", b"for half an hour", ttl_s=HALF_HOUR_S, receipt=True))
        async with clocks.client("vic", tokens["vic"]) as vic:
            assert await heard_up_to(vic, kept[-1]) == kept
        assert await told(uma, *kept) == [Status.DELIVERED] * len(kept)
        clocks.of["brokerd"].step(HOUR_S)
        late = await uma.send("vic", b"for half an hour", ttl_s=HALF_HOUR_S, receipt=True)
        assert await told(uma, late) == [Status.EXPIRED]


async def test_f14_a_clock_that_steps_back_over_a_month_of_the_dedupe_doubles_nothing(clocks: Clocks) -> None:
    to_month_s = MONTH_S - time.time() % MONTH_S
    clocks.of["brokerd"].step(to_month_s + HALF_HOUR_S)
    await arm([clocks.broker], "brokerd.saved")
    async with talking(clocks.node, clocks.node) as talk:
        clocks.of["brokerd"].step(to_month_s + HALF_HOUR_S)
        dead = asyncio.create_task(talk_until_dead(talk, [clocks.broker]))
        async with asyncio.timeout(ENDED_S_MAX):
            while clocks.broker.is_running and not dead.done():  # noqa: ASYNC110 - it dies by itself
                await asyncio.sleep(0)
        clocks.of["brokerd"].step(to_month_s - HALF_HOUR_S)
        assert await dead == 1
        await talk.wait_all_heard()
