"""Redis with replicas and sentinels: what counts as saved, who is taken for the primary, what a server that lags may do."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog

from bench.sentinel import NAME, SentinelServer
from bench.sentinel import QUICK as QUICK_SYNC
from bench.servers import RedisServer
from brokerd.links.redis import RedisStore
from brokerd.links.resp import RespLink
from brokerd.links.resp_stream import Limits
from brokerd.links.resp_url import RedisUrl
from brokerd.links.sentinels import find_primary
from brokerd.ports import REPEAT, Append, Entry, LinkDown
from protocol.wire import Type

NOW = 1_700_000_000_000
GEN = b"12345678"
QUICK = Limits(replicas_s_max=0.3)
SOON_S = 20.0


class Pair:
    """A server and its replica."""

    def __init__(self, folder: Path) -> None:
        self.primary, self.replica = RedisServer(folder / "p", options=QUICK_SYNC), RedisServer(folder / "r")
        self.primary.start()
        self.replica.start()
        self.replica.command("REPLICAOF", "127.0.0.1", str(self.primary.port))

    def is_in_step(self) -> bool:
        return b"state=online" in self.primary.command("INFO", "replication")


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    made = Pair(tmp_path)
    await until(made.is_in_step)
    yield made
    made.replica.end()
    made.primary.end()


@pytest.fixture
def lone_sentinel(tmp_path: Path, pair: Pair) -> Iterator[SentinelServer]:
    """A sentinel that takes the replica for the primary."""
    sentinel = SentinelServer(tmp_path / "s", pair.replica, 60_000)
    sentinel.start()
    yield sentinel
    sentinel.end()


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON_S):
        while not is_so():  # noqa: ASYNC110 - seen from outside, there is no event
            await asyncio.sleep(0.01)


@asynccontextmanager
async def stored(url: str, replicas: int) -> AsyncIterator[tuple[RedisStore, RespLink]]:
    link = RespLink(url, name="replicas", limits=QUICK, wait_replicas=replicas)
    store = RedisStore(link, log=structlog.get_logger())
    task = asyncio.create_task(link.run())
    try:
        async with asyncio.timeout(SOON_S):
            await link.wait_ready()
        yield store, link
    finally:
        task.cancel()
        await asyncio.wait([task])


def letters(first: int, last: int) -> list[Append]:
    entries = [
        Entry(b"ann's tag", cid, int(Type.DELIVER), 0, 0, b"letter %d" % cid, 0) for cid in range(first, last + 1)
    ]
    return [Append("bob", entries)]


async def append(store: RedisStore, first: int, last: int) -> list[int]:
    [answer] = await store.append(letters(first, last), NOW)
    return list(answer.results)


async def saved(store: RedisStore, first: int, last: int) -> list[int]:
    """The same, repeated until the replica has it: a crowded machine may need a second try."""
    async with asyncio.timeout(SOON_S):
        while True:
            try:
                return await append(store, first, last)
            except LinkDown:
                continue


async def known(store: RedisStore) -> None:
    """bob is there, on the replica as well."""
    async with asyncio.timeout(SOON_S):
        while True:
            try:
                await store.open("bob", "phone", GEN, NOW)
            except LinkDown:
                continue
            return


async def test_an_append_that_is_repeated_on_a_server_that_has_it_is_a_repeat_and_on_one_that_lacks_it_is_stored(
    pair: Pair,
) -> None:
    async with stored(pair.primary.url, 1) as (store, _):
        await known(store)
        assert await saved(store, 1, 2) in ([1, 2], [REPEAT, REPEAT])
        pair.replica.command("REPLICAOF", "NO", "ONE")
        with pytest.raises(LinkDown, match="1 replicas are wanted, 0 have it"):
            await append(store, 3, 4)
    pair.primary.kill9()
    async with stored(pair.replica.url, 0) as (store, _):
        assert await append(store, 1, 2) == [REPEAT, REPEAT]
        assert await append(store, 3, 4) == [3, 4]


async def test_what_too_few_replicas_have_is_not_saved_however_often_and_from_wherever_it_is_repeated(
    pair: Pair,
) -> None:
    async with stored(pair.primary.url, 1) as (store, link):
        await known(store)
        short = link.statistics()["replicas_short"]  # a replica that has just come may miss the first WAIT
        os.kill(pair.replica.pid, signal.SIGSTOP)
        try:
            for _ in range(2):
                with pytest.raises(LinkDown, match="0 have it"):
                    await append(store, 1, 2)
            assert await store.heads(["bob"]) == [2], "it is there, but that does not count"
            async with stored(pair.primary.url, 1) as (other, _):
                with pytest.raises(LinkDown, match="0 have it"):
                    await append(other, 1, 2)
            assert link.statistics()["replicas_short"] == short + 2
        finally:
            os.kill(pair.replica.pid, signal.SIGCONT)
        assert await saved(store, 1, 2) == [REPEAT, REPEAT]
        assert b"letter 2" in pair.replica.command("LRANGE", "u:{bob}:q", "0", "-1")


async def test_a_primary_that_wants_replicas_and_has_none_and_a_replica_are_down_and_nobody_is_refused(
    pair: Pair,
) -> None:
    async with stored(pair.primary.url, 0) as (store, _), stored(pair.replica.url, 0) as (behind, link):
        await store.open("bob", "phone", GEN, NOW)
        await until(lambda: b"12345678" in pair.replica.command("HGET", "u:{bob}:m", "g"))
        with pytest.raises(LinkDown, match="READONLY"):
            await append(behind, 1, 1)
        assert not link.is_ready, "a replica is left at once"
        pair.primary.command("CONFIG", "SET", "min-replicas-to-write", "2")
        with pytest.raises(LinkDown, match="NOREPLICAS"):
            await append(store, 1, 1)
        pair.primary.command("CONFIG", "SET", "min-replicas-to-write", "1")
        assert await append(store, 1, 1) == [1]


def waits_of(server: RedisServer) -> int:
    stats = server.command("INFO", "commandstats")
    return int(stats.partition(b"cmdstat_wait:calls=")[2].partition(b",")[0])


async def test_all_saves_of_one_turn_wait_for_the_replicas_together(pair: Pair) -> None:
    async with stored(pair.primary.url, 1) as (store, link):
        await known(store)
        before, waits = link.statistics()["commands"], waits_of(pair.primary)
        await asyncio.gather(*(store.open(f"user{n}", "phone", GEN, NOW) for n in range(50)))
        assert (waits_of(pair.primary) - waits, link.statistics()["commands"] - before) == (1, 50)


async def test_a_server_that_comes_back_without_its_newest_entries_gives_their_seqs_to_nothing_else(
    tmp_path: Path,
) -> None:
    with RedisServer(tmp_path / "redis") as server:
        await _lose_the_newest(server, tmp_path / "older")


async def _lose_the_newest(server: RedisServer, older: Path) -> None:
    async with stored(server.url, 0) as (store, link):
        await store.open("bob", "phone", GEN, NOW)
        assert await append(store, 1, 3) == [1, 2, 3]
        shutil.copytree(server.folder / "appendonlydir", older)
        assert await append(store, 4, 5) == [4, 5]
        server.kill9()
        shutil.rmtree(server.folder / "appendonlydir")
        shutil.copytree(older, server.folder / "appendonlydir")
        server.start()
        await until(lambda: link.statistics()["other_servers"] == 1 and link.is_ready)
        page = await store.read("bob", 0, 100, 10**6)
        assert page.head == 5
        assert [entry.body for entry in page.entries[:3]] == [b"letter 1", b"letter 2", b"letter 3"]
        assert [entry.type for entry in page.entries[3:]] == [0, 0], "tombstones"
        assert await append(store, 4, 6) == [6, 7, 8], "whoever sends it again is not told that it is there"
        assert (await store.open("bob", "phone", b"87654321", NOW)).generation == GEN


async def test_a_replica_is_never_taken_for_the_primary_whatever_a_sentinel_says(
    pair: Pair, lone_sentinel: SentinelServer
) -> None:
    link = RespLink(f"redis+sentinel://127.0.0.1:{lone_sentinel.port}/{NAME}", name="replicas")
    task = asyncio.create_task(link.run())
    try:
        await until(lambda: "not a primary" in link.state)
        assert link.statistics()["connects"] == 0
        pair.replica.command("REPLICAOF", "NO", "ONE")
        async with asyncio.timeout(SOON_S):
            await link.wait_ready()
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_sentinels_that_are_away_or_know_nothing_are_told_apart_from_one_that_knows(
    pair: Pair, lone_sentinel: SentinelServer
) -> None:
    def url(name: str, *ports: int) -> RedisUrl:
        return RedisUrl.parse(f"redis+sentinel://{','.join(f'127.0.0.1:{port}' for port in ports)}/{name}")

    known = await find_primary(url(NAME, pair.primary.port, 1, lone_sentinel.port))
    assert known.address == ("127.0.0.1", pair.replica.port)
    with pytest.raises(LinkDown, match="no sentinel knows"):
        await find_primary(url("other", lone_sentinel.port))
    with pytest.raises(LinkDown, match="no sentinel knows"):
        await find_primary(url(NAME, 1, 2))


def test_the_address_of_sentinels_has_their_hosts_a_name_and_what_belongs_to_the_servers() -> None:
    url = RedisUrl.parse("redis+sentinel://u:p%2C@a,b:5,[::1]:6/chat/3?sentinel_password=s")
    assert url.sentinels == (("a", 26379), ("b", 5), ("::1", 6))
    assert (url.primary, url.db, url.user, url.password, url.sentinel_password) == ("chat", 3, "u", "p,", "s")
    assert url.shown == "chat of a:26379,b:5,::1:6"
    assert "p," not in repr(url)


@pytest.mark.parametrize("rest", ["hush@a", "hush@a/", "hush@a,,b/n", "hush@a:x/n", "hush@a/n/x", "hush@a/n?hush=1"])
def test_an_address_of_sentinels_that_is_not_whole_is_refused_without_its_secrets(rest: str) -> None:
    with pytest.raises(ValueError, match="sentinel") as refused:
        RedisUrl.parse(f"redis+sentinel://:{rest}")
    assert "hush" not in str(refused.value)
