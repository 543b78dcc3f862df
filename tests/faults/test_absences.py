"""What clients are told while a part of the cluster is away, and how a node that stops says good-bye."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator

import pytest

from bench.cluster import Cluster
from bench.processes import Chatd
from bench.tokens import Mint
from protocol.errors import Code
from protocol.messages import Accepted, Ack, Bye, Deliver, Error, GoAway, Ping, Pong, Send, Welcome
from protocol.wire import Processed
from tests.faults.raw_client import connected, session
from tests.faults.talk import wait_ready
from tests.web.raw import connect, get

pytestmark = pytest.mark.timeout(150)


@pytest.fixture
async def all_well(cluster: Cluster) -> AsyncIterator[Cluster]:
    """The cluster with every part up, before and after."""
    for node in cluster.nodes:
        await wait_ready(node)
    yield cluster
    for node in cluster.nodes:
        await wait_ready(node)


@pytest.fixture
def mint(cluster: Cluster) -> Mint:
    return Mint(cluster.nodes[0].data_dir)  # one folder for all nodes


async def test_while_redis_is_away_logins_are_put_off_and_sessions_go_on(all_well: Cluster, mint: Mint) -> None:
    node = all_well.nodes[0]
    tokens = {user: mint.token(user) for user in ("abe", "bea", "cleo")}
    async with session(node.tcp_port, "abe", tokens["abe"]) as abe, session(node.tcp_port, "bea", tokens["bea"]) as bea:
        all_well.redis.kill9()
        try:
            await wait_ready(node, not_up="redis")
            await abe.send(Send(1, 0, "bea", b"later"))
            assert await abe.next(Accepted) == Accepted(1, 0, (1,))
            await abe.send(Ping(0, 0))
            assert not (await abe.next(Pong)).known  # nobody can say what is newest now
            async with connected(node.tcp_port) as cleo:
                answer = await cleo.hello("cleo", tokens["cleo"])
                assert isinstance(answer, Error)
                assert answer.code == Code.STORE_DOWN
                assert answer.retry_after_ms > 0
                assert await cleo.rest() == []
            async with connect(node.http_port) as raw:
                asked = await raw.ask(get("/api/users/bea/presence", f"Authorization: Bearer {tokens['abe']}"))
                assert (asked.status, asked.fields["code"]) == (503, Code.STORE_DOWN)
            with pytest.raises(subprocess.CalledProcessError) as refused:
                await asyncio.to_thread(node.add_user, "dan")
            assert "Traceback" not in refused.value.stderr
        finally:
            await asyncio.to_thread(all_well.redis.start)
        assert (await bea.next(Deliver)).payload == b"later"
        await wait_ready(node)
        async with session(node.tcp_port, "cleo", tokens["cleo"]):
            pass
        assert await asyncio.to_thread(node.add_user, "dan")  # the failed one left nothing half done


async def test_while_rabbitmq_is_away_a_send_is_busy_at_once_and_what_waits_can_be_fetched(
    all_well: Cluster, mint: Mint
) -> None:
    first, second = all_well.nodes
    async with session(first.tcp_port, "fay", mint.token("fay")) as fay:
        async with session(second.tcp_port, "gus", mint.token("gus")):
            pass
        await fay.send(Send(1, 0, "gus", b"waits"))
        await fay.next(Accepted)
        await _stored(first, "gus")
        all_well.rabbit.kill9()
        try:
            await wait_ready(first, not_up="rabbitmq")
            await fay.send(Send(2, 0, "gus", b"no"))
            error = await fay.next(Error)
            assert (error.code, error.ref, error.processed) == (Code.BUSY, 2, Processed.NO)
            assert error.retry_after_ms > 0
            async with session(second.tcp_port, "gus", mint.token("gus")) as gus:
                assert (await gus.next(Deliver)).payload == b"waits"
        finally:
            await all_well.rabbit.start_soon()
        for node in all_well.nodes:
            await wait_ready(node)
        await fay.send(Send(2, 0, "gus", b"no"), Send(3, 0, "gus", b"again"))  # ready means that it is taken
        accepted: set[int] = set()
        while accepted != {2, 3}:
            accepted |= set((await fay.next(Accepted)).cids)
        async with session(second.tcp_port, "gus", mint.token("gus")) as gus:
            heard = [await gus.next(Deliver) for _ in range(3)]
            assert [message.payload for message in heard] == [b"waits", b"no", b"again"]


async def _stored(node: Chatd, user: str) -> None:
    """Until the user's queue holds something."""
    async with asyncio.timeout(10):
        while "nothing waits" in await asyncio.to_thread(node.ctl, "queue", user):
            continue


async def test_a_node_that_stops_sends_its_clients_elsewhere_and_loses_nothing(all_well: Cluster, mint: Mint) -> None:
    first, second = all_well.nodes
    async with (
        session(first.tcp_port, "hal", mint.token("hal")) as hal,
        session(second.tcp_port, "ivy", mint.token("ivy")) as ivy,
        asyncio.TaskGroup() as tasks,
    ):
        await ivy.send(Send(1, 0, "hal", b"before"))
        assert (await hal.next(Deliver)).ref == 1
        await hal.send(Ack(1, 0))
        stopping = tasks.create_task(asyncio.to_thread(first.stop))
        away = await hal.next(GoAway)
        assert away.reason == Code.GOING_AWAY
        assert away.after_ms_min <= away.after_ms_max <= 10_000
        await wait_ready(first, not_up="node")
        with pytest.raises(ConnectionRefusedError):
            async with connected(first.tcp_port):
                pass
        await ivy.send(Send(2, 0, "hal", b"meanwhile"))
        assert (await hal.next(Deliver)).ref == 2  # it goes on until the client leaves
        await hal.send(Send(1, 0, "ivy", b"one more"), Bye(0, 0))
        assert (await ivy.next(Deliver)).payload == b"one more"
        assert await stopping == 0
        assert all_well.redis.command("HLEN", "u:{hal}:r").strip() == b":0"
        async with connected(second.tcp_port) as hal:
            welcome = await hal.hello("hal", mint.token("hal"))
            assert isinstance(welcome, Welcome)
            assert welcome.cursor == 1
            assert (await hal.next(Deliver)).payload == b"meanwhile"
    await first.restart()
