"""Several brokerd share the shards: the one that came first has them all, until it has too much to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple
from uuid import uuid4

import pytest
import structlog
from structlog.testing import capture_logs

from bench.rabbit_server import RabbitServer
from bench.servers import RedisServer
from brokerd.links.amqp import RabbitInbound, RabbitLink, RabbitShards, Topology
from brokerd.links.amqp_shards import over_part
from brokerd.links.redis_brokers import RedisBrokers
from brokerd.sharing import BUSY_SHARE, share_shards
from tests.contracts.store_factories import linked_redis
from tests.faults.rabbit_daemon import Taken, first_of_each, until, within
from tests.rabbit_links import linked_rabbit

SHARDS = 4


@pytest.mark.parametrize(
    ("busy", "consumers", "given"),
    [(8, 1, ""), (8, 2, "bdfh"), (8, 3, "bcefh"), (4, 2, ""), (5, 2, "b"), (8, 9, "bcdefgh"), (0, 2, "")],
)
def test_what_is_over_the_part_of_each_is_given_up_and_the_load_is_halved(
    busy: int, consumers: int, given: str
) -> None:
    assert over_part("abcdefgh"[:busy], 8, consumers) == list(given)


class Rivals(NamedTuple):
    """Two brokerd at the same shards, the first with all of them."""

    inbound: RabbitInbound
    shards: tuple[RabbitShards, RabbitShards]
    taken: tuple[list[Taken], list[Taken]]
    consuming: RabbitLink


@pytest.fixture
async def rivals(rabbit_server: RabbitServer) -> AsyncIterator[Rivals]:
    topology, url = Topology(f"test-{uuid4().hex}"), rabbit_server.url
    async with linked_rabbit(url, "out") as publishing, linked_rabbit(url, "a") as a, linked_rabbit(url, "b") as b:
        inbound = RabbitInbound(publishing, SHARDS, topology)
        await within(publishing.wait_ready())
        shards = RabbitShards(a, inbound, topology), RabbitShards(b, inbound, topology)
        taken: tuple[list[Taken], list[Taken]] = [], []
        for each, mine in zip(shards, taken, strict=True):
            for shard in range(SHARDS):
                mine.append(Taken())
                await within(each.consume(shard, mine[-1]))
        yield Rivals(inbound, shards, taken, a)


async def post_all(it: Rivals, text: bytes) -> None:
    await within(asyncio.gather(*(it.inbound.post(shard, text) for shard in range(SHARDS))))


async def test_who_has_too_much_gives_half_of_the_shards_to_the_other_and_keeps_the_rest(rivals: Rivals) -> None:
    first, second = rivals.taken
    await post_all(rivals, b"1")
    await until(lambda: [it.bodies for it in first] == [[b"1"]] * SHARDS)
    assert rivals.shards[0].give_up_some(2) == SHARDS // 2
    await until(lambda: rivals.consuming.is_ready)
    await post_all(rivals, b"2")
    await until(lambda: sum(b"2" in it.bodies for it in (*first, *second)) == SHARDS)
    assert sum(b"2" in it.bodies for it in second) == SHARDS // 2
    for shards in rivals.shards:
        assert shards.give_up_some(2) == 0, "now each has its part"


async def test_what_was_not_done_of_a_shard_that_is_given_up_comes_to_the_other_in_order(rivals: Rivals) -> None:
    first, second = rivals.taken
    for it in first:
        it.finishes = False
    texts = [b"%d" % number for number in range(10)]
    for text in texts:
        await post_all(rivals, text)
    await until(lambda: all(len(it.held) == len(texts) for it in first))
    assert rivals.shards[0].give_up_some(2) == SHARDS // 2
    await until(lambda: sum(it.bodies == texts for it in second) == SHARDS // 2)
    for it in first:
        for delivery in it.held:
            delivery.done()  # of what was given up it does nothing
    assert all(first_of_each(it.bodies) == texts for it in first)
    assert rivals.shards[0].statistics()["done_late"] == len(texts) * SHARDS // 2


async def test_brokerd_count_each_other_and_forget_who_is_gone(redis_server: RedisServer) -> None:
    async with linked_redis(redis_server.url) as link:
        first, second = (RedisBrokers(link, f"{name}-{uuid4().hex}", 3600) for name in ("a", "b"))
        brief = RedisBrokers(link, f"c-{uuid4().hex}", 0.001)
        before = await first.count()
        assert await second.count() == before + 1
        await brief.count()
        async with asyncio.timeout(20):
            while await first.count() != before + 1:  # noqa: ASYNC110 - its time is Redis' own
                await asyncio.sleep(0.001)
        redis_server.command("DEL", "brokers")
    assert await first.count() == 1, "Redis is away: nobody to share with"


@asynccontextmanager
async def looking(share: float) -> AsyncIterator[list[int]]:
    """A process that uses so much of a core, as it counts itself; the asked times."""
    asked: list[int] = []
    passed_s = [0.0]

    def now_s() -> float:
        passed_s[0] += 1.0
        return passed_s[0]

    async def count() -> int:
        return 2

    def give_up_some(consumers: int) -> int:
        asked.append(consumers)
        return 2

    task = asyncio.create_task(
        share_shards(
            count, give_up_some, structlog.get_logger(), look_s=0.001, cpu_s=lambda: passed_s[0] * share, now_s=now_s
        )
    )
    try:
        await until(lambda: passed_s[0] > 5)
        yield asked
    finally:
        task.cancel()


@pytest.mark.parametrize(("share", "gives"), [(BUSY_SHARE / 2, False), (BUSY_SHARE * 1.2, True)])
async def test_only_who_is_busy_gives_shards_up_and_says_so(share: float, gives: bool) -> None:
    with capture_logs() as said:
        async with looking(share) as asked:
            assert bool(asked) is gives
    assert any(line["event"] == "shards_given_up" for line in said) is gives
