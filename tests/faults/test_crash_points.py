"""kill -9 at named points of a message's walk: what was accepted is heard once, in order, and its end is told.

Each test counts the deaths: a point that was not reached proves nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from bench.cluster import Cluster
from bench.processes import Chatd
from brokerd.crash_points import BROKERD_POINTS, CHATD_POINTS, POINTS
from tests.faults.crashing import arm, disarm, talk_until_dead
from tests.faults.sampling import IS_LONG, some
from tests.faults.talk import talking

TIMES = (1, 5) if IS_LONG else (1,)  # at which time that it gets there it dies
HELLO_READS = 2  # the first that is read, of either
OF_THE_RECEIVER = ("chatd.written", "chatd.ack_read")


@pytest.fixture
async def mended(cluster: Cluster) -> AsyncIterator[Cluster]:
    """The shared cluster; whatever happens, nobody of it is armed behind the test."""
    yield cluster
    await disarm([*cluster.nodes, *cluster.brokers])


@pytest.mark.parametrize("nth", TIMES)
@pytest.mark.parametrize("point", some(CHATD_POINTS, 2))
async def test_f01_a_node_that_dies_at_any_point_loses_nothing_and_doubles_nothing(
    mended: Cluster, point: str, nth: int
) -> None:
    first, second = mended.nodes
    victim = second if point in OF_THE_RECEIVER else first
    await arm([victim], point, nth + HELLO_READS * (point == "chatd.frame_read"))
    async with talking(first, second) as talk:
        assert await talk_until_dead(talk, [victim]) == 1
        await talk.wait_all_heard()


@pytest.mark.parametrize("nth", TIMES)
@pytest.mark.parametrize("point", some(BROKERD_POINTS, 2))
async def test_f02_a_broker_that_dies_at_any_point_loses_nothing_and_doubles_nothing(
    mended: Cluster, point: str, nth: int
) -> None:
    await arm(mended.brokers, point, nth)  # the one that takes a dead one's shards over dies at the same point
    async with talking(*mended.nodes) as talk:
        assert await talk_until_dead(talk, mended.brokers) == len(mended.brokers)
        await talk.wait_all_heard()


@pytest.mark.parametrize("nth", TIMES)
@pytest.mark.parametrize("point", some(POINTS, 3))
async def test_f01_f02_one_process_alone_that_dies_at_any_point_loses_nothing_and_doubles_nothing(
    embedded_server: Chatd, point: str, nth: int
) -> None:
    await arm([embedded_server], point, nth + HELLO_READS * (point == "chatd.frame_read"))
    async with talking(embedded_server, embedded_server) as talk:
        assert await talk_until_dead(talk, [embedded_server]) == 1
        await talk.wait_all_heard()
