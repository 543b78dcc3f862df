"""RabbitMQ dies, stops and comes back while we use it: nothing begun is lost, order holds.

These tests have a RabbitMQ of their own: they kill it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import pytest

from bench.rabbit_server import RabbitServer
from brokerd.links.amqp import RabbitInbound, RabbitLink, Topology
from brokerd.links.amqp_nodes import WAITING_BATCHES_MAX
from brokerd.ports import LinkDown
from tests.faults.rabbit_daemon import SHARDS, Daemon, Poster, Taken, first_of_each, rabbit_daemon, until, within
from tests.tcp_proxy import proxied

LEADER = """
{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"{queue}">>)),
ra:{act}(quorum_queues, amqqueue:get_pid(Q)).
"""


@pytest.fixture(scope="module")
def rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitServer]:
    with RabbitServer(tmp_path_factory.mktemp("rabbit-faults")) as server:
        yield server


@pytest.fixture
async def daemon(rabbit: RabbitServer) -> AsyncIterator[Daemon]:
    async with rabbit_daemon(rabbit.url) as made:
        yield made


@pytest.mark.parametrize("how", ["kill9", "stop"])
async def test_f04_f09_batches_begun_while_rabbitmq_goes_down_are_durable_after_it_and_in_order(
    rabbit: RabbitServer, daemon: Daemon, how: str
) -> None:
    poster, taken, stop = Poster(daemon.inbound), Taken(), asyncio.Event()
    await daemon.shards.consume(0, taken)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(poster.post_until(stop))
        await until(lambda: len(taken.bodies) > 1000)
        await asyncio.to_thread(rabbit.kill9 if how == "kill9" else rabbit.stop)
        await until(lambda: not daemon.inbound.is_ready)
        open_at_loss = sum(not post.done() for post in poster.posts)
        await rabbit.start_soon()
        begun_before = len(poster.begun)
        await until(lambda: len(poster.begun) > begun_before + 1000)
        stop.set()
    await within(asyncio.gather(*poster.posts))
    await until(lambda: len(taken.bodies) >= len(poster.begun) and poster.begun[-1] in taken.bodies)
    assert open_at_loss > 0  # or the fault did not meet anything
    assert first_of_each(taken.bodies) == poster.begun
    assert daemon.inbound.statistics()["republishes"] >= open_at_loss
    assert daemon.publishing.statistics()["reconnects"] >= 1


async def test_f04_what_is_posted_while_a_queue_has_no_leader_waits_or_is_refused_and_is_never_confirmed(
    rabbit: RabbitServer,
) -> None:
    async with (
        proxied(rabbit.port) as proxy,
        rabbit_daemon(rabbit.url.replace(str(rabbit.port), str(proxy.port)), consuming_url=rabbit.url) as it,
    ):
        poster, taken, other = Poster(it.inbound), Taken(), Taken()
        await it.shards.consume(0, taken)
        await it.shards.consume(1, other)
        poster.post_some(10)
        await until(lambda: len(taken.bodies) == 10)
        queue = it.topology.shard_queue(0)
        await asyncio.to_thread(rabbit.ctl, "eval", LEADER.format(queue=queue, act="stop_server"))
        poster.post_some(10)
        proxy.cut()
        await within(posted_somehow(it, 1))  # connected again, and its neighbour has a leader
        poster.post_some(10)
        assert not [post for post in poster.posts[10:] if post.done() and post.exception() is None]
        await asyncio.to_thread(rabbit.ctl, "eval", LEADER.format(queue=queue, act="restart_server"))
        await within(it.consuming.wait_ready())
        poster.post_some(10)
        answers = await within(asyncio.gather(*poster.posts, return_exceptions=True))
        confirmed = [body for body, answer in zip(poster.begun, answers, strict=True) if answer is None]
        assert confirmed[-1] == poster.begun[-1]
        await until(lambda: len(first_of_each(taken.bodies)) == len(confirmed))
        assert first_of_each(taken.bodies) == confirmed, "the confirmed, no more and no less"


async def posted_somehow(daemon: Daemon, shard: int) -> None:
    """As soon as a post is taken, and when it is durable."""
    await until(lambda: daemon.inbound.is_ready)
    await daemon.inbound.post(shard, b"fence")


async def test_nothing_can_be_posted_while_rabbitmq_is_down_and_the_link_comes_back_by_itself(
    rabbit: RabbitServer, daemon: Daemon
) -> None:
    await asyncio.to_thread(rabbit.kill9)
    await until(lambda: not daemon.inbound.is_ready)
    with pytest.raises(LinkDown):
        daemon.inbound.post(0, b"too early")
    await rabbit.start_soon()
    await within(daemon.publishing.wait_ready())
    await within(daemon.inbound.post(0, b"again"))


async def test_what_is_for_a_node_while_the_link_is_down_is_handed_when_it_is_back_within_bounds(
    rabbit: RabbitServer, daemon: Daemon
) -> None:
    absent: list[str] = []
    daemon.nodes.on_absent(absent.append)
    await asyncio.to_thread(rabbit.kill9)
    await until(lambda: not daemon.inbound.is_ready)
    daemon.nodes.hand("oldest:1", b"beyond the bound")
    for number in range(WAITING_BATCHES_MAX):
        daemon.nodes.hand(f"away:{number}", b"kept")
    assert (daemon.nodes.statistics()["dropped"], daemon.nodes.statistics()["publishes"]) == (1, 0)
    await rabbit.start_soon()
    await until(lambda: len(absent) == WAITING_BATCHES_MAX)
    assert absent == [f"away:{number}" for number in range(WAITING_BATCHES_MAX)], "in order, each once"


async def test_f07_what_was_not_done_when_rabbitmq_died_comes_again_and_a_late_done_does_nothing(
    rabbit: RabbitServer, daemon: Daemon
) -> None:
    taken = Taken(finishes=False)
    await daemon.shards.consume(0, taken)
    await within(asyncio.gather(*(daemon.inbound.post(0, b"%d" % number) for number in range(3))))
    await until(lambda: len(taken.held) == 3)
    await asyncio.to_thread(rabbit.kill9)
    await until(lambda: not daemon.consuming.is_ready)
    for delivery in taken.held:
        delivery.done()
    assert daemon.shards.statistics()["done_late"] == 3
    await rabbit.start_soon()
    await until(lambda: len(taken.held) == 6)
    assert taken.bodies == [b"0", b"1", b"2"] * 2
    assert all(delivery.redelivered for delivery in taken.held[3:])


async def test_a_node_gets_a_gap_and_its_queue_again_after_a_restart(rabbit: RabbitServer, daemon: Daemon) -> None:
    got: list[bytes] = []
    gaps: list[int] = []
    await daemon.inbox.open("n:1", got.append, lambda: gaps.append(len(got)))
    daemon.nodes.hand("n:1", b"before")
    await until(lambda: got == [b"before"])
    assert gaps == []
    await asyncio.to_thread(rabbit.restart)
    await until(lambda: gaps == [1])
    await within(daemon.publishing.wait_ready())
    daemon.nodes.hand("n:1", b"after")
    await until(lambda: got == [b"before", b"after"])


async def test_posts_still_open_when_the_link_is_closed_fail(rabbit: RabbitServer) -> None:
    link = RabbitLink(rabbit.url, "closing")
    inbound = RabbitInbound(link, SHARDS, Topology(f"test-{uuid4().hex}"))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(link.run())
        await within(link.wait_ready())
        await asyncio.to_thread(rabbit.kill9)
        posts = [inbound.post(0, b"%d" % number) for number in range(3) if inbound.is_ready]
        await until(lambda: not inbound.is_ready)
        assert not any(post.done() for post in posts)
        await within(link.close())
    results = await asyncio.gather(*posts, return_exceptions=True)
    assert [type(result) for result in results] == [LinkDown] * len(posts)
    await rabbit.start_soon()
