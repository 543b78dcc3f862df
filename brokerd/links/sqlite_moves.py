"""What a message does to the sent_queue: it is appended, read, acknowledged. Plain functions on a Ledger; see SentQueue.

The order of decisions in an append is the contract: a repeat gets its first result even when the queue is full by now.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, islice
from typing import Final, NamedTuple

from brokerd.links import sqlite_schema as sql
from brokerd.links.gaps import open_gap
from brokerd.links.sqlite_journal import entry_head
from brokerd.links.sqlite_ledger import Ledger
from brokerd.links.sqlite_state import Device, Origin, UserState
from brokerd.ports import EXPIRING, FULL, NO_USER, REPEAT, Ack, Acked, Append, Entry, Opened, Owed, Page, Stored
from protocol.wire import Flag, Type

DAY_MS: Final = 24 * 3600 * 1000
OWED_MAX: Final = 256  # entries in one Acked; the next Ack brings more
OWED_BYTES_MAX: Final = 1024 * 1024  # and of their bodies, but for the last
SEEN_AGAIN_MS: Final = DAY_MS  # an ack renews its device's last login, at most once in this time
RECEIPT_SHARE: Final = 2  # receipts may fill the queue to this many times its bounds: a bounce must not be bounced
DELIVER: Final = int(Type.DELIVER)
_RECEIPT: Final = int(Type.RECEIPT)
_COPIES: Final = frozenset((int(Type.SENT), int(Type.READ_SYNC)))  # for the user's other devices
ASKS: Final = int(Flag.RECEIPT)
CID_MAX: Final = (1 << 63) - 1


class Bounds(NamedTuple):
    """How much one user's queue may hold: entries (tombstones too) and bytes of bodies."""

    count_max: int
    bytes_max: int


class Saved(NamedTuple):
    """Appended, without the seats."""

    results: Sequence[int]
    head: int


def append(ledger: Ledger, appends: Sequence[Append], bounds: Bounds, now_ms: int) -> list[Saved]:
    """See SentQueue.append."""
    day = now_ms // DAY_MS
    return [_append_to(ledger, item, bounds, day) for item in appends]


def append_is_warm(ledger: Ledger, appends: Sequence[Append]) -> bool:
    """Whether `append` finds all it needs in memory."""
    for item in appends:
        state = ledger.known(item.user)
        if state is None:
            return False
        key = b""
        for entry in item.entries:
            if entry[0] != key:
                key = entry[0]
                if key not in state.origins:
                    return False
    return True


def _append_to(ledger: Ledger, item: Append, bounds: Bounds, day: int) -> Saved:
    state = ledger.state(item.user)
    if state is None:
        return Saved([NO_USER] * len(item.entries), 0)
    if not item.entries:
        return Saved((), state.head)
    before = state.head
    results: list[int] = []
    key, origin = b"", None  # of the entry before: most of an append comes from one
    for entry in item.entries:
        if origin is None or entry[0] != key:
            key = entry[0]
            origin = state.origins.get(key) or ledger.load_origin(state, key)
        results.append(_take(ledger, state, origin, entry, bounds, day))
    if state.head != before or FULL in results:
        ledger.moved(state)
    return Saved(results, state.head)


def _take(ledger: Ledger, state: UserState, origin: Origin, entry: Entry, bounds: Bounds, day: int) -> int:
    key, cid, type_, flags, expires_ms, body, prev = entry
    if type_ in _COPIES and len(state.devices) < 2:
        return REPEAT
    if not origin.is_new(cid, prev):
        return origin.earlier(cid)
    if origin.day != day:
        origin.day = day
        ledger.origins_new[state.uid, key] = origin
    else:
        ledger.origins_moved[state.uid, key] = origin
    if type(body) is not bytes:
        raise TypeError("a body is bytes")  # SQLite would keep any type, and give it to every device
    if cid > CID_MAX:
        raise OverflowError(f"cid {cid} is over 63 bits")  # the journal would keep it, and the tables refuse it
    share = RECEIPT_SHARE if type_ == _RECEIPT else 1
    size = len(body)
    if state.head - state.floor >= share * bounds.count_max or state.bytes + size > share * bounds.bytes_max:
        origin.note_refused(cid)
        return FULL
    origin.high = max(cid, origin.high)
    state.added(size)
    seq = state.head
    if type_ == DELIVER and flags & ASKS:
        state.asked = seq
    if expires_ms and (not state.due_ms or expires_ms < state.due_ms):
        ledger.set_due(state, expires_ms)
    uid = state.uid
    ledger.entries += (entry_head(uid, seq, type_, flags, expires_ms, size), body)
    state.young.append((uid, seq, type_, flags, expires_ms, body))
    return seq


def leave_open(ledger: Ledger, user: str, key: bytes, cid: int, now_ms: int) -> None:
    """See SentQueue.leave_open."""
    state = ledger.state(user)
    if state is None or not 0 < cid <= CID_MAX:
        return
    origin = state.origins.get(key) or ledger.load_origin(state, key)
    if cid > origin.high:
        open_gap(origin.gaps, origin.high, cid)
        origin.high = cid
        origin.day = now_ms // DAY_MS
        ledger.origins_new[state.uid, key] = origin
        ledger.moved(state)


def leave_open_is_warm(ledger: Ledger, user: str, key: bytes) -> bool:
    """Whether `leave_open` finds all it needs in memory."""
    state = ledger.known(user)
    return state is not None and key in state.origins


def acknowledge_is_warm(ledger: Ledger, acks: Sequence[Ack]) -> bool:
    """Whether `acknowledge` finds all it needs in memory. "No" may be wrong."""
    for ack in acks:
        state = ledger.known(ack.user)
        if state is None:
            return False
        if state.table_head > state.floor and (
            state.asked > state.delivered or len(state.sizes) < state.head - state.floor
        ):
            return False
    return True


def acknowledge(ledger: Ledger, acks: Sequence[Ack], now_ms: int) -> list[Acked]:
    """See SentQueue.acknowledge. With the device "" no cursor moves: it asks what is owed, or settles it."""
    return [_acknowledge(ledger, ack, now_ms) for ack in acks]


def _acknowledge(ledger: Ledger, ack: Ack, now_ms: int) -> Acked:
    state = ledger.state(ack.user)
    if state is None or ack.generation not in (b"", state.generation):
        return Acked(())
    if ack.device:
        place = state.devices.get(ack.device)
        if place is None:
            return Acked(())
        _advance(ledger, state, ack, place, now_ms)
    furthest = state.furthest_cursor()
    delivered = max(state.delivered, min(ack.settled, furthest))
    owed = _owed(ledger, state, delivered, furthest)
    delivered = owed[0].seq - 1 if owed else max(delivered, furthest)
    if delivered != state.delivered:
        state.delivered = delivered
        ledger.moved(state)
    ledger.trim(state, min(state.slowest_cursor(), delivered))
    return Acked(owed, state.generation)


def _advance(ledger: Ledger, state: UserState, ack: Ack, place: Device, now_ms: int) -> None:
    """Move the cursor. A session may live for longer than the retention: its acks keep the device known."""
    cursor = min(ack.seq, state.head)
    if cursor > place.cursor:
        place.cursor = cursor
        ledger.device_changed(state, ack.device)
    if now_ms - place.seen_ms > SEEN_AGAIN_MS:
        place.seen_ms = now_ms
        ledger.device_changed(state, ack.device)


def _owed(ledger: Ledger, state: UserState, delivered: int, furthest: int) -> list[Owed]:
    """Entries of (delivered, furthest] whose sender asked for a receipt."""
    upto = min(furthest, state.asked)
    owed: list[Owed] = []
    if upto <= delivered:
        return owed
    room = OWED_BYTES_MAX
    for item in _asking(ledger, state, delivered, upto):
        owed.append(item)
        room -= len(item.body)
        if room <= 0 or len(owed) == OWED_MAX:
            break
    return owed


def _asking(ledger: Ledger, state: UserState, after: int, upto: int) -> Iterable[Owed]:
    """Entries of (after, upto] whose sender asks for a receipt; of those in the table no more than OWED_MAX."""
    young = [
        Owed(seq, flags, body)
        for _, seq, type_, flags, _, body in state.young_after(after)
        if seq <= upto and type_ == DELIVER and flags & ASKS
    ]
    if after >= state.table_head:
        return young
    values = (state.uid, after, min(upto, state.table_head), DELIVER, ASKS, OWED_MAX)
    return chain(map(Owed._make, ledger.connection.execute(sql.ENTRIES_OWED, values)), young)


def open_device(ledger: Ledger, user: str, device: str, generation: bytes, retention_ms: int, now_ms: int) -> Opened:
    """See SentQueue.open. A new device begins behind the floor: it gets all that is still kept."""
    state = ledger.state(user) or ledger.create(user, generation)
    place = state.devices.get(device)
    if place is None:
        place = state.devices[device] = Device(state.floor, now_ms)
    place.seen_ms = now_ms
    ledger.device_changed(state, device)
    for name, other in list(state.devices.items()):
        if other.seen_ms < now_ms - retention_ms:
            ledger.device_gone(state, name)
    ledger.trim(state, min(state.slowest_cursor(), state.delivered))
    return Opened(place.cursor, state.head, state.generation, len(state.devices))


def read(ledger: Ledger, user: str, after: int, count_max: int, bytes_max: int) -> Page:
    """See SentQueue.read. A user that is not there has an empty queue."""
    state = ledger.state(user)
    if state is None:
        return Page(after + 1, (), 0)
    after = max(after, state.floor)
    entries: list[Stored] = []
    room = bytes_max
    for type_, flags, expires_ms, body in islice(_behind(ledger, state, after), max(count_max, 1)):
        room -= len(body)
        if room < 0 and entries:
            break
        entries.append(Stored(type_, flags & ~EXPIRING, expires_ms, body))
    return Page(after + 1, entries, state.head)


def _behind(ledger: Ledger, state: UserState, after: int) -> Iterable[tuple[int, int, int, bytes]]:
    """Type, flags, expires_ms and body of each entry behind `after`, which is not below the floor."""
    young = [row[2:] for row in state.young_after(after)]
    if after >= state.table_head:
        return young
    return chain(ledger.connection.execute(sql.ENTRIES_READ, (state.uid, after)), young)


def heads(ledger: Ledger, users: Sequence[str]) -> list[int]:
    """See SentQueue.heads."""
    states = [ledger.state(user) for user in users]
    return [state.head if state is not None else 0 for state in states]
