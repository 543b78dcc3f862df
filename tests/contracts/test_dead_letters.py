"""Dead letters: an operator sees all of them, and each is kept, dropped, or put back to its shard, whole, once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import aiormq
import pytest
import structlog

from bench.ports import free_port
from bench.rabbit_server import RabbitServer
from brokerd.links.amqp import RabbitInbound, RabbitShards, Topology
from brokerd.links.amqp_dead_letters import RabbitDeadLetters
from brokerd.links.dead_letters import FileDeadLetters, ReturnTray, append_dead_letter, read_dead_letters
from brokerd.links.memory import MemoryQueue
from brokerd.ports import Delivery, LinkDown, Shards
from brokerd.support_ports import NO_SHARD, DeadLetter, DeadLetters, Verdict
from tests.core.back_room import until
from tests.rabbit_links import linked_rabbit

SHARDS = 2


class Morgue(NamedTuple):
    """Where batches are buried, looked at, and where they come back."""

    letters: DeadLetters
    bury: Callable[[int, bytes, str], Coroutine[Any, Any, None]]
    shards: Shards


@asynccontextmanager
async def a_file(request: pytest.FixtureRequest) -> AsyncIterator[Morgue]:
    path: Path = request.getfixturevalue("tmp_path") / "dead-letters"
    queue = MemoryQueue(dead_letters_path=path)

    async def bury(shard: int, body: bytes, reason: str) -> None:
        await queue.bury(Delivery(shard, body, False, lambda: None), reason)

    async with asyncio.TaskGroup() as tasks:
        tray = tasks.create_task(ReturnTray(path, SHARDS, queue, structlog.get_logger()).run())
        yield Morgue(FileDeadLetters(path), bury, queue)
        tray.cancel()


@asynccontextmanager
async def a_rabbitmq(request: pytest.FixtureRequest) -> AsyncIterator[Morgue]:
    server: RabbitServer = request.getfixturevalue("rabbit_server")
    topology = Topology(f"test-{uuid4().hex}")
    async with linked_rabbit(server.url, "dead") as link:
        inbound = RabbitInbound(link, SHARDS, topology)

        async def bury(shard: int, body: bytes, reason: str) -> None:
            await until(lambda: inbound.is_ready)
            await inbound.bury(shard, body, reason)

        yield Morgue(RabbitDeadLetters(server.url, topology, SHARDS), bury, RabbitShards(link, inbound, topology))


MAKERS: dict[str, Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[Morgue]]] = {
    "file": a_file,
    "rabbitmq": a_rabbitmq,
}


@pytest.fixture(params=list(MAKERS))
async def morgue(request: pytest.FixtureRequest) -> AsyncIterator[Morgue]:
    """An empty one of each technology."""
    async with MAKERS[request.param](request) as made:
        yield made


async def seen(morgue: Morgue) -> list[DeadLetter]:
    """All letters; none is touched."""
    found: list[DeadLetter] = []

    def keep(letter: DeadLetter) -> Verdict:
        found.append(letter)
        return Verdict.KEEP

    assert await morgue.letters.walk(keep) == (len(found), False)
    return found


async def test_every_letter_is_shown_with_its_shard_reason_time_and_body_the_oldest_first(morgue: Morgue) -> None:
    for number in range(3):
        await morgue.bury(number % SHARDS, b"%d" % number * 100_000, f"why {number}")
    letters = await seen(morgue)
    assert [(it.shard, it.reason, it.body) for it in letters] == [
        (number % SHARDS, f"why {number}", b"%d" % number * 100_000) for number in range(3)
    ]
    assert all(it.at_ms > 1_700_000_000_000 for it in letters)
    assert [it.at_ms for it in letters] == sorted(it.at_ms for it in letters)


async def test_looking_changes_nothing(morgue: Morgue) -> None:
    for number in range(5):
        await morgue.bury(0, b"%d" % number, "why")
    first = await seen(morgue)
    assert [it.body for it in first] == [b"0", b"1", b"2", b"3", b"4"]
    assert await seen(morgue) == first


async def test_where_nothing_died_nothing_is_shown(morgue: Morgue) -> None:
    assert await seen(morgue) == []


async def test_what_is_dropped_is_gone_and_the_others_stay_in_their_order(morgue: Morgue) -> None:
    for number in range(4):
        await morgue.bury(0, b"%d" % number, "why")
    await morgue.letters.walk(lambda it: Verdict.DROP if it.body in (b"0", b"2") else Verdict.KEEP)
    assert [it.body for it in await seen(morgue)] == [b"1", b"3"]
    await morgue.bury(0, b"4", "why")
    assert [it.body for it in await seen(morgue)] == [b"1", b"3", b"4"]


async def test_what_is_put_back_comes_to_its_shard_once_and_is_gone_from_here(morgue: Morgue) -> None:
    came: list[tuple[int, bytes]] = []

    def take(delivery: Delivery) -> None:
        came.append((delivery.shard, delivery.body))
        delivery.done()

    for number in range(3):
        await morgue.bury(1, b"%d" % number, "why")
    for shard in range(SHARDS):
        await morgue.shards.consume(shard, take)
    await morgue.letters.walk(lambda it: Verdict.KEEP if it.body == b"1" else Verdict.REQUEUE)
    await until(lambda: len(came) == 2)
    assert came == [(1, b"0"), (1, b"2")]
    assert [it.body for it in await seen(morgue)] == [b"1"]
    await morgue.letters.walk(lambda it: Verdict.REQUEUE)
    await until(lambda: len(came) == 3)
    assert came[2] == (1, b"1")


async def test_another_letter_can_be_put_back_in_its_place(morgue: Morgue) -> None:
    came: list[bytes] = []

    def take(delivery: Delivery) -> None:
        came.append(delivery.body)
        delivery.done()

    await morgue.bury(1, b"old", "why")
    await morgue.shards.consume(1, take)
    await morgue.letters.walk(lambda it: it._replace(body=b"new"))
    await until(lambda: came == [b"new"])
    assert await seen(morgue) == []


# --- the file alone


def letter(number: int, shard: int = 0) -> DeadLetter:
    return DeadLetter(shard, "why", 0, b"%d" % number)


def test_what_a_crash_left_half_written_does_not_spoil_what_is_buried_later(tmp_path: Path) -> None:
    path = tmp_path / "dead-letters"
    for number in range(2):
        append_dead_letter(path, letter(number))
    path.write_bytes(path.read_bytes()[:-3])
    append_dead_letter(path, letter(2))
    assert [it.body for it in read_dead_letters(path)] == [b"0", b"2"]


async def test_a_letter_waits_in_the_tray_until_a_server_runs(tmp_path: Path) -> None:
    path, queue, came = tmp_path / "dead-letters", MemoryQueue(), list[bytes]()

    def take(delivery: Delivery) -> None:
        came.append(delivery.body)
        delivery.done()

    append_dead_letter(path, letter(1))
    assert (await FileDeadLetters(path).walk(lambda _: Verdict.REQUEUE)).shown == 1
    assert list(read_dead_letters(path)) == []
    await queue.consume(0, take)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(ReturnTray(path, SHARDS, queue, structlog.get_logger()).run())
        await until(lambda: not list((tmp_path / "dead-letters.return").iterdir()))
        running.cancel()
    assert came == [b"1"]


async def test_what_is_put_back_to_a_shard_that_there_is_not_lies_with_the_dead_letters_again(tmp_path: Path) -> None:
    path = tmp_path / "dead-letters"
    append_dead_letter(path, letter(1, shard=SHARDS))
    await FileDeadLetters(path).walk(lambda _: Verdict.REQUEUE)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(ReturnTray(path, SHARDS, MemoryQueue(), structlog.get_logger()).run())
        await until(lambda: bool(list(read_dead_letters(path))))
        running.cancel()
    assert [it.reason for it in read_dead_letters(path)] == [f"returned, but there is no shard {SHARDS}"]


async def test_a_file_of_something_else_is_told_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "dead-letters"
    path.write_bytes(b"\0\0\0\5notes")
    with pytest.raises(LinkDown, match="dead-letters"):
        await FileDeadLetters(path).walk(lambda _: Verdict.DROP)
    assert path.read_bytes() == b"\0\0\0\5notes"


# --- RabbitMQ alone


async def test_without_rabbitmq_the_dead_letters_can_not_be_reached() -> None:
    letters = RabbitDeadLetters(f"amqp://guest:hush@127.0.0.1:{free_port()}/", Topology("none"), SHARDS)
    with pytest.raises(LinkDown) as refused:
        await letters.walk(lambda _: Verdict.KEEP)
    assert "hush" not in str(refused.value)


async def test_what_somebody_else_put_there_is_shown_without_a_shard(rabbit_server: RabbitServer) -> None:
    topology = Topology(f"test-{uuid4().hex}")
    letters = RabbitDeadLetters(rabbit_server.url, topology, SHARDS)
    await letters.walk(lambda _: Verdict.KEEP)  # declares the queue
    async with aiormq.connect(rabbit_server.url) as connection:
        await (await connection.channel()).basic_publish(b"?", routing_key=topology.dead)
    found: list[DeadLetter] = []

    def drop(letter: DeadLetter) -> Verdict:
        found.append(letter)
        return Verdict.DROP

    await letters.walk(drop)
    assert found == [DeadLetter(NO_SHARD, "no reason was given", 0, b"?")]
