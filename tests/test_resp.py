"""The Redis link: replies belong to whom they belong, whatever breaks. Against a real Redis, and peers that misbehave."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hiredis import ReplyError

from bench.ports import free_port
from bench.servers import RedisServer
from brokerd.config import is_redis_url
from brokerd.links.resp import RespLink
from brokerd.links.resp_stream import Limits
from brokerd.links.resp_url import RedisUrl
from brokerd.ports import LinkDown
from tests.faults.certificates import write_certificate

SOON_S = 10.0


@asynccontextmanager
async def linked(url: str, limits: Limits | None = None) -> AsyncIterator[RespLink]:
    link = RespLink(url, name="resp-test", limits=limits)
    task = asyncio.create_task(link.run())
    try:
        yield link
    finally:
        task.cancel()
        await asyncio.wait([task])


@asynccontextmanager
async def ready(url: str, limits: Limits | None = None) -> AsyncIterator[RespLink]:
    async with linked(url, limits) as link:
        async with asyncio.timeout(SOON_S):
            await link.wait_ready()
        yield link


@pytest.fixture
async def link(redis_server: RedisServer) -> AsyncIterator[RespLink]:
    redis_server.command("FLUSHALL")
    async with ready(redis_server.url) as link:
        yield link


async def wait_until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON_S):
        while not is_so():  # noqa: ASYNC110 - seen from outside, there is no event
            await asyncio.sleep(0.002)


async def echo(link: RespLink, text: str) -> bytes:
    [reply] = await link.pipeline([("ECHO", text)])
    assert isinstance(reply, bytes)
    return reply


@asynccontextmanager
async def stopped(server: RedisServer) -> AsyncIterator[None]:
    """The process is there and does nothing, as behind a cut cable."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


class Peer(asyncio.Protocol):
    """Says OK to a greeting of two commands, then `then` to whatever comes; remembers what came."""

    def __init__(self, then: bytes) -> None:
        self.then = then
        self.came: list[bytes] = []
        self.connects = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.connects += 1
        transport.write(b"+OK\r\n+OK\r\n")

    def data_received(self, data: bytes) -> None:
        if b"SETNAME" not in data:
            self.came.append(data)
            self.transport.write(self.then)


@asynccontextmanager
async def listening(peer: Peer) -> AsyncIterator[str]:
    server = await asyncio.get_running_loop().create_server(lambda: peer, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        peer.transport.abort()
        await server.wait_closed()


# --- replies and their owners


async def test_replies_come_in_the_order_of_the_commands(link: RespLink) -> None:
    replies = await link.pipeline([("SET", "k", b"\x00\xff"), ("GET", "k"), ("GET", "none"), ("INCR", "n")])
    assert replies == [b"OK", b"\x00\xff", None, 1]
    assert await link.pipeline([]) == []


async def test_an_error_is_the_reply_of_its_own_command_alone(link: RespLink) -> None:
    replies = await link.pipeline([("ECHO", "a"), ("HGET", "s"), ("SET", "s", "1"), ("LLEN", "s"), ("ECHO", "b")])
    assert [type(reply) for reply in replies] == [bytes, ReplyError, bytes, ReplyError, bytes]
    assert (replies[0], replies[4]) == (b"a", b"b")
    assert str(replies[3]).startswith("WRONGTYPE")


async def test_callers_of_one_turn_share_one_write() -> None:
    peer = Peer(b"+x\r\n" * 30)
    async with listening(peer) as url, ready(url) as link:
        calls = [link.pipeline([("ECHO", "a")] * 3) for _ in range(10)]
        assert await asyncio.gather(*calls) == [[b"x"] * 3] * 10
    assert len(peer.came) == 1


async def test_a_cancelled_caller_leaves_its_replies_to_nobody(link: RespLink) -> None:
    first = asyncio.create_task(echo(link, "first"))
    second = asyncio.create_task(echo(link, "second"))
    await asyncio.sleep(0)  # both are written
    first.cancel()
    assert await second == b"second"
    assert await echo(link, "third") == b"third"


async def test_replies_never_shift_while_callers_come_fail_and_leave(link: RespLink) -> None:
    chance = random.Random(7)

    async def call(n: int) -> list[bytes]:
        some = [f"{n}.{at}" for at in range(chance.randint(1, 5))]
        broken = [("LLEN", "string")] * chance.randint(0, 2)
        replies = await link.pipeline([*(("ECHO", text) for text in some), *broken])
        assert replies[: len(some)] == [text.encode() for text in some]
        return replies

    await link.pipeline([("SET", "string", "1")])
    for _ in range(20):
        tasks = [asyncio.create_task(call(n)) for n in range(30)]
        await asyncio.sleep(0)
        for task in chance.sample(tasks, 10):
            task.cancel()
        done, _ = await asyncio.wait(tasks)
        assert all(task.cancelled() or task.exception() is None for task in done)
    assert link.statistics()["waiting_commands"] == 0


async def test_what_cannot_be_packed_is_the_callers_fault_and_leaves_no_trace(link: RespLink) -> None:
    with pytest.raises(TypeError):
        await link.pipeline([("ECHO", "a"), ("ECHO", None)])  # type: ignore[list-item]
    assert await echo(link, "b") == b"b"


# --- scripts


async def test_a_script_that_the_server_forgot_is_loaded_and_only_its_commands_repeated(link: RespLink) -> None:
    count = link.learn("return redis.call('INCR', KEYS[1])")
    run = ("EVALSHA", count, 1, "n")
    assert await link.pipeline([("INCR", "plain"), run, ("ECHO", "x"), run]) == [1, 1, b"x", 2]
    await link.pipeline([("SCRIPT", "FLUSH")])
    assert await link.pipeline([("INCR", "plain"), run]) == [2, 3]
    assert link.statistics()["scripts_loaded_again"] == 2


# --- loss and return


async def test_when_the_server_dies_everybody_hears_it_at_once_and_the_link_comes_back(
    link: RespLink, redis_server: RedisServer
) -> None:
    async with stopped(redis_server):
        calls = [asyncio.create_task(echo(link, str(n))) for n in range(20)]
        await asyncio.sleep(0)
        redis_server.kill9()
        async with asyncio.timeout(1.0):  # call_s_max is 5
            done, _ = await asyncio.wait(calls)
        assert all(isinstance(task.exception(), LinkDown) for task in done)
        with pytest.raises(LinkDown):
            await echo(link, "nobody is there")
        redis_server.start()
    async with asyncio.timeout(SOON_S):
        await link.wait_ready()
    assert await echo(link, "again") == b"again"


async def test_before_the_first_connect_and_after_the_end_nobody_waits() -> None:
    link = RespLink("redis://127.0.0.1:1", name="resp-test")
    assert not link.is_ready
    with pytest.raises(LinkDown):
        await link.pipeline([("PING",)])
    async with linked("redis://127.0.0.1:1") as link:
        await wait_until(lambda: link.statistics()["connect_failures"] > 1)
        with pytest.raises(LinkDown):
            await link.pipeline([("PING",)])


async def test_who_waits_when_the_owner_ends_the_link_hears_it(redis_server: RedisServer) -> None:
    async with ready(redis_server.url) as link:
        call = asyncio.create_task(link.pipeline([("BLPOP", "never", 0)]))
        await wait_until(lambda: link.statistics()["waiting_commands"] == 1)
    with pytest.raises(LinkDown):
        await call


async def test_a_late_reply_goes_to_nobody_and_the_next_one_to_its_caller(redis_server: RedisServer) -> None:
    async with ready(redis_server.url, Limits(call_s_max=0.05)) as link:
        async with stopped(redis_server):
            with pytest.raises(LinkDown):
                await echo(link, "late")
        await wait_until(lambda: link.statistics()["waiting_commands"] == 0)
        assert await echo(link, "next") == b"next"
        assert (link.statistics()["late"], link.statistics()["connects"]) == (1, 1)


async def test_a_server_that_owes_a_reply_for_too_long_is_given_up(redis_server: RedisServer) -> None:
    async with ready(redis_server.url, Limits(call_s_max=5, stall_s_max=0.1)) as link:
        async with stopped(redis_server):
            with pytest.raises(LinkDown, match=r"no answer in 0\.1 s"):
                await echo(link, "a")
        await wait_until(lambda: link.statistics()["connects"] == 2)
        assert await echo(link, "b") == b"b"


async def test_a_server_that_became_a_replica_is_left(link: RespLink, redis_server: RedisServer) -> None:
    redis_server.command("REPLICAOF", "127.0.0.1", "1")
    try:
        with pytest.raises(LinkDown, match="READONLY"):
            await link.pipeline([("ECHO", "a"), ("SET", "k", "1"), ("ECHO", "b")])
        await wait_until(lambda: link.statistics()["connects"] >= 2)
    finally:
        redis_server.command("REPLICAOF", "NO", "ONE")
    async with asyncio.timeout(SOON_S):
        await link.wait_ready()
    assert await link.pipeline([("SET", "k", "1")]) == [b"OK"]


@pytest.mark.parametrize("answer", [b"+more\r\n+than\r\n+asked\r\n", b"?what\r\n", b"-LOADING Redis is loading\r\n"])
async def test_a_peer_whose_order_is_in_doubt_is_left(answer: bytes) -> None:
    peer = Peer(answer)
    async with listening(peer) as url, ready(url) as link:
        await asyncio.wait([asyncio.create_task(link.pipeline([("PING",)]))])
        await wait_until(lambda: peer.connects > 1)
        assert link.statistics()["waiting_commands"] == 0


# --- bounds


async def test_beyond_the_bound_callers_are_refused_at_once_and_the_others_served(redis_server: RedisServer) -> None:
    async with ready(redis_server.url, Limits(waiting_commands_max=10)) as link:
        answers = await asyncio.gather(*(echo(link, str(n)) for n in range(15)), return_exceptions=True)
        assert answers[:10] == [b"%d" % n for n in range(10)]
        assert all(isinstance(answer, LinkDown) for answer in answers[10:])
        assert link.statistics()["refused"] == 5
    async with ready(redis_server.url, Limits(waiting_bytes_max=1_000)) as link:
        answers = await asyncio.gather(echo(link, "a" * 5_000), echo(link, "b"), return_exceptions=True)
        assert answers[0] == b"a" * 5_000, "one call may exceed it while nothing else waits"
        assert isinstance(answers[1], LinkDown)
        assert await echo(link, "c") == b"c"


# --- who we say we are


async def test_password_database_and_name_are_said_again_at_every_connect(tmp_path: Path) -> None:
    with RedisServer(tmp_path, appendfsync="no", options=["--requirepass", "s3cret/"]) as server:
        url = f"redis://default:s3cret%2F@127.0.0.1:{server.port}/3"
        async with ready(url) as link:
            for connects in (1, 2):
                await wait_until(lambda connects=connects: link.statistics()["connects"] == connects)
                name, info = await link.pipeline([("CLIENT", "GETNAME"), ("CLIENT", "INFO")])
                assert name == b"resp-test"
                assert b" db=3 " in info
                if connects == 1:
                    await asyncio.wait([asyncio.create_task(link.pipeline([("QUIT",)]))])
        async with linked(url.replace("s3cret", "wrong!")) as link:
            await wait_until(lambda: link.statistics()["connect_failures"] > 0)
            with pytest.raises(LinkDown, match="AUTH refused") as refused:
                await link.pipeline([("PING",)])
            assert "wrong!" not in str(refused.value)


async def test_a_unix_socket_serves_as_well(redis_server: RedisServer) -> None:
    async with ready(redis_server.unix_url) as link:
        assert await echo(link, "a") == b"a"


async def test_a_connection_that_has_just_ended_is_not_taken_for_a_ready_one(link: RespLink) -> None:
    assert link._stream is not None
    link._stream.abort("as when no answer comes")
    waiting = asyncio.create_task(link.wait_ready())
    await asyncio.sleep(0)  # `run` has not seen the end yet
    assert not waiting.done()
    async with asyncio.timeout(SOON_S):
        await waiting
    assert await echo(link, "a") == b"a"


async def test_over_tls_certificate_and_name_are_checked(tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path, "redis")  # for the name localhost
    port = free_port()
    options = ["--tls-port", str(port), "--tls-cert-file", str(certificate), "--tls-key-file", str(key)]
    with RedisServer(tmp_path / "redis", options=[*options, "--tls-auth-clients", "no"]):
        async with ready(f"rediss://localhost:{port}/1?ca={certificate}") as link:
            assert await echo(link, "a") == b"a"
        for url in (f"rediss://localhost:{port}", f"rediss://127.0.0.1:{port}?ca={certificate}"):
            async with linked(url) as link:
                await wait_until(lambda it=link: it.statistics()["connect_failures"] > 0)
                assert "certificate" in link.state.lower(), link.state


def test_authorities_that_cannot_be_read_stop_the_start(tmp_path: Path) -> None:
    assert is_redis_url("rediss://h")
    assert not is_redis_url(f"rediss://h?ca={tmp_path}/none.pem")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h", RedisUrl("h", 6379, None, 0)),
        ("redis://h:1/2", RedisUrl("h", 1, None, 2)),
        ("redis://[::1]:7", RedisUrl("::1", 7, None, 0)),
        ("redis://:p%40@h", RedisUrl("h", 6379, None, 0, None, "p@")),
        ("redis://u:p@h/1", RedisUrl("h", 6379, None, 1, "u", "p")),
        ("unix:///run/redis.sock", RedisUrl("", 0, "/run/redis.sock", 0)),
        ("unix://u:p@/run/redis.sock?db=2", RedisUrl("", 0, "/run/redis.sock", 2, "u", "p")),
        ("rediss://h", RedisUrl("h", 6379, None, 0, has_tls=True)),
        ("rediss://u:p@h:7/3?ca=/a.pem", RedisUrl("h", 7, None, 3, "u", "p", has_tls=True, ca="/a.pem")),
        (
            "rediss+sentinel://h:1,i/main?ca=/a.pem",
            RedisUrl("", 0, None, 0, None, None, (("h", 1), ("i", 26379)), "main", None, True, "/a.pem"),
        ),
    ],
)
def test_addresses_are_read(url: str, expected: RedisUrl) -> None:
    assert RedisUrl.parse(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "h:1",
        "http://h",
        "redis://",
        "redis://:secret@h:x",
        "redis://:secret@h/x",
        "unix://run",
        "unix:///s?x=1",
        "redis://h?ca=/x",
        "rediss://h?x=1",
    ],
)
def test_what_is_no_address_is_refused_with_what_is_allowed_and_without_the_password(url: str) -> None:
    with pytest.raises(ValueError, match="it must be redis://") as fault:
        RedisUrl.parse(url)
    assert "secret" not in str(fault.value)


def test_a_password_is_never_shown() -> None:
    url = RedisUrl.parse("redis://u:secret@h")
    assert "secret" not in repr(url) + url.shown
