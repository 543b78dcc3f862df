"""What the adapter remembers of a user: the small numbers that decide what an append or an ack does.

The cache is write-through: a state is changed in memory, its rows follow in the same transaction, and when that fails
the state is dropped and read again. It is only ever touched by the writer's thread.
"""

from __future__ import annotations

from typing import Final

import msgpack

from brokerd.links.gaps import fill_gap, open_gap
from brokerd.ports import FULL, REPEAT

REFUSED_RANGES_MAX: Final = 512  # half of wire.UNACCEPTED_MAX: no more can alternate among what a client may resend
SIZES_MAX: Final = 2048  # entries of a user whose sizes are remembered; beyond it the older half is forgotten
UNUSED: Final = -1  # `high` of an origin that never sent
EntryRow = tuple[int, int, int, int, int, bytes]  # of the table `entries`: uid, seq, type, flags, expires_ms, body


class Origin:
    """What was taken from one origin by one user: everything up to `high`, but for the `refused` ranges of cids, which
    found the queue full, and the `gaps`, which never came (brokerd.links.gaps).

    A refusal lengthens the last range when nothing was taken since: a flood against a full queue costs one range. With
    a key instead of a cid, the cid is 0, and the same words hold.
    """

    __slots__ = ("day", "gaps", "high", "refused")

    def __init__(self, high: int = UNUSED, refused: bytes = b"", day: int = 0, gaps: bytes = b"") -> None:
        self.high = high
        self.refused: list[int] = msgpack.unpackb(refused) if refused else []
        self.gaps: list[int] = msgpack.unpackb(gaps) if gaps else []
        self.day = day

    def is_new(self, cid: int, prev: int) -> bool:
        """Whether `cid` was never answered; then it is about to be."""
        if cid <= self.high:
            return bool(self.gaps) and fill_gap(self.gaps, cid, prev)
        if prev > self.high:
            open_gap(self.gaps, self.high, prev)
        return True

    def earlier(self, cid: int) -> int:
        """The result that `cid` (not above `high`) had: REPEAT when it was taken, else FULL."""
        ranges = self.refused
        for at in range(0, len(ranges), 2):
            if ranges[at] <= cid <= ranges[at + 1]:
                return FULL
        return REPEAT

    def note_refused(self, cid: int) -> None:
        """`cid` found the queue full."""
        if self.refused and self.refused[-1] == self.high:
            self.refused[-1] = cid
        else:
            self.refused += (cid, cid)
            del self.refused[: -2 * REFUSED_RANGES_MAX]
        self.high = max(cid, self.high)

    def packed(self) -> tuple[int, bytes, bytes]:
        """high, refused and gaps as they are stored."""
        return (
            self.high,
            msgpack.packb(self.refused) if self.refused else b"",
            msgpack.packb(self.gaps) if self.gaps else b"",
        )


class Device:
    """One known device of a user; see the table `devices`."""

    __slots__ = ("attempts", "cursor", "reason", "seen_ms", "trouble_ms")

    def __init__(self, cursor: int, seen_ms: int, reason: int = 0, trouble_ms: int = 0, attempts: int = 0) -> None:
        self.cursor = cursor
        self.seen_ms = seen_ms
        self.reason = reason
        self.trouble_ms = trouble_ms
        self.attempts = attempts


class UserState:
    """One user; see the table `users`. Invariant: floor <= delivered <= head and floor <= every trimmed-to cursor."""

    __slots__ = (
        "asked", "bytes", "delivered", "devices", "due_ms", "floor", "generation", "head", "origins", "sizes",
        "table_floor", "table_head", "uid", "young",
    )  # fmt: skip

    def __init__(
        self, uid: int, generation: bytes,
        floor: int = 0, head: int = 0, bytes_: int = 0, delivered: int = 0, asked: int = 0, due_ms: int = 0,
    ) -> None:  # fmt: skip
        self.uid = uid
        self.generation = generation
        self.floor = floor
        self.head = head
        self.bytes = bytes_
        self.delivered = delivered
        self.asked = asked
        self.due_ms = due_ms
        self.table_floor = floor  # the table has the entries behind this one
        self.table_head = head  # up to this one,
        self.young: list[EntryRow] = []  # and these are those behind, up to head
        self.devices: dict[str, Device] = {}
        self.origins: dict[bytes, Origin] = {}
        self.sizes: list[
            int
        ] = []  # bytes of the newest entries, the last one that of `head` (a deque, empty, takes 620 bytes)

    def added(self, size: int) -> None:
        """An entry of so many bytes stands behind all others now."""
        self.head += 1
        self.bytes += size
        self.sizes.append(size)
        if len(self.sizes) > SIZES_MAX:
            del self.sizes[: SIZES_MAX // 2]

    def size_up_to(self, floor: int) -> int | None:
        """The bytes of the entries up to `floor`, which are about to go. None: not remembered."""
        if floor == self.head:
            self.sizes.clear()
            return self.bytes
        first = self.head - len(self.sizes) + 1
        count = max(0, floor + 1 - first)
        gone = sum(self.sizes[:count])
        del self.sizes[:count]
        return gone if first <= self.floor + 1 else None

    def young_after(self, seq: int) -> list[EntryRow]:
        """Those of `young` that are behind seq."""
        return self.young[max(0, seq - self.head + len(self.young)) :]

    def trim_young(self) -> int:
        """Nothing up to the floor is kept; how many went."""
        gone = max(0, self.floor - self.head + len(self.young))
        del self.young[:gone]
        return gone

    def folded(self) -> None:
        """The tables have all that is in here."""
        self.table_floor, self.table_head = self.floor, self.head
        self.young.clear()

    def slowest_cursor(self) -> int:
        """What every known device acknowledged; the floor while none is known, for then nothing may go."""
        if not self.devices:
            return self.floor
        return min([device.cursor for device in self.devices.values()])

    def furthest_cursor(self) -> int:
        """What at least one known device acknowledged."""
        return max([device.cursor for device in self.devices.values()], default=self.floor)
