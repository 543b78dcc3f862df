"""F12: a Redis at its maxmemory, a disk with no room: nothing accepted is lost, memory can be freed, and all of it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import structlog

from bench.cluster import Cluster
from bench.servers import RedisServer
from brokerd.links.redis import RedisStore
from brokerd.links.resp import RespLink
from brokerd.ports import Ack, Append, Entry, LinkDown, PartlySaved, Seat
from protocol.wire import Type
from tests.overload import full
from tests.overload.full import Eater, may_mount, small_disk
from tests.overload.site import Site
from tests.overload.watch import until

pytestmark = pytest.mark.timeout(180)
MIB = 2**20
G = b"g" * 8
NOW_MS = 1_700_000_000_000
needs_root = pytest.mark.skipif(not may_mount(), reason=full.NO_ROOT)


@asynccontextmanager
async def linked(redis: RedisServer) -> AsyncIterator[RedisStore]:
    link = RespLink(redis.url, name="full")
    store = RedisStore(link, log=structlog.get_logger())
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(link.run())
        await link.wait_ready()
        yield store
        running.cancel()


@pytest.fixture
def roomy(redis_server: RedisServer) -> Iterator[RedisServer]:
    """The shared Redis, with all its memory back afterwards."""
    redis_server.command("FLUSHALL")
    yield redis_server
    redis_server.command("CONFIG", "SET", "maxmemory", "0")
    redis_server.command("FLUSHALL")


def append(user: str, cid: int, size: int) -> Append:
    return Append(user, [Entry(b"o" * 9, cid, Type.DELIVER, 0, NOW_MS * 2, bytes(size))])


def set_room(redis: RedisServer, room: int) -> None:
    used = full._info(redis.command("INFO", "memory"), b"used_memory")
    redis.command("CONFIG", "SET", "maxmemory", str(used + room))


async def test_f12_in_a_full_redis_everything_works_that_frees_memory(roomy: RedisServer) -> None:
    async with linked(roomy) as store:
        await store.open("ann", "phone", G, NOW_MS)
        await store.append([append("ann", 1, 4 * MIB)], NOW_MS)
        set_room(roomy, -MIB)
        with pytest.raises(LinkDown, match="OOM"):
            await store.append([append("ann", 2, 100)], NOW_MS)
        await store.renew_lease("n1", 60_000)
        await store.claim("bob", Seat("phone", "n1", "s"))
        assert (await store.seats(["bob"])) == [[Seat("phone", "n1", "s")]]
        assert (await store.open("ann", "phone", G, NOW_MS)).head == 1
        assert len((await store.read("ann", 0, 10, MIB)).entries) == 1
        await store.acknowledge([Ack("ann", "phone", 1, 0)], NOW_MS)
        [taken] = await store.append([append("ann", 2, 100)], NOW_MS)
        assert taken.results == [2]


async def test_f12_what_a_filling_redis_took_is_known_to_be_taken(roomy: RedisServer) -> None:
    users = [f"u{number}" for number in range(24)]
    async with linked(roomy) as store:
        for user in users:
            await store.open(user, "phone", G, NOW_MS)
        set_room(roomy, 12 * MIB)
        all_ = [append(user, 1, MIB) for user in users]
        with pytest.raises(PartlySaved) as caught:
            await store.append(all_, NOW_MS)
        taken = [user for user, answer in zip(users, caught.value.appended, strict=True) if answer is not None]
        assert 0 < len(taken) < len(users)
        assert sorted(await store.due(NOW_MS * 3, 100)) == sorted(taken), "they are swept in their time"
        set_room(roomy, 64 * MIB)
        again = await store.append(all_, NOW_MS)
        assert [answer.results for answer in again] == [[0] if user in taken else [1] for user in users]


async def test_f12_redis_at_maxmemory_senders_are_busy_and_receivers_make_room(cluster_site_: Site) -> None:
    row = await full.redis_full(cluster_site_, room_mib=8, payload_bytes=4096, s_max=20.0)
    assert row.wrong == []


@needs_root
async def test_f12_sqlite_on_a_full_disk_says_busy_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    row = await full.sqlite_disk_full(tmp_path / "disk")
    assert row.wrong == []


@needs_root
async def test_f12_redis_on_a_full_disk_keeps_all_it_answered(tmp_path: Path) -> None:
    with small_disk(tmp_path / "r", 16) as disk, RedisServer(disk / "d") as redis:
        eater, taken = Eater(disk), []
        async with linked(redis) as store:
            await store.open("ann", "phone", G, NOW_MS)
            taken += (await store.append([append("ann", 1, 1000)], NOW_MS))[0].results
            eater.eat()
            with suppress(LinkDown):
                for cid in range(2, 2000):
                    taken += (await store.append([append("ann", cid, 10_000)], NOW_MS))[0].results
        assert await until(lambda: not full._lives(redis.pid), 10.0), "with appendfsync always it ends"
        eater.give_back()
        await asyncio.to_thread(redis.restart)
        async with linked(redis) as store:
            assert await store.heads(["ann"]) in ([taken[-1]], [taken[-1] + 1])  # the last one may have no answer
            assert (await store.append([append("ann", 3000, 100)], NOW_MS))[0].results[0] > taken[-1]


@pytest.fixture
def cluster_site_(cluster: Cluster) -> Site:
    from bench.tokens import Mint

    return Site("cluster", cluster.nodes, Mint(cluster.nodes[0].data_dir), cluster)
