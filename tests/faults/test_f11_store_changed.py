"""F11: Redis comes back empty, or another one in its place. It is noticed and told, and never taken for "no such user" or
"no messages"; an operator settles it with one command. Embedded, the same for a file that was lost or replaced."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bench.cluster import Cluster
from bench.processes import Chatd, Daemon, DaemonDied
from bench.servers import RedisServer
from bench.tokens import Mint
from protocol.errors import Code
from protocol.messages import Accepted, Deliver, Drained, Error, Receipt, Send, Welcome
from protocol.wire import Flag, Status
from tests.faults.raw_client import RawClient, connected, session
from tests.faults.talk import wait_ready
from tests.web.raw import connect, get

pytestmark = pytest.mark.timeout(150)


@pytest.fixture
async def settled(cluster: Cluster) -> AsyncIterator[Cluster]:
    """The cluster, whose store is accepted in the end as it is."""
    yield cluster
    if not cluster.redis.is_running:
        await asyncio.to_thread(cluster.redis.start)
    await asyncio.to_thread(cluster.nodes[0].ctl, "store", "accept")


async def refused_login(node: Chatd, user: str, token: str) -> int:
    """The code with which a login is refused."""
    async with connected(node.tcp_port) as raw:
        answer = await raw.hello(user, token)
        assert isinstance(answer, Error), answer
        return answer.code


async def wait_changed(node: Chatd, mint: Mint) -> None:
    """Until a login is told that the store has changed."""
    async with asyncio.timeout(30):
        while await refused_login(node, "somebody", mint.token("somebody")) != Code.STORE_CHANGED:
            continue


async def the_end(client: RawClient) -> list[int]:
    """The codes of the errors that come until the server closes."""
    return [message.code for message in await client.rest() if isinstance(message, Error)]


@pytest.mark.parametrize("how", ["emptied", "lost its disk"])
async def test_f11_a_redis_that_came_back_empty_ends_sessions_and_bounces_nothing(settled: Cluster, how: str) -> None:
    node = settled.nodes[0]
    mint, tag = Mint(node.data_dir), how[0]
    ann, bob = f"ann-{tag}", f"bob-{tag}"
    await asyncio.to_thread(node.add_user, bob)  # has a password, and is away
    async with session(node.tcp_port, ann, mint.token(ann)) as client:
        for broker in settled.brokers:
            broker.signal(signal.SIGSTOP)  # what is accepted now is worked off only when the store has changed
        try:
            await client.send(Send(1, Flag.RECEIPT, bob, b"accepted before"))
            assert await client.next(Accepted) == Accepted(1, 0, (1,))
            await lose(settled.redis, how)
        finally:
            for broker in settled.brokers:
                broker.signal(signal.SIGCONT)
        assert Code.STORE_CHANGED in await the_end(client)
    await wait_ready(node, not_up="redis")
    await wait_changed(node, mint)
    async with connect(node.http_port) as raw:
        asked = await raw.ask(get(f"/api/users/{bob}/presence", f"Authorization: Bearer {mint.token(ann)}"))
        assert (asked.status, asked.fields["code"]) == (503, Code.STORE_CHANGED)
    with pytest.raises(subprocess.CalledProcessError) as refused:
        await asyncio.to_thread(node.ctl, "queue", bob)
    assert "chatctl store accept" in refused.value.stderr
    for daemon in (*settled.nodes, *settled.brokers):
        await logged(daemon, "store_changed")
    await asyncio.to_thread(node.ctl, "store", "accept")
    await wait_ready(node)
    async with session(node.tcp_port, bob, mint.token(bob)) as receiver:
        assert (await receiver.next(Deliver)).payload == b"accepted before"
    async with connected(node.tcp_port) as again:
        assert isinstance(await again.hello(ann, mint.token(ann)), Welcome)
        failed = [it for it in await until_drained(again) if isinstance(it, Receipt) and it.status == Status.FAILED]
        assert failed == []


async def logged(daemon: Daemon, event: str) -> None:
    """Until it stands in the daemon's log."""
    async with asyncio.timeout(30):
        while f'"{event}"' not in daemon.log_path.read_text():  # noqa: ASYNC110 - it is another process
            await asyncio.sleep(0.05)


async def lose(redis: RedisServer, how: str) -> None:
    """All that Redis holds, while it runs or while it is away."""
    if how == "emptied":
        redis.command("FLUSHALL")
        return
    redis.kill9()
    for file in (redis.folder / "appendonlydir").iterdir():
        file.unlink()
    await asyncio.to_thread(redis.start)


async def until_drained(client: RawClient) -> list[object]:
    """What waited at login."""
    came: list[object] = []
    while not isinstance(message := await client.message(), Drained):
        assert message is not None
        came.append(message)
    return came


async def test_f11_a_store_that_is_brought_back_goes_on_by_itself(settled: Cluster, tmp_path: Path) -> None:
    node = settled.nodes[0]
    mint = Mint(node.data_dir)
    async with session(node.tcp_port, "gil", mint.token("gil")):
        pass
    async with session(node.tcp_port, "hal", mint.token("hal")) as hal:
        await hal.send(Send(1, 0, "gil", b"kept"))
        await hal.next(Accepted)
    kept = settled.redis.folder / "appendonlydir"
    async with asyncio.timeout(20):
        while ": 1 kept" not in await asyncio.to_thread(node.ctl, "queue", "gil"):
            continue
    settled.redis.kill9()
    kept.rename(tmp_path / "aside")
    await asyncio.to_thread(settled.redis.start)  # on a wrong disk
    await wait_changed(node, mint)
    settled.redis.kill9()
    for file in kept.iterdir():
        file.unlink()
    kept.rmdir()
    (tmp_path / "aside").rename(kept)
    await asyncio.to_thread(settled.redis.start)
    await wait_ready(node)
    async with session(node.tcp_port, "gil", mint.token("gil")) as gil:
        assert (await gil.next(Deliver)).payload == b"kept"


async def test_f11_daemons_that_start_on_an_emptied_redis_notice_it_too(settled: Cluster) -> None:
    node = settled.nodes[0]
    for daemon in (*settled.brokers, *settled.nodes):
        daemon.kill9()  # nobody who knew it lives
    settled.redis.command("FLUSHALL")
    for daemon in (*settled.brokers, *settled.nodes):
        daemon.begin()
    await asyncio.to_thread(node.wait_ready)
    await wait_changed(node, Mint(node.data_dir))
    assert settled.redis.command("DBSIZE").strip() == b":0", "nobody writes into it"


@pytest.mark.parametrize("how", ["lost", "replaced"])
def test_f11_an_embedded_server_does_not_start_on_another_file(
    embedded_server: Chatd, tmp_path: Path, how: str
) -> None:
    embedded_server.stop()
    for file in embedded_server.data_dir.glob("queue.sqlite*"):
        file.unlink()
    if how == "replaced":
        other = Chatd(tmp_path / "other")
        other.start()
        other.stop()
        (other.data_dir / "queue.sqlite").rename(embedded_server.data_dir / "queue.sqlite")
    with pytest.raises(DaemonDied, match="chatctl store accept"):
        embedded_server.start()
    assert embedded_server.stop() == 1
    embedded_server.ctl("store", "accept")
    embedded_server.start()


async def test_f11_an_embedded_server_whose_file_is_taken_away_ends_its_sessions(embedded_server: Chatd) -> None:
    mint = Mint(embedded_server.data_dir)
    file = embedded_server.data_dir / "queue.sqlite"
    async with session(embedded_server.tcp_port, "ann", mint.token("ann")) as ann:
        aside = file.with_suffix(".aside")
        file.rename(aside)
        assert Code.STORE_CHANGED in await the_end(ann)
        await wait_ready(embedded_server, not_up="store")
        assert await refused_login(embedded_server, "ann", mint.token("ann")) == Code.STORE_CHANGED
        aside.rename(file)
        await wait_ready(embedded_server)
