"""Several RabbitMQ hosts in one address: a host that is away, or is up and confirms nothing, is left for the next one."""

from __future__ import annotations

import asyncio

import pytest

from bench.ports import free_port
from bench.rabbit_server import RabbitServer
from brokerd.links.amqp import RabbitInbound, Topology
from brokerd.links.amqp_inbound import NACKS_MAX
from brokerd.links.amqp_url import rabbit_urls
from brokerd.ports import LinkDown, PostRefused
from tests.faults.rabbit_daemon import until, within
from tests.rabbit_links import linked_rabbit
from tests.tcp_proxy import proxied


def test_every_host_of_a_list_gets_the_login_the_vhost_and_the_options() -> None:
    assert rabbit_urls("amqps://u:p%40@a,b:5671,[::1]:7/v?x=1") == (
        "amqps://u:p%40@a/v?x=1", "amqps://u:p%40@b:5671/v?x=1", "amqps://u:p%40@[::1]:7/v?x=1",
    )  # fmt: skip


@pytest.mark.parametrize("url", ["http://hush@a", "amqp://hush@a,,b", "amqp://hush@a:x", "amqp://hush@", "amqp://a:0"])
def test_a_list_with_something_else_in_it_is_refused_without_its_secrets(url: str) -> None:
    with pytest.raises(ValueError, match="host") as refused:
        rabbit_urls(url)
    assert "hush" not in str(refused.value)


def _hosts(rabbit: RabbitServer, *ports: int) -> str:
    return f"amqp://guest:guest@{','.join(f'127.0.0.1:{port}' for port in ports)}/"


async def test_a_host_that_is_away_is_left_for_the_next_one(rabbit_server: RabbitServer) -> None:
    for _ in range(4):  # the first host is chosen by chance
        async with linked_rabbit(_hosts(rabbit_server, free_port(), rabbit_server.port), "hosts") as link:
            assert link.statistics()["connects"] == 1


async def test_a_host_that_confirms_nothing_takes_no_more_posts_and_is_left_for_the_next_one(
    rabbit_server: RabbitServer,
) -> None:
    async with proxied(rabbit_server.port) as first, proxied(rabbit_server.port) as second:
        url = _hosts(rabbit_server, first.port, second.port)
        async with linked_rabbit(url, "hosts") as link:
            inbound = RabbitInbound(link, 1, Topology("hosts"), confirm_s_max=0.5)
            await until(lambda: inbound.is_ready)
            await within(inbound.post(0, b"confirmed"))
            first.stall()
            second.stall()
            late = inbound.post(0, b"late")
            await until(lambda: not inbound.is_ready)
            with pytest.raises(LinkDown):
                inbound.post(0, b"refused at once")
            assert link.statistics()["moves"] == 1
            first.go_on()
            second.go_on()
            await within(late)
            await until(lambda: inbound.is_ready)


async def test_one_host_that_confirms_nothing_is_kept_and_takes_posts_again_when_it_does(
    rabbit_server: RabbitServer,
) -> None:
    async with proxied(rabbit_server.port) as proxy, linked_rabbit(_hosts(rabbit_server, proxy.port), "hosts") as link:
        inbound = RabbitInbound(link, 1, Topology("hosts"), confirm_s_max=0.5)
        await until(lambda: inbound.is_ready)
        proxy.stall()
        late = inbound.post(0, b"late")
        await until(lambda: not inbound.is_ready)
        with pytest.raises(LinkDown, match="confirmed"):
            inbound.post(0, b"refused at once")
        proxy.go_on()
        await within(late)
        assert inbound.is_ready
        assert link.statistics()["losses"] == 0


async def test_what_is_nacked_is_posted_again_in_order_on_new_channels_before_it_is_refused(
    rabbit_server: RabbitServer,
) -> None:
    topology = Topology("nacks")
    policy = '{"max-length":1,"overflow":"reject-publish"}'
    await asyncio.to_thread(rabbit_server.ctl, "set_policy", "nacks", "^nacks", policy, "--apply-to", "queues")
    try:
        async with linked_rabbit(rabbit_server.url, "nacks") as link:
            inbound = RabbitInbound(link, 1, topology)
            await until(lambda: inbound.is_ready)
            refused = 0
            while not refused:
                posts = [inbound.post(0, b"%d" % number) for number in range(5)]
                results = await within(asyncio.gather(*posts, return_exceptions=True))
                refused = sum(isinstance(result, PostRefused) for result in results)
                assert not refused or isinstance(results[-1], PostRefused), "nothing passes one that is refused"
                await until(lambda: inbound.is_ready)
            assert inbound.statistics()["nacks"] >= NACKS_MAX
            assert inbound.statistics()["republishes"] > 0
    finally:
        await asyncio.to_thread(rabbit_server.ctl, "clear_policy", "nacks")
