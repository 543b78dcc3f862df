"""What only the SQLite sent_queue promises: group commit, a full disk, a second process on the same file, its cache.

What every sent_queue promises is in tests/contracts; kill -9 is in test_sqlite_kill.py.
"""

from __future__ import annotations

import asyncio
import sqlite3
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from brokerd.links import sqlite_ledger
from brokerd.links.memory import MemoryRegister
from brokerd.links.sqlite import SqliteSentQueue
from brokerd.links.sqlite_moves import DAY_MS, OWED_MAX, read
from brokerd.links.sqlite_schema import SCHEMA_VERSION, StoreTooNew
from brokerd.links.sqlite_upkeep import DEDUPE_DAYS
from brokerd.ports import FULL, NO_USER, REPEAT, Ack, Append, Entry, LinkDown, Seat
from protocol.wire import Flag, Type

GENERATION = b"genera01"
NOW_MS = 1_700_000_000_000


def message(
    cid: int, body: bytes = b"hello", *, origin: bytes = b"ann-phone", flags: int = 0, expires_ms: int = 0
) -> Entry:
    return Entry(origin, cid, int(Type.DELIVER), flags, expires_ms, body)


async def append_one(queue: SqliteSentQueue, user: str, entry: Entry, now_ms: int = NOW_MS) -> int:
    [appended] = await queue.append([Append(user, [entry])], now_ms)
    return appended.results[0]


async def bodies(queue: SqliteSentQueue, user: str) -> list[bytes]:
    return [entry.body for entry in (await queue.read(user, 0, 100_000, 1 << 40)).entries]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sent_queue.db"


@pytest.fixture
async def queue(path: Path) -> AsyncIterator[SqliteSentQueue]:
    async with SqliteSentQueue(path) as opened:
        await opened.open("bob", "phone", GENERATION, NOW_MS)
        yield opened


@contextmanager
def file_held(path: Path) -> Iterator[None]:
    """Another process writes: every transaction of ours waits for it, and calls gather behind the first."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


# --- restarts ---------------------------------------------------------------------------------------------------------


async def test_a_resend_after_a_restart_is_a_repeat(path: Path) -> None:
    async with SqliteSentQueue(path, count_max=2) as queue:
        await queue.open("bob", "phone", GENERATION, NOW_MS)
        assert [await append_one(queue, "bob", message(cid)) for cid in (3, 5, 7)] == [1, 2, FULL]
    async with SqliteSentQueue(path, count_max=100) as queue:
        assert [await append_one(queue, "bob", message(cid)) for cid in (3, 5, 7, 8)] == [REPEAT, REPEAT, FULL, 3]


async def test_everything_a_user_has_outlives_the_process(path: Path) -> None:
    async with SqliteSentQueue(path) as queue:
        opened = await queue.open("bob", "phone", GENERATION, NOW_MS)
        await queue.open("bob", "laptop", b"another1", NOW_MS)
        for cid in range(1, 6):
            await append_one(queue, "bob", message(cid, flags=Flag.RECEIPT, expires_ms=NOW_MS + cid))
        [acked] = await queue.acknowledge([Ack("bob", "phone", 4, 0)], NOW_MS)
        await queue.acknowledge([Ack("bob", "phone", 4, 2), Ack("bob", "laptop", 1, 0)], NOW_MS)
        await queue.note_trouble("bob", "laptop", 405, NOW_MS)
        before = await queue.status("bob")
    async with SqliteSentQueue(path) as queue:
        assert await queue.status("bob") == before
        assert before is not None
        assert (before.floor, before.head, before.cursors) == (1, 5, {"phone": 4, "laptop": 1})
        [again] = await queue.acknowledge([Ack("bob", "phone", 4, 0)], NOW_MS)
        assert [owed.seq for owed in acked.owed] == [1, 2, 3, 4]
        assert [owed.seq for owed in again.owed] == [3, 4]
        assert (await queue.open("bob", "phone", b"a third1", NOW_MS)).generation == opened.generation == GENERATION
        assert await queue.due(NOW_MS + 1, 10) == ["bob"]


# --- group commit ----------------------------------------------------------------------------------------------------


async def test_calls_that_wait_share_one_commit(queue: SqliteSentQueue, path: Path) -> None:
    before = queue.statistics().commits
    with file_held(path):
        calls = asyncio.gather(*(append_one(queue, "bob", message(cid)) for cid in range(1, 501)))
        await asyncio.sleep(0)  # the calls are made
    assert await calls == list(range(1, 501))
    assert queue.statistics().commits - before <= 2  # the first may have gone ahead of the others


async def test_a_call_is_answered_only_after_its_commit(queue: SqliteSentQueue, path: Path) -> None:
    with file_held(path):
        call = asyncio.ensure_future(append_one(queue, "bob", message(1)))
        page = await queue_in_another_thread(path)
        assert page == []
        assert not call.done()
    assert await call == 1
    assert await queue_in_another_thread(path) == [b"hello"]


async def queue_in_another_thread(path: Path) -> list[bytes]:
    """What a stranger reads from the file at this moment."""

    def look() -> list[bytes]:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            ledger = sqlite_ledger.Ledger(other)
            ledger.begin(writes=False)
            return [entry.body for entry in read(ledger, "bob", 0, 1000, 1 << 40).entries]

    return await asyncio.to_thread(look)


async def test_an_append_and_its_ack_may_share_a_commit(queue: SqliteSentQueue, path: Path) -> None:
    entries = [message(cid, b"x" * cid, flags=Flag.RECEIPT) for cid in (1, 2, 3)]
    with file_held(path):
        calls = asyncio.gather(
            queue.append([Append("bob", entries)], NOW_MS),
            queue.acknowledge([Ack("bob", "phone", 2, 0)], NOW_MS),
            queue.acknowledge([Ack("bob", "phone", 2, 2)], NOW_MS),
        )
        await asyncio.sleep(0)
    _, [first], [second] = await calls
    assert [owed.body for owed in first.owed] == [b"x", b"xx"]
    assert second.owed == []
    status = await queue.status("bob")
    assert status is not None
    assert (status.floor, status.head, status.bytes) == (2, 3, 3)


async def test_a_read_costs_no_commit_and_keeps_the_cache(queue: SqliteSentQueue) -> None:
    await append_one(queue, "bob", message(1))
    before = queue.statistics().commits
    for _ in range(3):
        await queue.read("bob", 0, 10, 1000)
        await queue.heads(["bob"])
    assert queue.statistics().commits == before


# --- what fails --------------------------------------------------------------------------------------------------------


async def test_a_bad_call_fails_alone_and_leaves_no_half_batch(queue: SqliteSentQueue, path: Path) -> None:
    bad = [Append("bob", [message(1, b"half"), message(2, None)])]  # type: ignore[arg-type]
    with file_held(path):
        calls = asyncio.gather(
            queue.open("cid", "phone", GENERATION, NOW_MS),
            queue.append(bad, NOW_MS),
            queue.note_trouble("bob", "phone", 405, NOW_MS),
            return_exceptions=True,
        )
        await asyncio.sleep(0)
    opened, failed, noted = await calls
    assert isinstance(failed, TypeError)
    assert not isinstance(opened, BaseException)
    assert noted is None
    assert await bodies(queue, "bob") == []
    assert await append_one(queue, "bob", message(1, b"whole")) == 1
    assert await bodies(queue, "bob") == [b"whole"]


async def test_a_failed_transaction_leaves_no_wrong_cache(queue: SqliteSentQueue, path: Path) -> None:
    await append_one(queue, "bob", message(1, b"first", expires_ms=NOW_MS + 5))
    before = await queue.status("bob")
    refuse = sqlite3.connect(path, isolation_level=None)
    for name, of in (("journal", "INSERT ON journal"), ("tables", "UPDATE ON users")):
        refuse.execute(f"CREATE TRIGGER {name} BEFORE {of} BEGIN SELECT RAISE(ABORT, 'no'); END")
    with pytest.raises(sqlite3.IntegrityError):  # what a constraint refuses no waiting will mend
        await queue.append([Append("bob", [message(2), message(3, expires_ms=NOW_MS + 1)])], NOW_MS)
    refuse.execute("DROP TRIGGER journal")
    refuse.execute("DROP TRIGGER tables")
    refuse.close()
    assert await queue.status("bob") == before
    assert await queue.due(NOW_MS + 1, 10) == []
    assert [await append_one(queue, "bob", message(cid)) for cid in (1, 2, 3)] == [REPEAT, 2, 3]


async def test_later_appends_do_not_overtake_one_that_failed(queue: SqliteSentQueue, path: Path) -> None:
    """Had cid 2 been stored, the repeat of cid 1 would be taken for a repeat of something stored: it would be lost."""
    bad = [Append("bob", [message(1, None)])]  # type: ignore[arg-type]
    with file_held(path):
        calls = asyncio.gather(queue.append(bad, NOW_MS), append_one(queue, "bob", message(2)), return_exceptions=True)
        await asyncio.sleep(0)
    failed, later = await calls
    assert isinstance(failed, Exception)
    assert isinstance(later, Exception)
    assert [await append_one(queue, "bob", message(cid)) for cid in (1, 2)] == [1, 2]


async def fill(queue: SqliteSentQueue) -> int:
    """Append until the file takes no more; how many it took."""
    taken = 0
    while True:
        try:
            assert await append_one(queue, "bob", message(taken + 1, b"x" * 4000)) == taken + 1
        except LinkDown:
            return taken
        taken += 1


async def test_a_full_disk_fails_appends_but_not_acks_and_goes_on_when_there_is_room(queue: SqliteSentQueue) -> None:
    run = queue._writer.call  # the limit is the connection's own, so it must be set in its thread
    await run(lambda ledger: ledger.connection.execute("PRAGMA max_page_count = 40").fetchone(), writes=False)
    taken = await fill(queue)
    assert taken > 0
    assert len(await bodies(queue, "bob")) == taken
    appended, acked = await asyncio.gather(
        append_one(queue, "bob", message(taken + 1, b"x" * 200_000)),
        queue.acknowledge([Ack("bob", "phone", taken - 1, 0)], NOW_MS),
        return_exceptions=True,
    )
    assert isinstance(appended, LinkDown)
    assert not isinstance(acked, BaseException)
    assert await append_one(queue, "bob", message(taken + 1)) == taken + 1


async def test_a_file_that_is_held_too_long_is_link_down_for_all_that_wait_and_then_it_goes_on(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brokerd.links.sqlite_schema.BUSY_MS_MAX", 20)
    async with SqliteSentQueue(path) as queue:
        await queue.open("bob", "phone", GENERATION, NOW_MS)
        with file_held(path):
            calls = [append_one(queue, "bob", message(cid)) for cid in (1, 2, 3)]
            answers = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(answer, LinkDown) for answer in answers)
        assert await append_one(queue, "bob", message(1)) == 1


async def test_a_closed_queue_says_link_down(path: Path) -> None:
    queue = SqliteSentQueue(path)
    with pytest.raises(LinkDown):
        await queue.heads(["bob"])
    await queue.start()
    waiting = [asyncio.ensure_future(queue.create_user(f"user{number}", GENERATION, NOW_MS)) for number in range(20)]
    await asyncio.sleep(0)
    await queue.close()
    assert await asyncio.gather(*waiting) == [True] * 20
    with pytest.raises(LinkDown):
        await queue.heads(["bob"])


async def test_a_newer_file_is_refused_and_left_as_it_is(path: Path) -> None:
    async with SqliteSentQueue(path):
        pass
    with sqlite3.connect(path) as newer:
        newer.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    newer.close()
    queue = SqliteSentQueue(path)
    with pytest.raises(StoreTooNew, match=f"version {SCHEMA_VERSION + 1}"):
        await queue.start()
    await queue.close()


@pytest.fixture
def letter(path: Path) -> Path:
    path.write_bytes(b"a letter to the editor, not a database" * 100)
    return path


async def test_a_file_that_is_no_database_is_link_down(letter: Path) -> None:
    queue = SqliteSentQueue(letter)
    with pytest.raises(LinkDown, match="not a database"):
        await queue.start()
    await queue.close()


async def test_the_file_is_its_owners_alone(queue: SqliteSentQueue, path: Path) -> None:
    await append_one(queue, "bob", message(1))
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name


# --- a second process on the same file -------------------------------------------------------------------------------


async def test_a_user_that_another_process_made_is_seen_at_once(queue: SqliteSentQueue, path: Path) -> None:
    assert not await queue.has_user("cid")
    assert await append_one(queue, "cid", message(1)) == NO_USER
    async with SqliteSentQueue(path) as chatctl:
        assert await chatctl.create_user("cid", b"fromctl1", NOW_MS)
        assert not await chatctl.create_user("bob", b"fromctl1", NOW_MS)
    assert await queue.has_user("cid")
    assert await append_one(queue, "cid", message(1)) == 1
    assert (await queue.open("cid", "phone", GENERATION, NOW_MS)).generation == b"fromctl1"


async def test_a_user_that_another_process_deleted_is_gone_at_once(queue: SqliteSentQueue, path: Path) -> None:
    await append_one(queue, "bob", message(1))
    async with SqliteSentQueue(path) as chatctl:
        status = await chatctl.status("bob")
        assert status is not None
        assert status.head == 1
        assert await chatctl.delete_user("bob")
    assert not await queue.has_user("bob")
    assert await append_one(queue, "bob", message(2)) == NO_USER
    opened = await queue.open("bob", "phone", b"another1", NOW_MS)
    assert (opened.head, opened.generation) == (0, b"another1")
    assert await append_one(queue, "bob", message(1)) == 1


# --- the cache ---------------------------------------------------------------------------------------------------------


@pytest.mark.pure
async def test_more_users_and_senders_than_the_cache_holds_are_kept_apart(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_ledger.Ledger.__init__, "__defaults__", (3,))
    monkeypatch.setattr(sqlite_ledger, "ORIGINS_CACHED_MAX", 2)
    users = [f"user{number}" for number in range(8)]
    async with SqliteSentQueue(path) as queue:
        for user in users:
            await queue.open(user, "phone", GENERATION, NOW_MS)
        for cid in (1, 2):
            for sender in range(5):
                origin = b"sender%d" % sender
                appends = [Append(user, [message(cid, origin=origin), message(cid, origin=origin)]) for user in users]
                for appended in await queue.append(appends, NOW_MS):
                    assert appended.results == [(cid - 1) * 5 + sender + 1, REPEAT]
        assert await queue.heads(users) == [10] * 8
        await queue.due(NOW_MS, 1)  # until they are in the tables, no state may leave the cache
        cached = await queue._writer.call(lambda ledger: list(ledger._states.values()), writes=False)
        assert len(cached) == 3
        assert max(len(state.origins) for state in cached) <= 2


async def test_old_dedupe_is_pruned_by_the_sweep_and_young_is_not(queue: SqliteSentQueue) -> None:
    await append_one(queue, "bob", message(0, origin=b"old key"))
    later_ms = NOW_MS + (DEDUPE_DAYS + 1) * DAY_MS
    await append_one(queue, "bob", message(0, origin=b"young key"), later_ms)
    await queue.due(later_ms, 10)
    count = await queue._writer.call(lambda ledger: ledger.one("SELECT COUNT(*) FROM origins", ()), writes=False)
    assert count == 1
    assert await append_one(queue, "bob", message(0, origin=b"young key"), later_ms) == REPEAT


async def test_more_receipts_than_one_answer_holds_are_owed_in_turns(queue: SqliteSentQueue) -> None:
    count = OWED_MAX + 10
    entries = [message(cid, flags=Flag.RECEIPT) for cid in range(1, count + 1)]
    await queue.append([Append("bob", entries)], NOW_MS)
    owed: list[int] = []
    settled, turns = 0, 0
    while True:
        [acked] = await queue.acknowledge([Ack("bob", "phone", count, settled)], NOW_MS)
        if not acked.owed:
            break
        owed += [entry.seq for entry in acked.owed]
        settled = owed[-1]
        turns += 1
    assert owed == list(range(1, count + 1))
    assert turns == 2
    status = await queue.status("bob")
    assert status is not None
    assert (status.floor, status.bytes) == (count, 0)


async def test_seats_are_looked_up_after_the_save(path: Path) -> None:
    """Whoever claims while the append is being saved is seen by it: he may have read the queue before the save."""
    register = MemoryRegister()
    await register.renew_lease("node~1", 60_000)
    async with SqliteSentQueue(path, register=register) as queue:
        await queue.open("bob", "phone", GENERATION, NOW_MS)
        with file_held(path):
            call = asyncio.ensure_future(queue.append([Append("bob", [message(1)])], NOW_MS))
            await asyncio.sleep(0)
            await register.claim("bob", Seat("phone", "node~1", "session"))
        [appended] = await call
        assert appended.seats == [Seat("phone", "node~1", "session")]


async def test_a_device_whose_session_outlives_the_retention_is_kept_by_its_acks(path: Path) -> None:
    async with SqliteSentQueue(path, retention_s=10 * DAY_MS / 1000) as queue:
        await queue.open("bob", "phone", GENERATION, NOW_MS)
        await queue.acknowledge([Ack("bob", "phone", 0, 0)], NOW_MS + 9 * DAY_MS)
        assert (await queue.open("bob", "laptop", GENERATION, NOW_MS + 12 * DAY_MS)).devices == 2
