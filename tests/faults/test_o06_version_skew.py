"""O06: an older or a newer neighbour. Clients and servers, chatd and brokerd, and what lies in Redis and on disk: it works,
or there is a clear code; nothing is dead-lettered but what is of another version as a whole."""

from __future__ import annotations

import asyncio
import sqlite3
import struct
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import aiormq
import msgpack
import pytest

from bench.cluster import Cluster
from bench.processes import Chatd
from bench.tokens import Mint
from brokerd.links.redis_queue import MONTH_MS
from brokerd.links.sqlite_schema import _STEPS
from protocol.codec import encode
from protocol.connection import OUR_PREFACE
from protocol.envelope import BATCH_VERSION, EntryPost, ParcelKind, PostKind
from protocol.errors import Code
from protocol.messages import Deliver, Error, Send, Welcome
from protocol.names import device_tag, message_id, shard_of
from protocol.wire import FEATURES, HEAD, MAGIC, VERSION_MINOR, Type
from tests.faults.house import House
from tests.faults.raw_client import RawClient, connected, hello, session

SHARDS = 8
NOW_MS = 1_795_000_000_000
FAR_MS = NOW_MS + 10**11
UNKNOWN_TYPE = 200

pytestmark = pytest.mark.timeout(120)


def longer(frame: bytes, *more: Any) -> bytes:
    """The same message of a minor version that has more fields."""
    _, type_, flags, _, ref = HEAD.unpack_from(frame)
    body = msgpack.packb([*msgpack.unpackb(frame[HEAD.size :]), *more])
    return HEAD.pack(len(body), type_, flags, 0, ref) + body


# --- clients


async def test_o06_a_newer_client_is_served_what_both_know(house: House) -> None:
    user = house.new_name("new")
    newer = hello(user, house.mint.token(user))._replace(minor=VERSION_MINOR + 7, features=(*FEATURES, "telepathy"))
    async with house.bystanders(), connected(house.port) as client:
        await client.send(OUR_PREFACE, longer(encode(newer), {"later": 1}, "x"))
        welcome = await client.next(Welcome)
        assert welcome.minor == VERSION_MINOR
        assert set(welcome.features) == set(FEATURES)
        await client.send(longer(encode(Send(1, 0, user, b"to myself", 60)), "a field of tomorrow"))
        assert (await client.next(Deliver)).payload == b"to myself"
        await client.send(HEAD.pack(3, UNKNOWN_TYPE, 0, 0, 77) + b"\x92\x01\x02")
        error = await client.next(Error)
        assert (error.code, error.ref) == (Code.UNSUPPORTED, 77)
        await client.still_works()


async def test_o06_an_older_client_says_less_and_is_served(house: House) -> None:
    user = house.new_name("old")
    older = hello(user, house.mint.token(user))._replace(minor=0, features=())
    async with house.bystanders(), connected(house.port) as client:
        await client.send(OUR_PREFACE, older)
        assert (await client.next(Welcome)).features == ()
        await client.send(Send(1, 0, user, b"plain"))
        assert (await client.next(Deliver)).payload == b"plain"


async def test_o06_another_major_version_is_told_ours(house: House) -> None:
    async with house.bystanders(), connected(house.port) as client:
        await client.send(MAGIC + bytes((OUR_PREFACE[4] + 1, 0, 0, 0)))
        assert (await client.bytes_to_the_end()).startswith(OUR_PREFACE[:5])


# --- daemons


async def publish(cluster: Cluster, queue: str, batch: Any) -> None:
    """As another daemon would."""
    async with aiormq.connect(cluster.rabbit.url) as connection:
        channel = await connection.channel()
        await channel.basic_publish(msgpack.packb(batch), routing_key=queue)


def entry(to: str, cid: int, sender: str = "o06sender") -> EntryPost:
    """One message, as chatd posts it."""
    tag = device_tag(sender, "raw")
    body = msgpack.packb([sender, message_id(tag, cid), NOW_MS, b"%d" % cid])
    return EntryPost(int(PostKind.ENTRY), to, tag, cid, int(Type.DELIVER), 0, FAR_MS, body)


async def dead(cluster: Cluster) -> int:
    """Dead letters."""
    async with aiormq.connect(cluster.rabbit.url) as connection:
        channel = await connection.channel()
        answer = await channel.queue_declare("chat.dead", passive=True)
        assert answer.message_count is not None
        return answer.message_count


@pytest.fixture
def mint(cluster: Cluster) -> Mint:
    return Mint(cluster.nodes[0].data_dir)


async def heard(client: RawClient, count: int) -> list[bytes]:
    return [(await client.next(Deliver)).payload for _ in range(count)]


async def test_o06_posts_of_an_older_and_of_a_newer_chatd_are_worked_off(cluster: Cluster, mint: Mint) -> None:
    user, before = "o06bob", await dead(cluster)
    queue = f"chat.in.{shard_of(user, SHARDS)}"
    async with session(cluster.nodes[0].tcp_port, user, mint.token(user)) as bob:
        older = list(entry(user, 1))[:8]  # before `prev`
        newer = [*entry(user, 2), "a field", {"of": 1}][:-1]
        await publish(cluster, queue, [BATCH_VERSION, "old", [older]])
        await publish(cluster, queue, [BATCH_VERSION, "new", [[99, user, "?"], newer, [98]], "more", 7])
        await publish(cluster, queue, [BATCH_VERSION, "old", [older]])  # a repeat, whoever says it
        await publish(cluster, queue, [BATCH_VERSION, "now", [entry(user, 3)]])
        assert await heard(bob, 3) == [b"1", b"2", b"3"]
    assert await dead(cluster) == before


async def test_o06_parcels_of_an_older_and_of_a_newer_brokerd_are_taken(cluster: Cluster, mint: Mint) -> None:
    user = "o06cat"
    async with session(cluster.nodes[0].tcp_port, user, mint.token(user)) as cat:
        async with connected(cluster.nodes[0].tcp_port) as peek:
            welcome = await peek.hello("o06peek", mint.token("o06peek"))
            assert isinstance(welcome, Welcome)
        await cat.send(Send(1, 0, user, b"first"))
        assert await heard(cat, 1) == [b"first"]
        second = encode(Deliver(2, 0, "o06sender", b"i" * 16, NOW_MS, b"second"))
        parcels = [
            [99, user],
            [int(ParcelKind.FRAMES), user, 2, 2, second, "later"],
            [int(ParcelKind.HEAD), user, 1, 0],
        ]
        await publish(cluster, f"chat.node.{welcome.node}", [BATCH_VERSION, "new", parcels, "more"])
        assert await heard(cat, 1) == [b"second"]
        await cat.still_works()


async def test_o06_a_batch_of_another_version_is_kept_for_a_person_and_stops_nobody(
    cluster: Cluster, mint: Mint
) -> None:
    user, before = "o06dan", await dead(cluster)
    queue = f"chat.in.{shard_of(user, SHARDS)}"
    async with session(cluster.nodes[0].tcp_port, user, mint.token(user)) as dan:
        await publish(cluster, queue, [BATCH_VERSION + 1, "later", [entry(user, 1)]])
        await publish(cluster, queue, [BATCH_VERSION, "now", [entry(user, 2)]])
        assert await heard(dan, 1) == [b"2"]
    while await dead(cluster) == before:
        continue
    assert await dead(cluster) == before + 1


# --- what lies there


async def test_o06_what_an_older_brokerd_left_in_redis_is_read_and_told_from_repeats(
    cluster: Cluster, mint: Mint
) -> None:
    user, redis = "o06eve", cluster.redis
    first = entry(user, 5)
    base = f"u:{{{user}}}:"
    redis.command("HSET", base + "m", "e", "1", "g", b"oldgener", "f", "0", "b", "0", "d", "0", "w", "0")
    redis.command("RPUSH", base + "q", struct.pack(">BBQ", first.type, first.flags, first.expires_ms) + first.body)
    redis.command("HSET", f"{base}d:{time.time_ns() // 1_000_000 // MONTH_MS}", first.origin, "5")
    queue = f"chat.in.{shard_of(user, SHARDS)}"
    async with session(cluster.nodes[0].tcp_port, user, mint.token(user)) as eve:
        assert await heard(eve, 1) == [b"5"]
        for post in (entry(user, 4), first, entry(user, 6)):
            await publish(cluster, queue, [BATCH_VERSION, "now", [post]])
        assert await heard(eve, 1) == [b"6"]


async def test_o06_the_file_of_an_older_embedded_server_is_brought_up_to_date(tmp_path: Path) -> None:
    server = Chatd(tmp_path / "chatd")
    mint, post = Mint(server.data_dir), entry("fay", 1)
    with closing(sqlite3.connect(server.data_dir / "queue.sqlite")) as file:
        for statement in _STEPS[0].split(";\n"):
            file.execute(statement)
        file.execute("INSERT INTO users (user, generation, head, bytes) VALUES ('fay', ?, 1, ?)", (b"g" * 8, 10))
        values = (1, 1, post.type, post.flags, post.expires_ms, post.body)
        file.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)", values)
        file.execute("PRAGMA user_version = 1")
        file.commit()
    server.start()
    async with session(server.tcp_port, "fay", mint.token("fay")) as fay:
        assert await heard(fay, 1) == [b"1"]
        await fay.send(Send(1, 0, "fay", b"goes on"))
        assert await heard(fay, 1) == [b"goes on"]
    assert await asyncio.to_thread(server.stop) == 0
