"""One transaction at a time on the sent_queue's file: cached states, and the rows that are to be written with them.

Changes gather in memory while the calls of a group run and go to the file in a few statements when the group ends;
whoever reads entries in between calls `flush` first. Lives in the writer's thread alone.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import chain, islice
from typing import Any, Final

from brokerd.links import sqlite_schema as sql
from brokerd.links.sqlite_state import Device, Origin, UserState

USERS_CACHED_MAX: Final = 10_000  # about 4 KiB each with a full set of origins
ORIGINS_CACHED_MAX: Final = 16  # a user; the senders that write to somebody at one time are few


class Ledger:
    """The states of users, written through to `connection`. begin, then calls, then commit; rollback when one raised."""

    def __init__(self, connection: sqlite3.Connection, users_cached_max: int = USERS_CACHED_MAX) -> None:
        self.connection = connection
        self._users_cached_max = users_cached_max
        self._states: OrderedDict[str, UserState] = OrderedDict()
        self._foreign_version: int | None = None  # changes when another process committed
        self._touched: dict[str, UserState] = {}
        self.entry_rows: list[tuple[int, int, int, int, int, bytes]] = []
        self._trims: dict[int, int] = {}
        self._moved: dict[int, UserState] = {}
        self._devices: dict[tuple[int, str], Device] = {}
        self.origins_moved: dict[tuple[int, bytes], Origin] = {}
        self.origins_new: dict[tuple[int, bytes], Origin] = {}

    # --- transactions

    def begin(self, *, writes: bool) -> None:
        """Begin, and forget all when another process (chatctl) changed the file since the last time."""
        self.connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
        (version,) = self.connection.execute("PRAGMA data_version").fetchone()
        if version != self._foreign_version:
            self._states.clear()
            self._foreign_version = version

    def commit(self) -> None:
        """Write what gathered; when this returns it is on the disk. Nothing to write costs no sync."""
        self.flush()
        self.connection.execute("COMMIT")
        self._evict()
        self._touched.clear()

    def rollback(self) -> None:
        """Undo the transaction, and drop the states it touched: they ran ahead of the file."""
        for user in self._touched:
            self._states.pop(user, None)
        self._touched.clear()
        self._forget_rows()
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    def flush(self) -> None:
        """Send the gathered rows to the transaction: entries first, for a trim may concern them."""
        put = self._put
        if self.entry_rows:
            put(sql.ENTRY_ADD, self.entry_rows)
        if self._trims:
            put(sql.ENTRIES_TRIM, list(self._trims.items()))
        if self._devices:
            put(sql.DEVICE_PUT, [
                (uid, name, place.cursor, place.seen_ms, place.reason, place.trouble_ms, place.attempts)
                for (uid, name), place in self._devices.items()
            ])  # fmt: skip
        if self.origins_new:
            put(sql.ORIGIN_PUT, [(*it.packed(), *key, it.day) for key, it in self.origins_new.items()])
        if self.origins_moved:
            put(sql.ORIGIN_MOVE, [(*it.packed(), *key, it.day) for key, it in self.origins_moved.items()])
        if self._moved:
            put(sql.USER_PUT, [
                (it.floor, it.head, it.bytes, it.delivered, it.asked, uid) for uid, it in self._moved.items()
            ])  # fmt: skip
        self._forget_rows()

    def _put(self, statements: Mapping[int, str], rows: Sequence[tuple[Any, ...]]) -> None:
        """The rows, in as few runs of a statement as there can be."""
        at = 0
        while left := len(rows) - at:
            count = sql.ROWS_MAX if left >= sql.ROWS_MAX else min(left, sql.ROWS_EXACT)
            self.connection.execute(statements[count], tuple(chain.from_iterable(rows[at : at + count])))
            at += count

    def _forget_rows(self) -> None:
        self.entry_rows.clear()
        self._trims.clear()
        self._devices.clear()
        self.origins_new.clear()
        self.origins_moved.clear()
        self._moved.clear()

    def _evict(self) -> None:
        """Keep the cache within its bounds; only here, where everything in it is written."""
        while len(self._states) > self._users_cached_max:
            self._states.popitem(last=False)
        for state in self._touched.values():
            surplus = len(state.origins) - ORIGINS_CACHED_MAX
            if surplus > 0:
                for origin in list(islice(state.origins, surplus)):
                    del state.origins[origin]

    # --- states

    def state(self, user: str) -> UserState | None:
        """The user, None when there is none (never remembered: another process may make it at any time)."""
        state = self._states.get(user)
        if state is None:
            row = self.connection.execute(sql.USER_GET, (user,)).fetchone()
            if row is None:
                return None
            state = self._states[user] = UserState(*row)
            for name, *place in self.connection.execute(sql.DEVICES_GET, (state.uid,)):
                state.devices[name] = Device(*place)
        else:
            self._states.move_to_end(user)
        self._touched[user] = state
        return state

    def create(self, user: str, generation: bytes) -> UserState:
        """Make a user that is not there."""
        (uid,) = self.connection.execute(sql.USER_ADD, (user, generation)).fetchone()
        state = self._states[user] = self._touched[user] = UserState(uid, generation)
        return state

    def delete(self, user: str, state: UserState) -> None:
        """Forget a user with all it has."""
        self.flush()
        for statement in sql.USER_DROP:
            self.connection.execute(statement, (state.uid,))
        self._states.pop(user, None)

    def load_origin(self, state: UserState, key: bytes) -> Origin:
        """An origin that is not in the state yet."""
        row = self.connection.execute(sql.ORIGIN_GET, (state.uid, key)).fetchone()
        origin = state.origins[key] = Origin(*row) if row else Origin()
        return origin

    # --- changes

    def moved(self, state: UserState) -> None:
        """The numbers of the user changed (all but due_ms)."""
        self._moved[state.uid] = state

    def device_changed(self, state: UserState, name: str) -> None:
        """The device changed or is new."""
        self._devices[state.uid, name] = state.devices[name]

    def device_gone(self, state: UserState, name: str) -> None:
        """The device is forgotten."""
        self._devices.pop((state.uid, name), None)
        del state.devices[name]
        self.connection.execute(sql.DEVICE_DROP, (state.uid, name))

    def set_due(self, state: UserState, due_ms: int) -> None:
        """When the user is next due for a sweep. Apart from the rest, so that its index is seldom touched."""
        if due_ms != state.due_ms:
            state.due_ms = due_ms
            self.connection.execute(sql.USER_DUE, (due_ms, state.uid))

    def trim(self, state: UserState, floor: int) -> None:
        """Drop all entries up to `floor`; back is no way."""
        if floor <= state.floor:
            return
        size = state.size_up_to(floor)
        state.bytes -= size if size is not None else self._bytes_up_to(state, floor)
        state.floor = floor
        state.delivered = max(state.delivered, floor)
        self._trims[state.uid] = floor
        self._moved[state.uid] = state

    def _bytes_up_to(self, state: UserState, floor: int) -> int:
        # asked only behind a start or for a long queue: for each ACK it was 8 % of the CPU of an embedded chatd
        if self.entry_rows:
            self.flush()
        return self.one(sql.ENTRIES_BYTES, (state.uid, floor))

    def one(self, statement: str, values: tuple[Any, ...]) -> int:
        """The one number that a query gives."""
        number: int = self.connection.execute(statement, values).fetchone()[0]
        return number
