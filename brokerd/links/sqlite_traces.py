"""Traces in a SQLite file of their own, so that they never share a commit, a lock or an fsync with the sent_queue."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, TypeVar

import msgpack

from brokerd.ports import LinkDown
from brokerd.support_ports import HOPS_MAX, Hop, in_order

BUSY_MS_MAX: Final = 2000
FORGOTTEN_MAX: Final = 1000  # messages that one write forgets

T = TypeVar("T")
_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS messages (id BLOB PRIMARY KEY, last_ms INTEGER NOT NULL, hops INTEGER NOT NULL)",
    "CREATE INDEX IF NOT EXISTS messages_last ON messages (last_ms)",
    "CREATE TABLE IF NOT EXISTS hops (id BLOB NOT NULL, hop BLOB NOT NULL)",
    "CREATE INDEX IF NOT EXISTS hops_id ON hops (id)",
)
_COUNT: Final = (
    "INSERT INTO messages VALUES (?, ?, 1) ON CONFLICT (id) DO UPDATE SET last_ms = max(last_ms, excluded.last_ms), "
    "hops = hops + 1 RETURNING hops"
)
_ADD: Final = "INSERT INTO hops VALUES (?, ?)"
_OLD: Final = "SELECT id FROM messages WHERE last_ms <= ? ORDER BY last_ms LIMIT ?"
_SURPLUS: Final = "SELECT id FROM messages ORDER BY last_ms LIMIT max(0, min((SELECT count(*) FROM messages) - ?, ?))"
_FIND: Final = "SELECT hop FROM hops WHERE id = ?"
_FORGET: Final = ("DELETE FROM messages WHERE id = ?", "DELETE FROM hops WHERE id = ?")


class SqliteTraces:
    """Traces in the file `path`; `async with`. See brokerd.support_ports.Traces for the contract.

    Calls run in worker threads, one at a time. Several processes may have the file open. A commit is not fsynced.
    """

    def __init__(self, path: Path, *, messages_max: int, keep_s: float) -> None:
        self._path = path
        self._messages_max, self._keep_ms = messages_max, int(keep_s * 1000)
        self._turn = asyncio.Lock()
        self._connection: sqlite3.Connection | None = None

    async def __aenter__(self) -> SqliteTraces:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        async with self._turn:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    async def add(self, hops: Sequence[Hop]) -> None:
        """One transaction."""
        await self._call(lambda connection: self._add(connection, hops))

    async def find(self, id_: bytes) -> list[Hop]:
        """The hops of one message."""
        rows = await self._call(lambda connection: connection.execute(_FIND, (id_,)).fetchall())
        return in_order([Hop(id_, *msgpack.unpackb(hop)[: len(Hop._fields) - 1]) for (hop,) in rows])

    async def _call(self, work: Callable[[sqlite3.Connection], T]) -> T:
        async with self._turn:
            return await asyncio.to_thread(self._work, work)

    # --- in a worker thread

    def _work(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            if self._connection is None:
                self._connection = self._open()
            with self._connection:  # commits, or rolls back
                return work(self._connection)
        except (sqlite3.Error, OSError) as fault:
            raise LinkDown(f"{self._path}: {fault}") from fault

    def _open(self) -> sqlite3.Connection:
        if not self._path.exists():
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
        connection = sqlite3.connect(self._path, timeout=BUSY_MS_MAX / 1000, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            for table in _TABLES:
                connection.execute(table)
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _add(self, connection: sqlite3.Connection, hops: Sequence[Hop]) -> None:
        run = connection.execute
        for hop in hops:
            [(count,)] = run(_COUNT, (hop.id, hop.at_ms)).fetchall()
            if count <= HOPS_MAX:
                run(_ADD, (hop.id, msgpack.packb(hop[1:])))
        newest_ms = max(hop.at_ms for hop in hops)
        gone = run(_OLD, (newest_ms - self._keep_ms, FORGOTTEN_MAX)).fetchall()
        gone += run(_SURPLUS, (self._messages_max, FORGOTTEN_MAX)).fetchall()
        for statement in _FORGET:
            connection.executemany(statement, gone)
