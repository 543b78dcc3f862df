"""The sent_queue's file as it is held in mind: the states of its users, and the commits that are in its journal only.

What a message does (an append, an ACK) is decided on states in memory, and committed as one row of the journal: one
statement, one sync, however many users it is about. Most messages are acknowledged moments later, so most are never
written anywhere else: a journal of which little still counts is written anew, as one commit of that. When too much counts, or
somebody needs the tables, it is folded into them. The file is therefore tables plus journal, and whoever opens it, after a
crash or beside us (chatctl), reads both. One caller at a time, from whichever thread.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, islice
from typing import Any, Final

from brokerd.links import sqlite_schema as sql
from brokerd.links.sqlite_journal import Changes, entries_of, entry_head, origin_rows, unpacked
from brokerd.links.sqlite_state import Device, EntryRow, Origin, UserState

USERS_CACHED_MAX: Final = 10_000  # about 4 KiB each with a full set of origins
ORIGINS_CACHED_MAX: Final = 16  # a user; the senders that write to somebody at one time are few
# The journal is written anew behind the commit that takes it over the first of these, and over so many times what counted the
# last time: its pages are then the same few, and SQLite's checkpoint, for which others wait, copies no more than those.
JOURNAL_BYTES_TIDY: Final = 1024 * 1024
JOURNAL_GROWTH_TIDY: Final = 8
# And it is folded behind the commit that takes it over one of these: a start has to read it, what is young is in memory, and
# while it is folded others wait.
JOURNAL_BYTES_MAX: Final = 16 * 1024 * 1024
YOUNG_MAX: Final = 10_000  # entries
UNFOLDED_USERS_MAX: Final = 5_000
WAL_PAGES_TIDY: Final = 2048  # about: SQLite's WAL is then copied into the file, too
_PAGE_BYTES: Final = 4096
_PAGES_OF_A_ROW: Final = 3  # of a table and two indices
_PAGES_OF_A_COMMIT: Final = 4


class Ledger:
    """The states of users, on `connection`.

    Either `be_current`, calls that append or acknowledge, `journal`; or begin, fold, any calls, commit. rollback when one
    raised.
    """

    def __init__(self, connection: sqlite3.Connection, users_cached_max: int = USERS_CACHED_MAX) -> None:
        self.connection = connection
        self._users_cached_max = users_cached_max
        self._states: OrderedDict[str, UserState] = OrderedDict()
        self._version: tuple[int, int] | None = None  # epoch and end of the journal, of which the states are
        self._touched: dict[int, UserState] = {}  # since the last commit: their caches may be over a bound
        self._group = Changes()  # since the last commit
        self._unfolded = Changes()  # in the journal
        self._journal_bytes = 0
        self._journal_bytes_tidied = 0  # when it was last written anew
        self._young = 0  # entries that the tables do not have
        self._wal_pages = 0  # about so many since the last checkpoint
        self._is_writing = False
        self._rows_changed = 0
        self.is_unsynced = False  # committed, and not on the disk by itself: for the caller to sync, and to note
        self.entries = self._group.entries
        self.origins_moved = self._group.origins_moved
        self.origins_new = self._group.origins_new

    # --- commits to the journal

    def be_current(self) -> None:
        """Know the states behind the file, once; what others changed since is for `journal` to find."""
        if self._version is None:
            self.begin(writes=False)
            self.commit()

    @property
    def is_current(self) -> bool:
        """Whether `be_current` would do nothing."""
        return self._version is not None

    def journal(self) -> bool:
        """Commit. When this returns True, it is on the disk behind the next sync.

        False: another process changed the file, nothing was committed, and the calls have to be made again.
        """
        assert self._version is not None
        epoch, last = self._version
        if self._group.users:
            packed = self._group.packed()
            is_done = self.connection.execute(sql.JOURNAL_ADD, (last + 1, packed, epoch)).rowcount == 1
            self._wrote(len(packed), 0)
            self._journal_bytes += len(packed)
            last += 1
        else:
            is_done = self._version == self._read_version()
        if not is_done:
            self.rollback()
            return False
        self._version = epoch, last
        self._young += len(self.entries) // 2
        self._unfolded.absorb(self._group)
        self._group.clear()
        self._evict()
        return True

    def _wrote(self, bytes_: int, rows: int) -> None:
        self.is_unsynced = True
        self._wal_pages += bytes_ // _PAGE_BYTES + rows * _PAGES_OF_A_ROW + _PAGES_OF_A_COMMIT

    @property
    def is_tidy_due(self) -> bool:
        """Whether it is time to tidy."""
        if self._is_fold_due or self._wal_pages > WAL_PAGES_TIDY:
            return True
        return self._journal_bytes > max(JOURNAL_BYTES_TIDY, self._journal_bytes_tidied * JOURNAL_GROWTH_TIDY)

    @property
    def _is_fold_due(self) -> bool:
        are_many = self._young > YOUNG_MAX or len(self._unfolded.users) > UNFOLDED_USERS_MAX
        return are_many or self._journal_bytes > JOURNAL_BYTES_MAX

    def tidy(self, *, folds: bool = False) -> bool:
        """Make the journal shorter, in a transaction of its own (`folds`: and empty), then the WAL. True: it was folded."""
        self.begin(writes=True)
        folds = folds or self._is_fold_due or self._young_bytes() > JOURNAL_BYTES_MAX // JOURNAL_GROWTH_TIDY
        if folds:
            self.commit()
        else:
            self._write_journal_anew()
        self._wal_pages = 0  # also where a reader kept some of it from being copied: the next time does it
        self.connection.execute(sql.CHECKPOINT).fetchone()
        return folds

    def _young_bytes(self) -> int:
        return sum([len(row[-1]) for state in self._unfolded.users.values() for row in state.young])

    def _write_journal_anew(self) -> None:
        assert self._version is not None
        for state in self._unfolded.users.values():
            for *head, body in state.young:
                self._unfolded.entries += (entry_head(*head, len(body)), body)
        packed = self._unfolded.packed()
        self._unfolded.entries.clear()
        self.connection.execute(sql.JOURNAL_EMPTY)
        self.connection.execute(sql.EPOCH_NEXT)
        epoch, last = self._version[0] + 1, 1
        self.connection.execute(sql.JOURNAL_ADD, (last, packed, epoch))
        self.connection.execute("COMMIT")
        self._wrote(len(packed), 0)
        self._version = epoch, last
        self._journal_bytes = self._journal_bytes_tidied = len(packed)

    # --- transactions

    def begin(self, *, writes: bool) -> None:
        """Begin, on the states that are those of the file. Who does not only change states folds next."""
        self.connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
        self._is_writing = writes
        version = self._read_version()
        if version != self._version:
            self._forget()
            self._read_journal()
            self._version = version
        self._rows_changed = self.connection.total_changes

    def commit(self) -> None:
        """Fold what gathered, when writing. When this returns, it is on the disk behind the next sync."""
        assert self._version is not None
        epoch, _ = version = self._version
        journal_bytes, rows = self._journal_bytes, 0
        if self._is_writing:
            self.fold()
            rows = self.connection.total_changes - self._rows_changed
            if rows:
                self.connection.execute(sql.EPOCH_NEXT)
                version = epoch + 1, 0
        self.connection.execute("COMMIT")
        if rows:
            self._wrote(journal_bytes, rows)
        self._version = version
        self._evict()

    def rollback(self) -> None:
        """Undo the transaction, and drop the states: they ran ahead of the file. The next begin reads them again."""
        self._forget()
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    def fold(self) -> None:
        """Send what gathered, and what is in the journal, to the tables, within the transaction.

        Whoever reads entries by himself calls this first.
        """
        self._unfolded.absorb(self._group)
        self._group.clear()
        if self._journal_bytes:  # first: a full disk has the room that it leaves
            self.connection.execute(sql.JOURNAL_EMPTY)
            self._journal_bytes = self._journal_bytes_tidied = 0
        if self._unfolded.users:
            self._fold(self._unfolded)
            self._touched.update(self._unfolded.users)
            self._unfolded.clear()
            self._young = 0

    def _fold(self, changes: Changes) -> None:
        trims: list[tuple[int, int]] = []
        entries: list[EntryRow] = []
        for uid, state in changes.users.items():
            if state.table_floor < min(state.floor, state.table_head):
                trims.append((uid, state.floor))
            entries += state.young
            state.folded()
        self._put(sql.ENTRIES_TRIM, trims)
        self._put(sql.ENTRY_ADD, entries)
        self._put(sql.DEVICE_PUT, changes.device_rows())
        self._put(sql.ORIGIN_PUT, origin_rows(changes.origins_new))
        self._put(sql.ORIGIN_MOVE, origin_rows(changes.origins_moved))
        self._put(sql.USER_PUT, changes.user_rows())
        self.connection.executemany(sql.USER_DUE, changes.due_rows())

    def _put(self, statements: Mapping[int, str], some: Iterable[Sequence[Any]]) -> None:
        """The rows, in as few runs of a statement as there can be."""
        rows, at = list(some), 0
        while left := len(rows) - at:
            count = sql.ROWS_MAX if left >= sql.ROWS_MAX else min(left, sql.ROWS_EXACT)
            self.connection.execute(statements[count], tuple(chain.from_iterable(rows[at : at + count])))
            at += count

    # --- in step with the file

    def _read_version(self) -> tuple[int, int]:
        epoch, last = self.connection.execute(sql.JOURNAL_END).fetchone()
        return epoch, last

    def _forget(self) -> None:
        self._states.clear()
        self._touched.clear()
        self._group.clear()
        self._unfolded.clear()
        self._journal_bytes = self._journal_bytes_tidied = self._young = 0
        self._version = None

    def _read_journal(self) -> None:
        """Take up what is in the journal, as if this process had committed it."""
        unfolded, states = self._unfolded, _StatesByUid(self)
        for (packed,) in self.connection.execute(sql.JOURNAL_READ).fetchall():
            self._journal_bytes += len(packed)
            entries, devices, origins, users, due = unpacked(packed)
            for *numbers, uid in users:
                state = unfolded.users[uid] = states[uid]
                state.floor, state.head, state.bytes, state.delivered, state.asked = numbers
            for row in entries_of(entries):
                states[row[0]].young.append(row)
            for uid, name, *place in devices:
                states[uid].devices[name] = unfolded.devices[uid, name] = Device(*place)
            for high, refused, gaps, uid, key, day in origins:
                states[uid].origins[key] = unfolded.origins_new[uid, key] = Origin(high, refused, day, gaps)
            for due_ms, uid in due:
                states[uid].due_ms = due_ms
                unfolded.due[uid] = states[uid]
        for state in states.values():
            state.trim_young()
            self._young += len(state.young)

    def _evict(self) -> None:
        """Keep the cache within its bounds, but for what is not in the tables yet."""
        unfolded = self._unfolded
        surplus = len(self._states) - self._users_cached_max
        if surplus > 0:
            for user, state in list(islice(self._states.items(), surplus + len(unfolded.users))):
                if surplus > 0 and state.uid not in unfolded.users:
                    del self._states[user]
                    surplus -= 1
        for state in self._touched.values():
            if len(state.origins) > ORIGINS_CACHED_MAX:
                self._evict_origins(state)
        self._touched.clear()

    def _evict_origins(self, state: UserState) -> None:
        surplus = len(state.origins) - ORIGINS_CACHED_MAX
        for key in list(state.origins):
            place = state.uid, key
            if surplus > 0 and place not in self._unfolded.origins_moved and place not in self._unfolded.origins_new:
                del state.origins[key]
                surplus -= 1

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
        self._touched[state.uid] = state
        return state

    def known(self, user: str) -> UserState | None:
        """The user, when the state is in memory."""
        return self._states.get(user)

    def create(self, user: str, generation: bytes) -> UserState:
        """Make a user that is not there."""
        (uid,) = self.connection.execute(sql.USER_ADD, (user, generation)).fetchone()
        state = self._states[user] = UserState(uid, generation)
        return state

    def delete(self, user: str, state: UserState) -> None:
        """Forget a user with all it has."""
        self.fold()
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
        """Something of the user changed. To be said of every change: it is what keeps the state in the cache."""
        self._group.users[state.uid] = state

    def device_changed(self, state: UserState, name: str) -> None:
        """The device changed or is new."""
        self._group.devices[state.uid, name] = state.devices[name]
        self._group.users[state.uid] = state

    def device_gone(self, state: UserState, name: str) -> None:
        """The device is forgotten. Only within a transaction."""
        self._group.devices.pop((state.uid, name), None)
        del state.devices[name]
        self.connection.execute(sql.DEVICE_DROP, (state.uid, name))

    def set_due(self, state: UserState, due_ms: int) -> None:
        """When the user is next due for a sweep. Apart from the rest, so that its index is seldom touched."""
        if due_ms != state.due_ms:
            state.due_ms = due_ms
            self._group.due[state.uid] = state
            self._group.users[state.uid] = state

    def trim(self, state: UserState, floor: int) -> None:
        """Drop all entries up to `floor`; back is no way."""
        if floor <= state.floor:
            return
        size = state.size_up_to(floor)
        state.bytes -= size if size is not None else self._bytes_up_to(state, floor)
        state.floor = floor
        state.delivered = max(state.delivered, floor)
        self._young -= state.trim_young()
        self._group.users[state.uid] = state

    def _bytes_up_to(self, state: UserState, floor: int) -> int:
        # asked only behind a start or for a long queue: for each ACK it was 8 % of the CPU of an embedded chatd
        size = sum([len(row[-1]) for row in state.young if row[1] <= floor])
        if state.floor < state.table_head:
            size += self.one(sql.ENTRIES_BYTES, (state.uid, state.floor, min(floor, state.table_head)))
        return size

    def one(self, statement: str, values: tuple[Any, ...]) -> int:
        """The one number that a query gives."""
        number: int = self.connection.execute(statement, values).fetchone()[0]
        return number


class _StatesByUid(dict[int, UserState]):
    """States as the tables have them, each read when it is first asked for."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self._ledger = ledger

    def __missing__(self, uid: int) -> UserState:
        (user,) = self._ledger.connection.execute(sql.USER_NAME, (uid,)).fetchone()
        state = self._ledger.state(user)
        assert state is not None
        self[uid] = state
        return state
