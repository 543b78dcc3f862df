"""Peers that connect and then say nothing, or a byte now and then: each is cut in its time, at every stage, and others
notice nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import pytest

from bench.processes import Chatd
from bench.tokens import Mint
from protocol.codec import encode
from protocol.connection import OUR_PREFACE
from protocol.errors import Code
from protocol.messages import Error, Message
from tests.faults.house import House
from tests.faults.raw_client import RawClient, connected, hello, session

LOGIN_S_MAX = 1
KEEPALIVE_S = 2  # bystanders are silent for longer than a login takes
SLACK_S = 2.5  # a tick of the server, and a slow machine
CROWD = 300

HELLO = encode(hello("slow", "x" * 60))


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A chatd that waits a second for a login, and four for a sign of life."""
    folder = tmp_path_factory.mktemp("hasty")
    mint = Mint(folder)
    env = {"CHATD_LIMITS_LOGIN_S_MAX": str(LOGIN_S_MAX), "CHATD_LIMITS_KEEPALIVE_S": str(KEEPALIVE_S)}
    server = Chatd(folder, env=env)
    server.start()
    house = House(server, mint)
    yield house
    assert server.stop() == 0
    house.check_log()


async def cut(peer: RawClient, within_s: float) -> list[Message]:
    """What comes until the server closes, which it must do within this time."""
    begun_s = time.monotonic()
    messages = await peer.rest()
    assert time.monotonic() - begun_s < within_s + SLACK_S
    return messages


async def said_and_cut(house: House, said: bytes) -> list[Message]:
    """Say this and no more; what comes until the server closes."""
    async with connected(house.port) as peer:
        await peer.send(said)
        return await cut(peer, LOGIN_S_MAX)


async def test_who_never_shows_that_he_speaks_our_language_is_cut_without_a_word(hasty: House) -> None:
    async with hasty.bystanders():
        said = (b"", b"C", OUR_PREFACE[:7])
        assert await asyncio.gather(*(said_and_cut(hasty, part) for part in said)) == [[], [], []]


async def test_who_does_not_finish_his_hello_is_told_and_cut(hasty: House) -> None:
    async with hasty.bystanders():
        parts = (HELLO[:kept] for kept in (0, 1, 15, 16, len(HELLO) - 1))
        for [error] in await asyncio.gather(*(said_and_cut(hasty, OUR_PREFACE + part) for part in parts)):
            assert isinstance(error, Error)
            assert error.code == Code.LOGIN_TIMEOUT


async def test_a_byte_now_and_then_buys_no_time_before_login(hasty: House) -> None:
    async with hasty.bystanders(), connected(hasty.port) as peer, asyncio.TaskGroup() as tasks:
        dribbling = tasks.create_task(_dribble(peer))
        [error] = await cut(peer, LOGIN_S_MAX)
        dribbling.cancel()
        assert isinstance(error, Error)
        assert error.code == Code.LOGIN_TIMEOUT


async def _dribble(peer: RawClient) -> None:
    async for part in _slowly(OUR_PREFACE + HELLO):
        await peer.send(part)


async def _slowly(data: bytes) -> AsyncIterator[bytes]:
    for at in range(len(data)):
        await asyncio.sleep(0.1)
        yield data[at : at + 1]


async def test_a_session_that_falls_silent_is_told_and_cut(hasty: House) -> None:
    user = hasty.new_name()
    async with session(hasty.port, user, hasty.mint.token(user)) as peer:
        errors = [message for message in await cut(peer, 2 * KEEPALIVE_S) if isinstance(message, Error)]
        assert [error.code for error in errors] == [Code.SILENT]


async def test_a_crowd_that_says_nothing_is_gone_in_its_time(hasty: House) -> None:
    async with AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(connected(hasty.port)) for _ in range(CROWD)]
        async with hasty.bystanders():
            pass
        ends = await asyncio.gather(*(cut(peer, LOGIN_S_MAX) for peer in peers))
        assert ends == [[]] * CROWD
