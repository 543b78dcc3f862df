"""F08: a chatd stands still for longer than its lease, its users log in elsewhere, and it goes on as if nothing had been.

The newer session stays, the older one is told REPLACED and delivers nothing; who stayed on the old node goes on there."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from bench.cluster import Cluster
from bench.tokens import Mint
from protocol.errors import Code
from protocol.messages import Accepted, Deliver, Error, Ping, Pong, Send
from tests.faults.frozen import frozen, heartbeats_over, lease_over, taken_for_dead
from tests.faults.raw_client import RawClient, session
from tests.faults.sampling import IS_LONG

HOW = ["its links stand", "RabbitMQ took it for dead", *(["its heartbeats ended"] if IS_LONG else [])]

pytestmark = pytest.mark.timeout(150)


@pytest.mark.parametrize("how", HOW)
async def test_f08_the_newer_session_of_a_frozen_node_stays_and_the_older_is_fenced(cluster: Cluster, how: str) -> None:
    old, new = cluster.nodes
    mint, tag = Mint(old.data_dir), HOW.index(how)
    ann, bob, cat = (f"f08{name}-{tag}" for name in ("ann", "bob", "cat"))

    async with (
        session(old.tcp_port, bob, mint.token(bob)) as older,
        session(old.tcp_port, cat, mint.token(cat)) as stayed,
        session(new.tcp_port, ann, mint.token(ann)) as sender,
        AsyncExitStack() as later,
    ):
        async with frozen(old):
            await say(sender, 1, (bob, cat), b"early")  # handed over while its lease stood: it waits in its socket
            if how == "RabbitMQ took it for dead":
                await taken_for_dead(cluster.rabbit, old.env["CHATD_NODE"])
            elif how == "its heartbeats ended":
                await heartbeats_over(cluster.rabbit, old.env["CHATD_NODE"])
            await lease_over(cluster.redis, old)
            newer = await later.enter_async_context(session(new.tcp_port, bob, mint.token(bob)))
            await say(sender, 3, (bob, cat), b"late")
            assert [(await newer.next(Deliver)).payload for _ in range(2)] == [b"early", b"late"]
        ended = [message for message in await older.rest() if isinstance(message, Deliver | Error)]
        assert [getattr(message, "code", "a delivery") for message in ended] == [Code.REPLACED]
        assert [(await stayed.next(Deliver)).payload for _ in range(2)] == [b"early", b"late"]
        await newer.send(Ping(0, 0))
        assert (await newer.next(Pong)).ref == 2
        await say(sender, 5, (bob, cat), b"after")
        assert [(await client.next(Deliver)).payload for client in (newer, stayed)] == [b"after"] * 2


async def say(sender: RawClient, cid: int, to: tuple[str, ...], text: bytes) -> None:
    """One message to each, accepted."""
    for number, user in enumerate(to, cid):
        await sender.send(Send(number, 0, user, text))
        assert await sender.next(Accepted) == Accepted(number, 0, (number,))
