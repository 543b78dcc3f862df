"""The SQLite sent_queue's journal: commits that stand nowhere else, on the day the process dies or another one opens the file."""

from __future__ import annotations

import random
import shutil
import sqlite3
import struct
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from brokerd.links import sqlite_ledger
from brokerd.links import sqlite_moves as moves
from brokerd.links.sqlite import SqliteSentQueue
from brokerd.links.sqlite_memory import SqliteMemory
from brokerd.links.sqlite_schema import open_store
from brokerd.ports import FULL, REPEAT, Ack, Append, Entry, LinkDown
from brokerd.support_ports import Standing
from protocol.wire import Flag, Type

GENERATION = b"genera01"
NOW_MS = 1_700_000_000_000
USERS = ("ann", "bob", "cid")
DEVICES = ("phone", "laptop")


def message(
    cid: int, body: bytes = b"hello", flags: int = 0, expires_ms: int = 0, origin: bytes = b"ann-phone"
) -> Entry:
    return Entry(origin, cid, int(Type.DELIVER), flags, expires_ms, body)


def in_journal(path: Path) -> int:
    """Commits that stand in the journal."""
    with closing(sqlite3.connect(path)) as file:
        (count,) = file.execute("SELECT COUNT(*) FROM journal").fetchone()
    return int(count)


def left_by_a_crash(path: Path, to: Path) -> Path:
    """The file as it is on the disk at this moment, while a process has it open."""
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", f"{to}{suffix}")
    return to


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sent_queue.db"


async def test_what_stands_only_in_the_journal_is_there_after_a_crash(path: Path, tmp_path: Path) -> None:
    async with SqliteSentQueue(path, count_max=3) as queue:
        await queue.open("bob", "phone", GENERATION, NOW_MS)
        before = in_journal(path)
        some = [message(1, flags=Flag.RECEIPT, expires_ms=NOW_MS + 7), message(2, b"two"), message(4), message(5)]
        await queue.append([Append("bob", some)], NOW_MS)
        await queue.leave_open("bob", b"ann-phone", 8, NOW_MS)
        await queue.acknowledge([Ack("bob", "phone", 1, 0)], NOW_MS)
        assert in_journal(path) == before + 3
        told = await queue.status("bob"), await queue.read("bob", 0, 10, 1000)
        left_by_a_crash(path, tmp_path / "copy.db")
    async with SqliteSentQueue(tmp_path / "copy.db", count_max=4) as again:
        assert (await again.status("bob"), await again.read("bob", 0, 10, 1000)) == told
        [acked] = await again.acknowledge([Ack("bob", "phone", 1, 0)], NOW_MS)
        assert [owed.seq for owed in acked.owed] == [1]
        [appended] = await again.append([Append("bob", [message(cid) for cid in (1, 4, 5, 8, 9)])], NOW_MS)
        assert appended.results == [REPEAT, REPEAT, FULL, 4, FULL]
        assert await again.due(NOW_MS + 10, 10) == ["bob"]


async def test_a_clean_stop_leaves_the_journal_empty(path: Path) -> None:
    async with SqliteSentQueue(path) as queue:
        await queue.open("bob", "phone", GENERATION, NOW_MS)
        await queue.append([Append("bob", [message(1)])], NOW_MS)
        assert in_journal(path) == 1
    assert in_journal(path) == 0


async def test_what_was_acknowledged_in_time_is_never_written_to_the_tables(path: Path) -> None:
    async with SqliteSentQueue(path) as queue:
        await queue.open("bob", "phone", GENERATION, NOW_MS)
        for cid in range(1, 51):
            await queue.append([Append("bob", [message(cid)])], NOW_MS)
            await queue.acknowledge([Ack("bob", "phone", cid, 0)], NOW_MS)
        statements: list[str] = []
        await queue._writer.call(lambda it: it.connection.set_trace_callback(statements.append), writes=False)
        await queue.due(NOW_MS, 1)
        assert any("DELETE FROM journal" in it for it in statements)
        assert not any("INTO entries" in it or "FROM entries" in it for it in statements)


@pytest.mark.pure
@pytest.mark.parametrize(("bound", "at"), [("JOURNAL_BYTES_MAX", 10_000), ("YOUNG_MAX", 9)])
async def test_a_long_journal_is_folded_behind_the_commit_that_made_it_so(
    path: Path, monkeypatch: pytest.MonkeyPatch, bound: str, at: int
) -> None:
    monkeypatch.setattr(sqlite_ledger, bound, at)
    async with SqliteSentQueue(path) as queue:
        await queue.open("bob", "phone", GENERATION, NOW_MS)
        for cid in range(1, 101):
            await queue.append([Append("bob", [message(cid, bytes(1000))])], NOW_MS)
        assert await queue.heads(["bob"]) == [100]  # behind the last fold
        assert in_journal(path) <= 10
        assert queue.statistics().folds == 100 // 10
        assert [it.body for it in (await queue.read("bob", 0, 1000, 1 << 30)).entries] == [bytes(1000)] * 100


@pytest.mark.pure
async def test_a_journal_of_which_little_counts_is_written_anew_and_no_table_is_touched(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_ledger, "JOURNAL_BYTES_TIDY", 10_000)
    monkeypatch.setattr(sqlite_ledger, "JOURNAL_GROWTH_TIDY", 2)
    async with SqliteSentQueue(path) as queue, SqliteSentQueue(path) as other:
        await queue.open("bob", "phone", GENERATION, NOW_MS)
        statements: list[str] = []
        await queue._writer.call(lambda it: it.connection.set_trace_callback(statements.append), writes=False)
        for cid in range(1, 101):
            await queue.append([Append("bob", [message(cid, bytes([cid]) * 1000, expires_ms=NOW_MS + cid)])], NOW_MS)
            await queue.acknowledge([Ack("bob", "phone", cid - 2, 0)], NOW_MS)
        await queue.heads(["bob"])  # behind what the last commit left to do
        assert in_journal(path) < 40
        assert queue.statistics().folds == 0
        assert not any(table in it for it in statements for table in ("INTO entries", "UPDATE users", "INTO origins"))
        told = await queue.status("bob"), await queue.read("bob", 0, 10, 10_000)
        assert [entry.body[0] for entry in told[1].entries] == [99, 100]
        left_by_a_crash(path, tmp_path / "copy.db")
        [appended] = await other.append([Append("bob", [message(100), message(101)])], NOW_MS)
        assert appended.results == [REPEAT, 101]
        assert await queue.heads(["bob"]) == [101]
    async with SqliteSentQueue(tmp_path / "copy.db") as again:
        assert (await again.status("bob"), await again.read("bob", 0, 10, 10_000)) == told
        [appended] = await again.append([Append("bob", [message(100), message(101)])], NOW_MS)
        assert appended.results == [REPEAT, 101]
        assert await again.due(NOW_MS + 100, 10) == ["bob"]


@pytest.mark.pure
async def test_a_journal_of_which_much_counts_is_folded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_ledger, "JOURNAL_BYTES_TIDY", 10_000)
    monkeypatch.setattr(sqlite_ledger, "JOURNAL_BYTES_MAX", 40_000)
    monkeypatch.setattr(sqlite_ledger, "JOURNAL_GROWTH_TIDY", 10)
    async with SqliteSentQueue(path) as queue:
        await queue.open("bob", "phone", GENERATION, NOW_MS)
        for cid in range(1, 11):
            await queue.append([Append("bob", [message(cid, bytes(1000))])], NOW_MS)
        assert await queue.heads(["bob"]) == [10]
        assert (queue.statistics().folds, in_journal(path)) == (1, 0)


@pytest.mark.pure
async def test_what_was_young_before_a_crash_counts_for_the_next_fold(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with SqliteSentQueue(path) as queue:
        await queue.open("bob", "phone", GENERATION, NOW_MS)
        await queue.append([Append("bob", [message(cid) for cid in range(1, 6)])], NOW_MS)
        left_by_a_crash(path, tmp_path / "copy.db")
    monkeypatch.setattr(sqlite_ledger, "YOUNG_MAX", 5)
    async with SqliteSentQueue(tmp_path / "copy.db") as again:
        await again.append([Append("bob", [message(6)])], NOW_MS)
        assert await again.heads(["bob"]) == [6]  # behind the fold
        assert again.statistics().folds == 1


async def test_when_the_journal_takes_nothing_the_tables_do(path: Path) -> None:
    async with SqliteSentQueue(path) as queue:
        await queue.open("bob", "phone", GENERATION, NOW_MS)
        await queue.append([Append("bob", [message(1)])], NOW_MS)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("CREATE TRIGGER refuse BEFORE INSERT ON journal BEGIN SELECT RAISE(ABORT, 'no'); END")
        [appended] = await queue.append([Append("bob", [message(1), message(2)])], NOW_MS)
        assert appended.results == [REPEAT, 2]
        assert in_journal(path) == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"cid": 1 << 63},
        {"type": 256},
        {"type": 5.0},
        {"flags": -1},
        {"expires_ms": None},
        {"expires_ms": 1 << 63},
        {"body": "text"},
    ],
    ids=str,
)
async def test_what_the_tables_could_not_keep_is_refused_before_it_is_in_the_journal(
    path: Path, fields: dict[str, Any]
) -> None:
    """There it would be in the way of everything that came later, for ever."""
    async with SqliteSentQueue(path) as queue:
        await queue.open("bob", "phone", GENERATION, NOW_MS)
        with pytest.raises((TypeError, OverflowError, struct.error)):
            await queue.append([Append("bob", [message(1)._replace(**fields)])], NOW_MS)
        await queue.leave_open("bob", b"ann-phone", 1 << 63, NOW_MS)
        [appended] = await queue.append([Append("bob", [message(1)])], NOW_MS)
        assert appended.results == [1]
        await queue.due(NOW_MS, 1)
        assert (in_journal(path), queue.trouble) == (0, "")


# --- another process ----------------------------------------------------------------------------------------------------


async def test_another_process_reads_the_journal_and_leaves_it_as_it_is(path: Path) -> None:
    async with SqliteSentQueue(path) as queue:
        await queue.open("bob", "phone", GENERATION, NOW_MS)
        await queue.append([Append("bob", [message(1), message(2)])], NOW_MS)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            ledger = sqlite_ledger.Ledger(other)
            ledger.begin(writes=False)
            state = ledger.state("bob")
            ledger.commit()
        assert state is not None
        assert (state.head, [row[1] for row in state.young]) == (2, [1, 2])
        memory = SqliteMemory(path)
        standings = [await memory.standing("bob", b"ann-phone" + bytes(6) + bytes([cid]), NOW_MS) for cid in (2, 3)]
        assert standings == [Standing.TAKEN, Standing.NEVER]
        await queue.append([Append("bob", [message(3)])], NOW_MS)
        assert in_journal(path) == 2


async def test_two_processes_that_append_find_what_the_other_did(path: Path) -> None:
    async with SqliteSentQueue(path) as queue, SqliteSentQueue(path) as other:
        await queue.open("bob", "phone", GENERATION, NOW_MS)
        for cid in range(1, 20):
            [mine] = await queue.append([Append("bob", [message(cid)])], NOW_MS)
            [theirs] = await other.append([Append("bob", [message(cid), message(cid, origin=b"eve-phone")])], NOW_MS)
            assert (mine.results, theirs.results) == ([2 * cid - 1], [REPEAT, 2 * cid])
            await (other if cid % 3 else queue).acknowledge([Ack("bob", "phone", 2 * cid - 3, 0)], NOW_MS)
            if cid % 5 == 0:
                await other.due(NOW_MS, 1)
        assert await queue.status("bob") == await other.status("bob")


async def test_a_process_notices_that_another_one_wrote_the_journal_anew(path: Path) -> None:
    def append(ledger: sqlite_ledger.Ledger, cid: int) -> int:
        return moves.append(ledger, [Append("bob", [message(cid)])], moves.Bounds(10, 1000), NOW_MS)[0].results[0]

    async with SqliteSentQueue(path) as queue:
        await queue.open("bob", "phone", GENERATION, NOW_MS)
    with closing(open_store(path)) as one, closing(open_store(path)) as another:
        here, there = sqlite_ledger.Ledger(one), sqlite_ledger.Ledger(another)
        here.be_current()
        append(here, 1)
        assert here.journal()
        there.be_current()  # and would write the second commit next
        append(here, 2)
        assert here.journal()
        assert not here.tidy()
        assert in_journal(path) == 1
        append(there, 2)
        assert not there.journal()
        there.be_current()
        assert (append(there, 2), append(there, 3)) == (REPEAT, 3)
        assert there.journal()


# --- at random -----------------------------------------------------------------------------------------------------------


@dataclass
class _Chance:
    """Makes calls that make sense, and some that do not."""

    chance: random.Random
    cids: dict[tuple[str, bytes], int] = field(default_factory=dict)
    heads: dict[str, int] = field(default_factory=lambda: dict.fromkeys(USERS, 0))

    def entry(self, user: str) -> Entry:
        origin = self.chance.choice((b"ann-phone", b"eve-phone"))
        last = self.cids.get((user, origin), 0)
        cid = max(1, last + self.chance.choice((1, 1, 1, 2, 0, -1)))
        self.cids[user, origin] = max(cid, last)
        prev = last if self.chance.random() < 0.8 else cid - 1
        body = bytes([self.chance.randrange(256)]) * self.chance.randrange(200)
        expires_ms = self.chance.choice((0, 0, NOW_MS + self.chance.randrange(100)))
        kind = self.chance.choice((Type.DELIVER, Type.DELIVER, Type.DELIVER, Type.RECEIPT, Type.SENT))
        return Entry(origin, cid, int(kind), self.chance.choice((0, Flag.RECEIPT)), expires_ms, body, prev)

    def call(self, now_ms: int) -> tuple[str, tuple[Any, ...]]:
        user, device = self.chance.choice(USERS), self.chance.choice(DEVICES)
        seq = self.chance.randint(0, self.heads[user] + 1)
        match self.chance.choices(
            (
                "append",
                "acknowledge",
                "read",
                "open",
                "expired",
                "bury",
                "leave_open",
                "note_trouble",
                "status",
                "delete",
            ),
            (40, 30, 10, 4, 4, 3, 2, 2, 5, 1),
        ):
            case ["append"]:
                items = [
                    Append(to, [self.entry(to) for _ in range(self.chance.randrange(4))])
                    for to in self.chance.sample(USERS, self.chance.randint(1, 3))
                ]
                return "append", (items, now_ms)
            case ["acknowledge"]:
                return "acknowledge", ([Ack(user, device, seq, self.chance.choice((0, 0, seq)))], now_ms)
            case ["read"]:
                return "read", (user, seq, self.chance.randint(1, 20), self.chance.choice((100, 100_000)))
            case ["open"]:
                return "open", (user, device, GENERATION, now_ms)
            case ["expired"]:
                return "expired", (user, now_ms + 50, 3)
            case ["bury"]:
                return "bury", (user, [seq], 301, now_ms)
            case ["leave_open"]:
                return "leave_open", (user, b"ann-phone", self.cids.get((user, b"ann-phone"), 0) + 2, now_ms)
            case ["note_trouble"]:
                return "note_trouble", (user, device, 405, now_ms)
            case ["delete"]:
                return "delete_user", (user,)
        return "status", (user,)


async def answer(queue: SqliteSentQueue, name: str, args: tuple[Any, ...]) -> Any:
    """What a call gives, as something that compares."""
    try:
        return tuple_of(await getattr(queue, name)(*args))
    except LinkDown as down:
        return str(down)


def tuple_of(given: Any) -> Any:
    return tuple(tuple_of(it) for it in given) if isinstance(given, (tuple, list)) else given


@pytest.mark.parametrize(
    "tidy_bytes", [pytest.param(1, marks=pytest.mark.pure), pytest.param(3_000, marks=pytest.mark.pure), None]
)
@pytest.mark.parametrize("seed", range(3))
async def test_with_a_journal_every_call_answers_as_without_one_also_behind_crashes(
    tmp_path: Path, seed: int, tidy_bytes: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One queue folds behind every commit; the other writes its journal anew now and then, and dies now and then."""
    if tidy_bytes:
        monkeypatch.setattr(sqlite_ledger, "JOURNAL_BYTES_TIDY", tidy_bytes)
    chance = random.Random(seed)
    calls = _Chance(chance)
    bounds = {"count_max": 30, "bytes_max": 3000}
    path = tmp_path / "0.db"
    journaled = SqliteSentQueue(path, **bounds)
    plain = SqliteSentQueue(tmp_path / "plain.db", **bounds)
    await journaled.start()
    await plain.start()
    try:
        for user in USERS:
            for queue in (journaled, plain):
                await queue.open(user, "phone", GENERATION, NOW_MS)
        for step in range(1, 300):
            name, args = calls.call(NOW_MS + step)
            here, there = await answer(journaled, name, args), await answer(plain, name, args)
            assert here == there, (seed, step, name, args)
            await plain.due(0, 1)  # folds
            calls.heads = dict(zip(USERS, await plain.heads(USERS), strict=True))
            if chance.random() < 0.02:
                path, left = tmp_path / f"{step}.db", path
                left_by_a_crash(left, path)
                await journaled.close()
                journaled = SqliteSentQueue(path, **bounds)
                await journaled.start()
    finally:
        await journaled.close()
        await plain.close()
