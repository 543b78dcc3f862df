"""Overloads in short (`make overload` has them at full size): what clients are told, memory within its bounds, bystanders
served, and in the end everything accepted delivered, once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest

from bench.cluster import Cluster
from bench.tokens import Mint
from tests.faults.raw_client import connected
from tests.faults.talk import wait_ready
from tests.overload import alarms, deaf, habits, idle, publishers, storms
from tests.overload.site import Site, embedded_site, watched

pytestmark = pytest.mark.timeout(180)
STRANGERS_MAX = 20
BEFORE_S = 0.5


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """An embedded chatd for this file."""
    env = {"CHATD_LIMITS_STRANGERS_PER_ADDRESS_MAX": str(STRANGERS_MAX)}
    with embedded_site(tmp_path_factory.mktemp("overload"), env) as site:
        site.before_s = BEFORE_S
        yield site


@pytest.fixture
def town(cluster: Cluster) -> Site:
    """The shared cluster."""
    return Site("cluster", cluster.nodes, Mint(cluster.nodes[0].data_dir), cluster, BEFORE_S)


async def test_l01_idle_sessions_cost_little_memory_and_hardly_any_cpu(alone: Site) -> None:
    row = await idle.idle(alone, 400, rest_s=1.0)
    assert row.wrong == []


async def test_l01_idle_websockets_too(alone: Site) -> None:
    row = await idle.idle(alone, 400, ws=True, rest_s=1.0)
    assert row.wrong == []


async def test_l02_a_storm_of_logins_is_answered_and_bystanders_are_served(alone: Site) -> None:
    row = await storms.login_storm(alone, per_s=300.0, seconds=2.0)
    assert row.wrong == []


async def test_l02_connections_that_say_nothing_do_not_keep_others_out(alone: Site) -> None:
    node = alone.nodes[0]
    async with watched(alone, "silent connections") as it, AsyncExitStack() as stack:
        silent = [await stack.enter_async_context(connected(node.tcp_port)) for _ in range(3 * STRANGERS_MAX)]
        ends = await asyncio.gather(*(peer.bytes_to_the_end() for peer in silent[: 2 * STRANGERS_MAX]))
        assert set(ends) == {b""}
    assert it.row.wrong == []


async def test_l03_publishers_without_a_window_are_read_more_slowly_and_nobody_else_is(alone: Site) -> None:
    row = await publishers.too_fast(alone, seconds=1.5, pairs=20)
    assert row.wrong == []


async def test_l03_a_noisy_user_does_not_hurt_quiet_ones(town: Site) -> None:
    # no longer: its FAILED receipts, one for each message that its receiver's queue had no room for, have a bound as well
    row = await publishers.noisy(town, seconds=0.5)
    assert row.wrong == []


async def test_l03_one_sender_to_many_devices(alone: Site) -> None:
    row = await publishers.one_to_many(alone, seconds=1.0, receivers=100)
    assert row.wrong == []


async def test_l04_readers_that_stop_are_bounded_and_get_everything_when_they_come_back(alone: Site) -> None:
    row = await deaf.deaf(alone, readers=8, mib_each=4.0)
    assert row.wrong == []


async def test_l05_a_device_that_misuses_its_window_hurts_nobody(alone: Site) -> None:
    row = await habits.window_abuse(alone)
    assert row.wrong == []


async def test_l05_a_device_name_in_two_places_is_slowed_down(town: Site) -> None:
    row = await habits.two_places(town, s=40.0, enough=5)
    assert row.wrong == []


async def test_f10_in_an_alarm_of_rabbitmq_senders_are_busy_and_what_waits_is_delivered(town: Site) -> None:
    for node in town.nodes:
        await wait_ready(node)
    row = await alarms.rabbit_alarm(town, "memory", hold_s=1.0, senders=5)
    assert row.wrong == []
