"""What keeps the sent_queue in order: expiry, troubles, users that come and go, dedupe that is old. See SentQueue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from brokerd.links import sqlite_schema as sql
from brokerd.links.sqlite_ledger import Ledger
from brokerd.links.sqlite_moves import ASKS, DAY_MS, DELIVER
from brokerd.ports import EXPIRING, Owed, QueueStatus

DEDUPE_DAYS: Final = 60  # twice the longest a client may keep an unanswered message under its old cid
PRUNED_ROWS_MAX: Final = 1000  # old dedupe rows dropped by one call of `due`: a slice, so that nobody waits for it


def probe(ledger: Ledger) -> None:
    """Write a page that says what it said before."""
    ledger.connection.execute(f"PRAGMA user_version = {sql.SCHEMA_VERSION}")


def expired(ledger: Ledger, user: str, now_ms: int, count_max: int) -> list[Owed]:
    """See SentQueue.expired."""
    state = ledger.state(user)
    if state is None:
        return []
    values = {
        "uid": state.uid, "now_ms": now_ms, "count_max": count_max, "deliver": DELIVER, "asks": ASKS,
        "delivered": state.delivered, "slowest": state.slowest_cursor(), "top": state.furthest_cursor(),
    }  # fmt: skip
    ledger.fold()
    found = [Owed(*row) for row in ledger.connection.execute(sql.ENTRIES_EXPIRED, values)]
    marks = [(EXPIRING, state.uid, seq) for seq, flags, _ in found if flags & ASKS and not flags & EXPIRING]
    ledger.connection.executemany(sql.ENTRY_MARK, marks)
    return [Owed(seq, flags & ~EXPIRING, body) for seq, flags, body in found]


def bury(ledger: Ledger, user: str, seqs: Sequence[int], reason: int) -> None:
    """See SentQueue.bury."""
    state = ledger.state(user)
    if state is None:
        return
    ledger.fold()
    run = ledger.connection.execute
    for seq in seqs:
        row = run(sql.ENTRY_SIZE, (state.uid, seq)).fetchone()
        if row is not None:  # else trimmed, or a tombstone by now
            state.bytes -= row[0]
            state.sizes.clear()
            run(sql.ENTRY_BURY, (str(int(reason)).encode(), state.uid, seq))
    ledger.moved(state)
    first = run(sql.ENTRY_FIRST_LIVE, (state.uid, state.floor)).fetchone()
    ledger.trim(state, first[0] - 1 if first is not None else state.head)
    ledger.set_due(state, ledger.one(sql.ENTRIES_NEXT_DUE, (state.uid, DELIVER, state.slowest_cursor())))


def due(ledger: Ledger, now_ms: int, count_max: int) -> list[str]:
    """See SentQueue.due. Prunes a slice of the dedupe on the way: the sweeper is who comes by regularly."""
    ledger.connection.execute(sql.ORIGINS_PRUNE, (now_ms // DAY_MS - DEDUPE_DAYS, PRUNED_ROWS_MAX))
    return [user for (user,) in ledger.connection.execute(sql.USERS_DUE, (now_ms, count_max))]


def note_trouble(ledger: Ledger, user: str, device: str, reason: int, at_ms: int) -> None:
    """See SentQueue.note_trouble. Of a device that is not known: ignored. One stop told twice counts once."""
    state = ledger.state(user)
    place = state.devices.get(device) if state is not None else None
    if state is None or place is None or (place.attempts and place.trouble_ms == at_ms):
        return
    place.reason, place.trouble_ms = int(reason), at_ms
    place.attempts += 1
    ledger.device_changed(state, device)


def create_user(ledger: Ledger, user: str, generation: bytes) -> bool:
    """See SentQueue.create_user."""
    if ledger.state(user) is not None:
        return False
    ledger.create(user, generation)
    return True


def delete_user(ledger: Ledger, user: str) -> bool:
    """See SentQueue.delete_user."""
    state = ledger.state(user)
    if state is None:
        return False
    ledger.delete(user, state)
    return True


def has_user(ledger: Ledger, user: str) -> bool:
    """See SentQueue.has_user."""
    return ledger.state(user) is not None


def status(ledger: Ledger, user: str) -> QueueStatus | None:
    """See SentQueue.status. A trouble reads `<reason> <last, Unix ms> <times>`."""
    state = ledger.state(user)
    if state is None:
        return None
    cursors = {name: place.cursor for name, place in state.devices.items()}
    troubles = {
        name: f"{place.reason} {place.trouble_ms} {place.attempts}"
        for name, place in state.devices.items()
        if place.attempts
    }
    seen_ms = {name: place.seen_ms for name, place in state.devices.items()}
    return QueueStatus(state.floor, state.head, state.bytes, cursors, troubles, seen_ms, state.generation.hex())
