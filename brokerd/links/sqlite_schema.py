"""The sent_queue's file: its tables, and how it is opened so that a commit is on the disk.

One file in WAL mode. SQLite syncs what its checkpoints need (synchronous=NORMAL), and whoever answers for a commit syncs the WAL
before that (sqlite_writer). Entries stand under (user, seq) without a rowid, so that
a user's backlog lies together and is read in one sweep. What was committed last stands in `journal` and nowhere else (see
brokerd.links.sqlite_ledger). All statements of the adapter are in this file.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final

SCHEMA_VERSION: Final = 3
BUSY_MS_MAX: Final = 5_000  # how long another process (chatctl) may hold the file before a call fails
PAGE_CACHE_KIB: Final = 32 * 1024


class StoreTooNew(Exception):
    """The file was written by a newer version, which knows things that this one would destroy."""


_TABLES: Final = """
CREATE TABLE users (
    uid INTEGER PRIMARY KEY,
    user TEXT NOT NULL UNIQUE,
    generation BLOB NOT NULL,
    floor INTEGER NOT NULL DEFAULT 0,      -- entries up to here are gone
    head INTEGER NOT NULL DEFAULT 0,       -- the newest seq
    bytes INTEGER NOT NULL DEFAULT 0,      -- of the bodies kept, tombstones not counted
    delivered INTEGER NOT NULL DEFAULT 0,  -- receipts up to here are durable at their senders
    asked INTEGER NOT NULL DEFAULT 0,      -- no entry behind this one asks for a receipt
    due_ms INTEGER NOT NULL DEFAULT 0      -- nothing expires before; 0 = nothing does
);
CREATE INDEX users_due ON users (due_ms) WHERE due_ms > 0;
CREATE TABLE entries (
    uid INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    type INTEGER NOT NULL,                 -- 0: a tombstone
    flags INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (uid, seq)
) WITHOUT ROWID;
CREATE TABLE devices (
    uid INTEGER NOT NULL,
    device TEXT NOT NULL,
    cursor INTEGER NOT NULL,
    seen_ms INTEGER NOT NULL,              -- its last login
    reason INTEGER NOT NULL DEFAULT 0,     -- why delivery last stopped, 0 = it never did
    trouble_ms INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (uid, device)
) WITHOUT ROWID;
CREATE TABLE origins (
    uid INTEGER NOT NULL,
    origin BLOB NOT NULL,
    high INTEGER NOT NULL,                 -- the largest cid that was answered
    refused BLOB NOT NULL,                 -- which of them were refused: msgpack [first, last, first, last …]
    day INTEGER NOT NULL,                  -- of the last use, for the pruning
    PRIMARY KEY (uid, origin)
) WITHOUT ROWID;
CREATE INDEX origins_day ON origins (day);
"""
_GAPS: Final = "ALTER TABLE origins ADD COLUMN gaps BLOB NOT NULL DEFAULT x''"  # ranges that never came, as `refused`
_JOURNAL: Final = """
CREATE TABLE journal (
    id INTEGER PRIMARY KEY,                -- 1, 2, 3 … since it was last empty
    changes BLOB NOT NULL                  -- of one commit: Changes.packed
);
CREATE TABLE epoch (
    number INTEGER NOT NULL                -- another one whenever the other tables changed
);
INSERT INTO epoch VALUES (0)"""
_STEPS: Final = (_TABLES, _GAPS, _JOURNAL)  # step n brings a file from version n to n + 1

assert len(_STEPS) == SCHEMA_VERSION

# How many rows one run of a statement takes: up to 16 exactly, else 64. Each run gives the interpreter away and takes it back,
# from an event loop that has it almost always: with a row a run, the writer waited longer than it wrote.
ROWS_EXACT: Final = 16
ROWS_MAX: Final = 64
STATEMENTS_KEPT: Final = 256  # prepared: 17 for each of the six below, and the others


def _rows(statement: str, row: str, between: str = ", ") -> dict[int, str]:
    """The statement for each number of rows, `row` in the place of its %s."""
    return {count: statement % between.join([row] * count) for count in (*range(1, ROWS_EXACT + 1), ROWS_MAX)}


# A commit of its own, of nothing when another process changed the tables (?3 is not the epoch) or the journal (?1 is taken).
JOURNAL_ADD: Final = "INSERT OR IGNORE INTO journal (id, changes) SELECT ?, ? FROM epoch WHERE number = ?"
JOURNAL_READ: Final = "SELECT changes FROM journal ORDER BY id"
JOURNAL_END: Final = "SELECT number, (SELECT COALESCE(MAX(id), 0) FROM journal) FROM epoch"
CHECKPOINT: Final = "PRAGMA wal_checkpoint(PASSIVE)"
CHECKPOINT_WHOLE: Final = "PRAGMA wal_checkpoint(TRUNCATE)"
JOURNAL_EMPTY: Final = "DELETE FROM journal"
EPOCH_NEXT: Final = "UPDATE epoch SET number = number + 1"

USER_GET: Final = (
    "SELECT uid, generation, floor, head, bytes, delivered, asked, due_ms FROM users WHERE user = ?"
)  # fmt: skip
USER_NAME: Final = "SELECT user FROM users WHERE uid = ?"
USER_ADD: Final = "INSERT INTO users (user, generation) VALUES (?, ?) RETURNING uid"
USER_PUT: Final = _rows(
    "UPDATE users SET floor = it.column1, head = it.column2, bytes = it.column3, delivered = it.column4, "
    "asked = it.column5 FROM (VALUES %s) AS it WHERE uid = it.column6",
    "(?, ?, ?, ?, ?, ?)",
)
USER_DUE: Final = "UPDATE users SET due_ms = ? WHERE uid = ?"
USER_DROP: Final = tuple(f"DELETE FROM {table} WHERE uid = ?" for table in ("users", "entries", "devices", "origins"))
USERS_DUE: Final = "SELECT user FROM users WHERE due_ms > 0 AND due_ms <= ? ORDER BY due_ms LIMIT ?"
DEVICES_GET: Final = "SELECT device, cursor, seen_ms, reason, trouble_ms, attempts FROM devices WHERE uid = ?"
DEVICE_PUT: Final = _rows("INSERT OR REPLACE INTO devices VALUES %s", "(?, ?, ?, ?, ?, ?, ?)")
DEVICE_DROP: Final = "DELETE FROM devices WHERE uid = ? AND device = ?"
ORIGIN_GET: Final = "SELECT high, refused, day, gaps FROM origins WHERE uid = ? AND origin = ?"
_ORIGINS: Final = "origins (high, refused, gaps, uid, origin, day) VALUES %s"
ORIGIN_MOVE: Final = _rows(  # all but the day, whose index stays as it is
    f"INSERT INTO {_ORIGINS} ON CONFLICT (uid, origin) DO UPDATE "
    "SET high = excluded.high, refused = excluded.refused, gaps = excluded.gaps",
    "(?, ?, ?, ?, ?, ?)",
)
ORIGIN_PUT: Final = _rows(f"INSERT OR REPLACE INTO {_ORIGINS}", "(?, ?, ?, ?, ?, ?)")
ORIGINS_PRUNE: Final = (
    "DELETE FROM origins WHERE (uid, origin) IN (SELECT uid, origin FROM origins WHERE day < ? LIMIT ?)"
)  # fmt: skip
ENTRY_ADD: Final = _rows("INSERT INTO entries VALUES %s", "(?, ?, ?, ?, ?, ?)")
ENTRIES_TRIM: Final = _rows("DELETE FROM entries WHERE %s", "uid = ? AND seq <= ?", " OR ")
ENTRIES_BYTES: Final = (
    "SELECT COALESCE(SUM(LENGTH(body)), 0) FROM entries WHERE uid = ? AND seq > ? AND seq <= ? AND type > 0"
)  # fmt: skip
ENTRIES_READ: Final = "SELECT type, flags, expires_ms, body FROM entries WHERE uid = ? AND seq > ? ORDER BY seq"
ENTRIES_OWED: Final = (
    "SELECT seq, flags, body FROM entries WHERE uid = ? AND seq > ? AND seq <= ? AND type = ? AND flags & ? "
    "ORDER BY seq LIMIT ?"
)  # fmt: skip
# What asked for a receipt and was delivered to a device: told (seq <= :delivered) it comes without the RECEIPT flag, to be
# buried in silence, as a copy of what the user sent does; owed (up to :top) it does not come, for burying it would lose its
# receipt.
ENTRIES_EXPIRED: Final = (
    "SELECT seq, CASE WHEN type != :deliver OR seq <= :delivered THEN flags & ~:asks ELSE flags END, body FROM entries "
    "WHERE uid = :uid AND type > 0 AND expires_ms BETWEEN 1 AND :now_ms AND NOT (type = :deliver AND (seq <= :slowest "
    "OR (flags & :asks AND seq > :delivered AND seq <= :top))) ORDER BY seq LIMIT :count_max"
)
ENTRY_MARK: Final = "UPDATE entries SET flags = flags | ? WHERE uid = ? AND seq = ?"
ENTRY_SIZE: Final = "SELECT LENGTH(body) FROM entries WHERE uid = ? AND seq = ? AND type > 0"
ENTRY_BURY: Final = "UPDATE entries SET type = 0, flags = 0, body = ? WHERE uid = ? AND seq = ?"
ENTRY_FIRST_LIVE: Final = "SELECT seq FROM entries WHERE uid = ? AND seq > ? AND type > 0 ORDER BY seq LIMIT 1"
ENTRIES_NEXT_DUE: Final = (
    "SELECT COALESCE(MIN(expires_ms), 0) FROM entries WHERE uid = ? AND type > 0 AND expires_ms > 0 "
    "AND NOT (type = ? AND seq <= ?)"
)  # fmt: skip


def open_store(path: Path) -> sqlite3.Connection:
    """The file at `path`, made if it is not there (readable by its owner only). Raises StoreTooNew, sqlite3.Error.

    Transactions are the caller's: nothing begins one by itself. So is the order of calls, from whichever thread.
    """
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    connection = sqlite3.connect(
        path,
        isolation_level=None,
        timeout=BUSY_MS_MAX / 1000,
        cached_statements=STATEMENTS_KEPT,
        check_same_thread=False,
    )
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        # Debian's SQLite overwrites whatever is deleted with zeros, by default: a journal of 16 MiB that was folded was written
        # once more for that. FAST overwrites what is on a page that is written anyway, and leaves pages that go whole.
        connection.execute("PRAGMA secure_delete = FAST")
        connection.execute(
            "PRAGMA wal_autocheckpoint = 0"
        )  # Ledger.tidy does it: not in the middle of anybody's commit
        connection.execute(f"PRAGMA cache_size = -{PAGE_CACHE_KIB}")
        _bring_up_to_date(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def set_patience(connection: sqlite3.Connection, *, is_patient: bool) -> None:
    """Whether a call waits for another process that has the file, up to BUSY_MS_MAX, or fails at once."""
    connection.execute(f"PRAGMA busy_timeout = {BUSY_MS_MAX if is_patient else 0}")


def _bring_up_to_date(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("BEGIN IMMEDIATE")  # two processes may open a new file at once
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise StoreTooNew(f"{path} has schema version {version}; this program knows up to {SCHEMA_VERSION}")
    for step in _STEPS[version:]:
        for statement in step.split(";\n"):
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")
