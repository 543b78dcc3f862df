"""What is the Redis store's own, beside the contracts: crashes in the middle, keys of a wrong type, a full memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import structlog

from bench.servers import RedisServer
from brokerd.links.redis import RedisStore
from brokerd.links.redis_queue import DEDUPE_S, SEEN_AGAIN_MS
from brokerd.links.resp import RespLink
from brokerd.ports import FULL, REPEAT, Ack, Append, Entry, LinkDown, Seat
from protocol.wire import Flag, Type
from tests.contracts.store_factories import linked_redis

NOW = 1_700_000_000_000
GEN = b"12345678"
USERS = [f"user{n}" for n in range(40)]


@pytest.fixture
async def link(redis_server: RedisServer) -> AsyncIterator[RespLink]:
    redis_server.command("FLUSHALL")
    async with linked_redis(redis_server.url) as link:
        yield link


@pytest.fixture
async def store(link: RespLink) -> RedisStore:
    """A store in which all USERS are known with one device."""
    store = RedisStore(link, log=structlog.get_logger())
    await asyncio.gather(*(store.open(user, "phone", GEN, NOW) for user in USERS))
    return store


def entry(cid: int, *, expires_ms: int = 0, flags: int = 0) -> Entry:
    return Entry(b"ann's tag", cid, int(Type.DELIVER), flags, expires_ms, b"letter %d" % cid)


def batch(first: int, last: int) -> list[Append]:
    return [Append(user, [entry(cid) for cid in range(first, last + 1)]) for user in USERS]


async def wait_ready(link: RespLink) -> None:
    async with asyncio.timeout(10):
        await link.wait_ready()


async def test_a_kill_in_the_middle_of_many_saves_loses_nothing_and_stores_nothing_twice(
    link: RespLink, store: RedisStore, redis_server: RedisServer
) -> None:
    saves = [asyncio.create_task(store.append(batch(5 * n + 1, 5 * n + 5), NOW)) for n in range(40)]
    done, _ = await asyncio.wait(saves, return_when=asyncio.FIRST_COMPLETED)
    assert done
    redis_server.kill9()
    answers = await asyncio.gather(*saves, return_exceptions=True)
    assert any(isinstance(answer, LinkDown) for answer in answers)
    with pytest.raises(LinkDown):
        await store.heads(["user0"])
    redis_server.start()
    await wait_ready(link)
    for n, answer in enumerate(answers):  # what was answered is there, what was not is repeated
        again = await store.append(batch(5 * n + 1, 5 * n + 5), NOW)
        if not isinstance(answer, BaseException):
            assert all(set(item.results) == {REPEAT} for item in again)
    for user in USERS:
        page = await store.read(user, 0, 1_000, 10**9)
        assert [item.body for item in page.entries] == [b"letter %d" % cid for cid in range(1, 201)]


async def test_a_user_whose_keys_are_broken_is_refused_alone(store: RedisStore, redis_server: RedisServer) -> None:
    await store.append(batch(1, 1), NOW)
    redis_server.command("SET", "u:{user1}:q", "not a list")
    redis_server.command("SET", "u:{user2}:r", "not a hash")
    redis_server.command("SET", "u:{user3}:m", "not a hash")
    answers = await store.append(batch(2, 3), NOW)
    assert [list(answer.results) for answer in answers[:5]] == [[2, 3], [FULL] * 2, [FULL] * 2, [FULL] * 2, [2, 3]]
    acks = [Ack(user, "phone", 2, 0) for user in USERS]
    assert len(await store.acknowledge(acks, NOW)) == len(USERS)
    assert await store.heads(["user0", "user1", "user4"]) == [3, 0, 3]
    status = await store.status("user4")
    assert status is not None
    assert status.floor == 2
    for call in (store.read("user1", 0, 1, 1), store.open("user3", "phone", GEN, NOW), store.seats(["user2"])):
        with pytest.raises(LinkDown, match="WRONGTYPE"):
            await call
    redis_server.command("DEL", "u:{user2}:r")
    [answer] = await store.append([Append("user2", [entry(2)])], NOW)
    assert list(answer.results) == [2], "nothing was half done"


async def test_without_memory_the_store_is_down_and_nobody_is_refused(
    store: RedisStore, redis_server: RedisServer
) -> None:
    redis_server.command("CONFIG", "SET", "maxmemory", "1")
    try:
        with pytest.raises(LinkDown, match="OOM"):
            await store.append(batch(1, 1), NOW)
    finally:
        redis_server.command("CONFIG", "SET", "maxmemory", "0")
    assert [list(answer.results) for answer in await store.append(batch(1, 1), NOW)] == [[1]] * len(USERS)


async def test_a_sweep_that_a_crash_kept_off_the_schedule_is_put_on_by_the_repeat(
    store: RedisStore, redis_server: RedisServer
) -> None:
    sent = [Append("user1", [entry(1, expires_ms=NOW + 5)])]
    await store.append(sent, NOW)
    redis_server.command("DEL", "sweep")
    await store.append(sent, NOW)
    assert await store.due(NOW + 5, 10) == ["user1"]


async def test_a_user_that_is_forgotten_leaves_no_key(store: RedisStore, redis_server: RedisServer) -> None:
    month_ms = 30 * 24 * 3600 * 1000
    for back in (1, 0):
        sent = Append("user1", [entry(9 - back, expires_ms=NOW)])
        await store.append([sent], NOW - back * month_ms)
    await store.note_trouble("user1", "phone", 402, NOW)
    await store.claim("user1", Seat("phone", "east~1", "s1"))
    await store.delete_user("user1")
    await store.release("user1", Seat("phone", "east~1", "s1"))
    assert redis_server.command("KEYS", "*user1}*") == b"*0\r\n"
    assert await store.due(NOW, 10) == []


async def test_dedupe_hashes_end_by_themselves(store: RedisStore, redis_server: RedisServer) -> None:
    await store.append(batch(1, 1), NOW)
    ttl = int(redis_server.command("TTL", f"u:{{user1}}:d:{NOW // (30 * 24 * 3600 * 1000)}")[1:])
    assert DEDUPE_S - 100 < ttl <= DEDUPE_S


async def test_a_session_that_lives_on_keeps_its_device_known(link: RespLink) -> None:
    store = RedisStore(link, log=structlog.get_logger(), retention_s=10 * SEEN_AGAIN_MS / 1000)
    await store.open("bob", "phone", GEN, NOW)
    await store.open("bob", "tablet", GEN, NOW)
    await store.append([Append("bob", [entry(1, flags=Flag.NONE)])], NOW)
    later = NOW + 9 * SEEN_AGAIN_MS
    await store.acknowledge([Ack("bob", "phone", 1, 0)], later)
    opened = await store.open("bob", "watch", GEN, later + 2 * SEEN_AGAIN_MS)
    assert opened.devices == 2, "the phone acknowledged, the tablet did nothing"


async def test_seats_are_raw_in_an_append_and_living_in_the_register(store: RedisStore) -> None:
    stale, live = Seat("phone", "dead~1", "s1"), Seat("tablet", "east~1", "s2")
    await store.renew_lease("east~1", 60_000)
    await store.claim("user1", stale)
    await store.claim("user1", live)
    [answer] = await store.append([Append("user1", [entry(1)])], NOW)
    assert sorted(answer.seats) == [stale, live]
    assert await store.seats(["user1"]) == [[live]]


async def test_when_all_is_settled_or_buried_no_ack_looks_for_receipts(
    store: RedisStore, redis_server: RedisServer
) -> None:
    await store.append([Append("user1", [entry(cid, flags=Flag.RECEIPT) for cid in range(1, 6)])], NOW)
    await store.bury("user1", [2, 5], 402, NOW)
    await store.acknowledge([Ack("user1", "phone", 5, 0)], NOW)
    assert redis_server.command("HGET", "u:{user1}:m", "w") == b"$1\r\n3\r\n"
    await store.acknowledge([Ack("user1", "phone", 5, 4)], NOW)
    assert redis_server.command("HMGET", "u:{user1}:m", "w", "f") == b"*2\r\n$1\r\n0\r\n$1\r\n5\r\n"


async def test_what_is_owed_names_the_generation_of_its_queue(store: RedisStore) -> None:
    await store.append([Append("user1", [entry(1, flags=Flag.RECEIPT)])], NOW)
    [answer] = await store.acknowledge([Ack("user1", "phone", 1, 0)], NOW)
    assert [owed.seq for owed in answer.owed] == [1]
    assert answer.generation == GEN
