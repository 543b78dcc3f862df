"""The SQLite sent_queue and the disk: nothing is answered before it is synced, whoever waits for it, and what a failed sync means."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from brokerd.links import sqlite_ledger, sqlite_schema, sqlite_writer
from brokerd.links import sqlite_upkeep as upkeep
from brokerd.links.file_sync import FileSync, open_sync
from brokerd.links.sqlite import SqliteSentQueue
from brokerd.links.sqlite_ledger import Ledger
from brokerd.ports import REPEAT, Ack, Append, Entry, LinkDown
from protocol.wire import Type

GENERATION = b"genera01"
NOW_MS = 1_700_000_000_000


def appends(*cids: int, to: str = "bob", origin: bytes = b"ann-phone") -> list[Append]:
    return [Append(to, [Entry(origin, cid, int(Type.DELIVER), 0, 0, b"hello") for cid in cids])]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sent_queue.db"


@pytest.fixture(params=["kernel", "thread"])
async def queue(
    path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[SqliteSentQueue]:
    """Synced by the kernel itself, and by a thread, as where the kernel does not."""
    if request.param == "thread":
        monkeypatch.setattr(sqlite_writer, "open_sync", lambda loop, done: None)
    async with SqliteSentQueue(path) as opened:
        await opened.open("bob", "phone", GENERATION, NOW_MS)
        await opened.append(appends(1), NOW_MS)
        yield opened


@contextmanager
def sync_fails(queue: SqliteSentQueue) -> Iterator[None]:
    """The file whose sync is asked for is a pipe, which has none."""
    wal = queue._writer._wal
    kept = os.dup(wal)
    ends = os.pipe()
    os.dup2(ends[1], wal)
    try:
        yield
    finally:
        os.dup2(kept, wal)
        for fd in (kept, *ends):
            os.close(fd)


async def test_what_is_known_is_decided_on_the_loop_and_the_rest_in_the_thread(queue: SqliteSentQueue) -> None:
    where: list[int] = []

    def warm(ledger: Ledger) -> bool:
        where.append(threading.get_ident())
        return ledger.known("bob") is not None

    await queue._writer.call(lambda _: where.append(threading.get_ident()), is_warm=warm)
    assert where == [threading.get_ident()] * 2
    await queue._writer.call(lambda _: where.append(threading.get_ident()), is_warm=lambda _: False)
    assert where[-1] != threading.get_ident()


@dataclass
class Held:
    """Syncs that are asked for and not done."""

    asked: asyncio.Event
    goes: Callable[[], None]


def hold(writer: sqlite_writer.GroupWriter, monkeypatch: pytest.MonkeyPatch) -> Held:
    """From now on they wait, until `goes`."""
    loop, asked, sync = asyncio.get_running_loop(), asyncio.Event(), writer._sync
    if sync is None:
        goes, sync_here = threading.Event(), writer._sync_here

        def wait_here() -> OSError | None:
            loop.call_soon_threadsafe(asked.set)
            goes.wait()
            return sync_here()

        monkeypatch.setattr(writer, "_sync_here", wait_here)
        return Held(asked, goes.set)

    def go() -> None:
        monkeypatch.undo()
        sync.start(writer._wal)

    monkeypatch.setattr(sync, "start", lambda _: asked.set())
    return Held(asked, go)


async def test_a_call_that_cannot_even_be_looked_at_fails_alone(queue: SqliteSentQueue) -> None:
    [good] = appends(3)
    bad = Append("bob", [Entry([1], 2, int(Type.DELIVER), 0, 0, b"hello")])  # type: ignore[arg-type]
    answers = await asyncio.gather(
        queue.append([bad], NOW_MS), queue.acknowledge([Ack("bob", "phone", 1, 0)], NOW_MS), return_exceptions=True
    )
    assert isinstance(answers[0], TypeError)
    assert not isinstance(answers[1], BaseException)
    assert [it.results for it in await queue.append([good], NOW_MS)] == [[2]]


async def test_nothing_is_answered_before_it_is_synced_and_what_comes_meanwhile_is_one_commit(
    queue: SqliteSentQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = queue.statistics().commits
    held = hold(queue._writer, monkeypatch)
    first = asyncio.ensure_future(queue.append(appends(2), NOW_MS))
    await held.asked.wait()
    others = [asyncio.ensure_future(queue.append(appends(cid), NOW_MS)) for cid in (3, 4)]
    for _ in range(100):
        await asyncio.sleep(0)
    assert not first.done()
    assert queue.statistics().commits == before + 1
    held.goes()
    assert [appended[0].results for appended in await asyncio.gather(first, *others)] == [[2], [3], [4]]
    assert queue.statistics().commits == before + 2


async def test_a_sync_that_fails_is_link_down_and_then_all_is_copied_into_the_file_before_anything_is_answered(
    queue: SqliteSentQueue, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_schema, "BUSY_MS_MAX", 20)
    with sync_fails(queue):
        with pytest.raises(LinkDown):
            await queue.append(appends(2), NOW_MS)
        assert queue.trouble
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM users").fetchall()  # while he reads, the WAL may not be copied
            for call in (
                queue.append(appends(2), NOW_MS),
                queue.acknowledge([Ack("bob", "phone", 1, 0)], NOW_MS),
                queue.heads(["bob"]),
            ):
                with pytest.raises(LinkDown):
                    await call
    [appended] = await queue.append(appends(2, 3), NOW_MS)
    assert appended.results == [REPEAT, 3]  # it was written, and nobody was told so before it was on the disk
    assert queue.trouble == ""
    assert await queue.heads(["bob"]) == [3]


async def test_a_sync_that_fails_in_the_thread_is_link_down_too(queue: SqliteSentQueue) -> None:
    with sync_fails(queue), pytest.raises(LinkDown):
        await queue.create_user("cid", GENERATION, NOW_MS)
    assert not await queue.create_user("cid", GENERATION, NOW_MS)


async def test_what_was_committed_before_its_connection_was_given_up_is_synced_or_not_answered(
    queue: SqliteSentQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    def give_up(_: Ledger) -> None:
        queue._writer._give_up_ledger()

    monkeypatch.setattr(queue._writer, "_sync_here", lambda: OSError("no"))
    calls: list[asyncio.Future[Any]] = [
        queue._writer.call(partial(upkeep.create_user, user="cid", generation=GENERATION)),
        queue._writer.call(give_up),
    ]
    created, given_up = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(created, LinkDown)
    assert isinstance(given_up, Exception)
    monkeypatch.undo()
    assert await queue.has_user("bob")


@pytest.mark.pure
async def test_a_journal_that_cannot_be_tidied_is_tried_again_behind_each_group_and_in_nobodys_way(
    queue: SqliteSentQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[bool] = []

    def tidy(_: Ledger, *, folds: bool = False) -> bool:
        tries.append(folds)
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(sqlite_ledger, "JOURNAL_BYTES_TIDY", 1)
    monkeypatch.setattr(Ledger, "tidy", tidy)
    for cid in (2, 3):
        await queue.append(appends(cid), NOW_MS)
    assert await queue.heads(["bob"]) == [3]
    assert 2 <= len(tries) <= 4  # the group before these, and the last one, may be among them
    assert queue.trouble


async def test_a_file_that_another_process_holds_does_not_stop_the_loop(queue: SqliteSentQueue, path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    append = asyncio.ensure_future(queue.append(appends(2), NOW_MS))
    begun_s = asyncio.get_running_loop().time()
    for _ in range(100):
        await asyncio.sleep(0)
    assert asyncio.get_running_loop().time() - begun_s < 1
    assert not append.done()
    other.execute("COMMIT")
    other.close()
    assert [it.results for it in await append] == [[2]]


async def test_the_kernel_tells_that_a_sync_is_done_and_that_it_cannot(path: Path) -> None:
    heard: asyncio.Queue[OSError | None] = asyncio.Queue()
    sync = open_sync(asyncio.get_running_loop(), heard.put_nowait)
    assert isinstance(sync, FileSync)
    file = os.open(path, os.O_CREAT | os.O_RDWR)
    for _ in range(3):
        os.write(file, b"some")
        sync.start(file)
        assert await heard.get() is None
    sync._rung()  # for nothing
    assert heard.empty()
    ends = os.pipe()
    with pytest.raises(OSError, match="does not sync"):
        sync.start(ends[1])
    for fd in (file, *ends):
        os.close(fd)
    sync.close()
