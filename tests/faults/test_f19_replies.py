"""F19: one reply in the middle of a pipeline is an error, or the connection dies after half of the replies. Nobody ever
gets another one's reply: no message can go to another user's node."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import structlog
from hiredis import ReplyError

from bench.servers import RedisServer
from brokerd.links.redis import RedisStore
from brokerd.links.resp import RespLink
from brokerd.ports import FULL, Append, Appended, Entry, LinkDown, Seat
from protocol.wire import Type
from tests.faults.rabbit_daemon import within

NOW = 1_700_000_000_000
USERS = [f"user{n}" for n in range(30)]
CALLERS = 40
CUTS = 25


class Scissors:
    """A way to Redis whose answers end after so many bytes; the connection with them."""

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.left: int | None = None  # bytes of answers until the cut; None: no cut
        self.cuts = 0
        self._target_port = target_port
        self._tasks: set[asyncio.Task[None]] = set()
        self._ends: list[asyncio.StreamWriter] = []

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Scissors]:
        """While the block lasts."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for end in self._ends:
                end.transport.abort()
            await asyncio.sleep(0)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, to_redis = await asyncio.open_connection("127.0.0.1", self._target_port)
        self._ends += [writer, to_redis]
        for work in (self._pass_on(reader, to_redis), self._answer(answers, writer, to_redis)):
            self._tasks.add(asyncio.create_task(work))

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65_536):
            sink.write(data)
        sink.close()

    async def _answer(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, to_redis: asyncio.StreamWriter
    ) -> None:
        while data := await source.read(65_536):
            if self.left is not None and len(data) > self.left:
                data, self.left = data[: self.left], None
                self.cuts += 1
                sink.write(data)
                await sink.drain()
                break
            if self.left is not None:
                self.left -= len(data)
            sink.write(data)
        sink.close()
        to_redis.close()


@asynccontextmanager
async def linked(port: int) -> AsyncIterator[RespLink]:
    """A link that comes back at once."""
    link = RespLink(f"redis://127.0.0.1:{port}", name="f19", wait_s=lambda most_s: 0.005)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(link.run())
        await within(link.wait_ready())
        yield link
        running.cancel()


@pytest.fixture
async def scissors(redis_server: RedisServer) -> AsyncIterator[Scissors]:
    redis_server.command("FLUSHALL")
    async with Scissors(redis_server.port).serving() as cutting:
        yield cutting


async def asked(link: RespLink, caller: int) -> bool:
    """One pipeline of a caller, with errors in the middle. False when the connection died; other replies are a breach."""
    words = [f"{caller}.{at}" for at in range(5)]
    broken = ("LLEN", "text")
    try:
        replies = await link.pipeline([("ECHO", words[0]), broken, *(("ECHO", word) for word in words[1:]), broken])
    except LinkDown:
        return False
    assert [reply for reply in replies if not isinstance(reply, ReplyError)] == [word.encode() for word in words]
    assert [type(replies[at]) for at in (1, -1)] == [ReplyError] * 2
    return True


async def test_f19_a_connection_that_dies_after_half_of_the_replies_gives_nobody_anothers(scissors: Scissors) -> None:
    dice = random.Random(19)
    async with linked(scissors.port) as link:
        await link.pipeline([("SET", "text", "1")])
        whole = 0
        for _ in range(CUTS):
            scissors.left = dice.randrange(1, CALLERS * 150)
            whole += sum(await asyncio.gather(*(asked(link, caller) for caller in range(CALLERS))))
            await within(link.wait_ready())
    assert scissors.cuts == CUTS
    assert 0 < whole < CUTS * CALLERS, "some were answered, and some were cut"


@pytest.mark.parametrize("fault", ["WRONGTYPE", "NOSCRIPT", "OOM", "READONLY"])
async def test_f19_an_error_in_the_middle_of_a_round_touches_nobody_else(
    redis_server: RedisServer, scissors: Scissors, fault: str
) -> None:
    async with stored(redis_server, scissors) as store:
        batch = [Append(user, [Entry(b"o", 1, int(Type.DELIVER), 0, 0, user.encode())]) for user in USERS]
        try:
            for at, user in enumerate(USERS):
                if fault == "WRONGTYPE" and at % 3 == 1:
                    redis_server.command("SET", f"u:{{{user}}}:q", "no list")
            if fault == "NOSCRIPT":
                redis_server.command("SCRIPT", "FLUSH")
            elif fault == "OOM":
                redis_server.command("CONFIG", "SET", "maxmemory", "1")
            elif fault == "READONLY":
                redis_server.command("REPLICAOF", "127.0.0.1", "1")
            if fault in ("OOM", "READONLY"):
                with pytest.raises(LinkDown, match=fault):  # for all: nothing is known, and the round is repeated
                    await store.append(batch, NOW)
        finally:
            redis_server.command("CONFIG", "SET", "maxmemory", "0")
            redis_server.command("REPLICAOF", "NO", "ONE")
        async with asyncio.timeout(20):
            while (appended := await tried(store, batch)) is None:
                continue
        assert_own(appended, [FULL if fault == "WRONGTYPE" and at % 3 == 1 else 1 for at in range(len(USERS))])


async def test_f19_a_round_that_is_cut_anywhere_finds_every_user_where_he_is(
    redis_server: RedisServer, scissors: Scissors
) -> None:
    dice = random.Random(91)
    async with stored(redis_server, scissors) as store:
        for cid in range(1, CUTS + 1):
            batch = [Append(user, [Entry(b"o", cid, int(Type.DELIVER), 0, 0, b"")]) for user in USERS]
            scissors.left = dice.randrange(1, 1200)
            async with asyncio.timeout(20):
                while (appended := await tried(store, batch)) is None:
                    continue
            scissors.left = None
            assert_own(appended)
            assert await store.heads(USERS) == [cid] * len(USERS), "once, whoever was answered"
    assert scissors.cuts > CUTS // 2


@asynccontextmanager
async def stored(redis: RedisServer, scissors: Scissors) -> AsyncIterator[RedisStore]:
    """A store in which every user sits on a node of his own."""
    async with linked(scissors.port) as link:
        store = RedisStore(link, log=structlog.get_logger())
        for user in USERS:
            await store.open(user, "phone", b"g" * 8, NOW)
            await store.claim(user, Seat("phone", f"node-of-{user}", "1"))
        yield store


async def tried(store: RedisStore, batch: list[Append]) -> list[Appended] | None:
    """What brokerd does: once more when the link is down."""
    try:
        return await store.append(batch, NOW)
    except LinkDown:
        await asyncio.sleep(0.02)
        return None


def assert_own(appended: list[Appended], results: list[int] | None = None) -> None:
    """Everybody's answer is his own."""
    for at, (user, answer) in enumerate(zip(USERS, appended, strict=True)):
        if results is not None:
            assert list(answer.results) == [results[at]]
        assert [seat.node for seat in answer.seats] == ([f"node-of-{user}"] if answer.head else [])
