"""What commits changed, as one value: it goes to the journal as it is, and to the tables later, with that of many commits.

A change says what something is now, never what was added to it; so the later one of two is all that counts, and a user
who gets a thousand messages and acknowledges them costs the tables one row.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

import msgpack

from brokerd.links.sqlite_state import Device, EntryRow, Origin, UserState

DeviceRow = tuple[int, str, int, int, int, int, int]
OriginRow = tuple[int, bytes, bytes, int, bytes, int]
UserRow = tuple[int, int, int, int, int, int]
Packed = tuple[
    bytes,  # entries: see entries_of
    tuple[DeviceRow, ...],
    tuple[OriginRow, ...],
    tuple[UserRow, ...],
    tuple[tuple[int, int], ...],  # due_ms, uid
]


# An entry in the journal: uid, seq, type, flags, expires_ms, and how many bytes of body follow. One struct for each, since
# msgpack takes five times as long for as many numbers.
_ENTRY: Final = Struct(">qqBBqI")
entry_head: Final = _ENTRY.pack  # raises struct.error


class Changes:
    """Of the users in `users`, and nobody else: the rows of what changed, and the entries that came."""

    __slots__ = ("devices", "due", "entries", "origins_moved", "origins_new", "users")

    def __init__(self) -> None:
        self.users: dict[int, UserState] = {}
        self.entries: list[bytes] = []  # head, body, head, body …
        self.devices: dict[tuple[int, str], Device] = {}
        self.origins_new: dict[tuple[int, bytes], Origin] = {}
        self.origins_moved: dict[tuple[int, bytes], Origin] = {}  # whose day is as it was: its index is not touched
        self.due: dict[int, UserState] = {}

    def clear(self) -> None:
        """Nothing changed."""
        self.users.clear()
        self.entries.clear()
        self.devices.clear()
        self.origins_new.clear()
        self.origins_moved.clear()
        self.due.clear()

    def absorb(self, later: Changes) -> None:
        """What changed later, too; but for its entries, which their users hold (UserState.young)."""
        self.users.update(later.users)
        self.devices.update(later.devices)
        self.origins_new.update(later.origins_new)
        self.origins_moved.update(later.origins_moved)
        self.due.update(later.due)

    def packed(self) -> bytes:
        """As it stands in the journal: msgpack of Packed."""
        origins = origin_rows(self.origins_new) + origin_rows(self.origins_moved)
        rows = (b"".join(self.entries), self.device_rows(), origins, self.user_rows(), self.due_rows())
        packed: bytes = msgpack.packb(rows)
        return packed

    def user_rows(self) -> list[UserRow]:
        """For USER_PUT."""
        return [(it.floor, it.head, it.bytes, it.delivered, it.asked, uid) for uid, it in self.users.items()]

    def device_rows(self) -> list[DeviceRow]:
        """For DEVICE_PUT."""
        return [
            (uid, name, it.cursor, it.seen_ms, it.reason, it.trouble_ms, it.attempts)
            for (uid, name), it in self.devices.items()
        ]

    def due_rows(self) -> list[tuple[int, int]]:
        """For USER_DUE."""
        return [(it.due_ms, uid) for uid, it in self.due.items()]


def origin_rows(origins: dict[tuple[int, bytes], Origin]) -> list[OriginRow]:
    """For ORIGIN_PUT and ORIGIN_MOVE."""
    return [(*it.packed(), uid, key, it.day) for (uid, key), it in origins.items()]


def entries_of(packed: bytes) -> list[EntryRow]:
    """The entries of a commit."""
    rows: list[EntryRow] = []
    at = 0
    while at < len(packed):
        uid, seq, type_, flags, expires_ms, size = _ENTRY.unpack_from(packed, at)
        at += _ENTRY.size + size
        rows.append((uid, seq, type_, flags, expires_ms, packed[at - size : at]))
    return rows


def unpacked(packed: bytes) -> Packed:
    """What `Changes.packed` gave."""
    rows: Packed = msgpack.unpackb(packed, use_list=False)
    return rows
