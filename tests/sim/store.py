"""The store of the simulated world: the contract of SentQueue and Register in dicts, one step at a time.

tests/contracts run on it as they do on Redis and SQLite. What it does not have of the real ones: it forgets nothing of
the dedupe (Redis and SQLite drop marks after two months), it bounds no memory but a user's queue, and it is durable by
nature; `forget` is the Redis that came back empty.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from brokerd.links.gaps import fill_gap, open_gap
from brokerd.links.memory import rows_of
from brokerd.ports import (
    EXPIRING,
    FULL,
    NO_USER,
    REPEAT,
    Ack,
    Acked,
    Append,
    Appended,
    Entry,
    Opened,
    Owed,
    Page,
    QueueStatus,
    Row,
    Seat,
    Stored,
)  # fmt: skip
from protocol.wire import Flag, Type

_COPIES = {int(Type.SENT), int(Type.READ_SYNC)}
_OWED_MAX = 256
_RECEIPT_SHARE = 2
FOR_EVER_S = 1e9


@dataclass
class Origin:
    """What was answered of one sending device (or key): all up to `high`, but for the gaps."""

    high: int = -1
    gaps: list[int] = field(default_factory=list)
    refused: set[int] = field(default_factory=set)

    def is_new(self, cid: int, prev: int) -> bool:
        """Whether `cid` was never answered; then it is about to be."""
        if cid <= self.high:
            return fill_gap(self.gaps, cid, prev)
        if prev > self.high:
            open_gap(self.gaps, self.high, prev)
        self.high = cid
        return True


@dataclass
class Device:
    """A known device of a user."""

    cursor: int
    seen_ms: int
    trouble: tuple[int, int, int] | None = None  # reason, at_ms, attempts


@dataclass
class Queue:
    """One user's."""

    generation: bytes
    floor: int = 0
    delivered: int = 0  # senders were told up to here
    bytes: int = 0
    due_ms: int = 0
    entries: list[Stored] = field(default_factory=list)
    devices: dict[str, Device] = field(default_factory=dict)
    origins: dict[bytes, Origin] = field(default_factory=dict)

    @property
    def head(self) -> int:
        return self.floor + len(self.entries)

    @property
    def slowest(self) -> int:
        return min((device.cursor for device in self.devices.values()), default=self.floor)

    @property
    def furthest(self) -> int:
        return max((device.cursor for device in self.devices.values()), default=self.floor)

    def add(self, entry: Entry) -> int:
        """Its seq."""
        self.entries.append(Stored(entry.type, entry.flags, entry.expires_ms, entry.body))
        self.bytes += len(entry.body)
        if entry.expires_ms and (not self.due_ms or entry.expires_ms < self.due_ms):
            self.due_ms = entry.expires_ms
        return self.head

    def trim(self, floor: int) -> None:
        """Drop all up to `floor`."""
        if floor > self.floor:
            self.bytes -= sum(len(item.body) for item in self.entries[: floor - self.floor])
            del self.entries[: floor - self.floor]
            self.floor = floor
            self.delivered = max(self.delivered, floor)

    def owed(self) -> list[Owed]:
        """What a device has and whose sender is to be told."""
        return [
            Owed(seq, item.flags, item.body)
            for seq, item in enumerate(self.entries[: max(0, self.furthest - self.floor)], self.floor + 1)
            if seq > self.delivered and _asks(item)
        ][:_OWED_MAX]


def _asks(item: Stored) -> bool:
    return item.type == Type.DELIVER and bool(item.flags & Flag.RECEIPT)


class Register:
    """The seats and the leases, by the clock of the store."""

    def __init__(self, clock_s: Callable[[], float]) -> None:
        self._clock_s = clock_s
        self._seats: dict[str, dict[str, Seat]] = {}
        self._lease_ends_s: dict[str, float] = {}

    def forget(self) -> None:
        """All of it."""
        self._seats, self._lease_ends_s = {}, {}

    def claim(self, user: str, seat: Seat, former: Seat | None = None) -> Seat | None:
        devices = self._seats.setdefault(user, {})
        standing = devices.get(seat.device)
        if former is not None and standing not in (None, former, seat):
            return standing
        devices[seat.device] = seat
        return None if standing in (former, seat) else standing

    def release(self, user: str, seat: Seat) -> bool:
        devices = self._seats.get(user, {})
        if devices.get(seat.device) != seat:
            return False
        del devices[seat.device]
        return True

    def seats(self, users: Sequence[str]) -> list[list[Seat]]:
        return [self.seats_of(user) for user in users]

    def seats_of(self, user: str) -> list[Seat]:
        """Those of one user, on nodes whose lease lives."""
        now_s = self._clock_s()
        return [seat for seat in self._seats.get(user, {}).values() if self._lease_ends_s.get(seat.node, 0.0) > now_s]

    def rows(self, user: str) -> list[Row]:
        return rows_of(self._seats.get(user, {}), self._lease_ends_s, self._clock_s())

    def renew_lease(self, node: str, ttl_ms: int) -> bool:
        now_s = self._clock_s()
        stood = self._lease_ends_s.get(node, 0.0) > now_s
        self._lease_ends_s[node] = now_s + ttl_ms / 1000
        return stood

    def drop_lease(self, node: str) -> None:
        self._lease_ends_s.pop(node, None)


class Store(Register):
    """Synchronous: each call is one atomic step, as one script is. `dropped` is what found no room and has no sender to
    be told: receipts and copies."""

    def __init__(
        self, clock_s: Callable[[], float], *, count_max: int = 10_000, bytes_max: int = 1 << 26, retention_s: float = FOR_EVER_S
    ) -> None:  # fmt: skip
        super().__init__(clock_s)
        self._count_max, self._bytes_max, self._retention_ms = count_max, bytes_max, int(retention_s * 1000)
        self.queues: dict[str, Queue] = {}
        self.dropped: list[tuple[str, Entry]] = []

    def forget(self) -> None:
        """It came back empty."""
        super().forget()
        self.queues = {}

    # --- what is sent

    def append(self, appends: Sequence[Append], now_ms: int) -> list[Appended]:
        return [self._append(user, entries) for user, entries in appends]

    def _append(self, user: str, entries: Sequence[Entry]) -> Appended:
        queue = self.queues.get(user)
        if queue is None:
            return Appended([NO_USER] * len(entries), 0, ())
        results = [self._take(user, queue, entry) for entry in entries]
        return Appended(results, queue.head, self.seats_of(user))

    def _take(self, user: str, queue: Queue, entry: Entry) -> int:
        if entry.type in _COPIES and len(queue.devices) < 2:
            return REPEAT
        origin = queue.origins.setdefault(entry.origin, Origin())
        if not origin.is_new(entry.cid, entry.prev):
            return FULL if entry.cid in origin.refused else REPEAT
        share = _RECEIPT_SHARE if entry.type == Type.RECEIPT else 1
        if len(queue.entries) < share * self._count_max and queue.bytes + len(entry.body) <= share * self._bytes_max:
            return queue.add(entry)
        origin.refused.add(entry.cid)
        if entry.type != Type.DELIVER:
            self.dropped.append((user, entry))
        return FULL

    def leave_open(self, user: str, origin: bytes, cid: int, now_ms: int) -> None:
        queue = self.queues.get(user)
        mark = queue.origins.setdefault(origin, Origin()) if queue is not None and cid > 0 else None
        if mark is not None and cid > mark.high:
            open_gap(mark.gaps, mark.high, cid)
            mark.high = cid

    # --- what is acknowledged and read

    def acknowledge(self, acks: Sequence[Ack], now_ms: int) -> list[Acked]:
        return [
            Acked(self._acknowledge(ack, now_ms), self.queues[ack.user].generation if ack.user in self.queues else b"")
            for ack in acks
        ]

    def _acknowledge(self, ack: Ack, now_ms: int) -> list[Owed]:
        queue = self.queues.get(ack.user)
        device = queue.devices.get(ack.device) if queue is not None else None
        if queue is None or (ack.device and device is None) or ack.generation not in (b"", queue.generation):
            return []
        if device is not None:
            device.cursor = max(device.cursor, min(ack.seq, queue.head))
            device.seen_ms = max(device.seen_ms, now_ms)
        queue.delivered = max(queue.delivered, min(ack.settled, queue.furthest))
        owed = queue.owed()
        queue.delivered = owed[0].seq - 1 if owed else max(queue.delivered, queue.furthest)
        queue.trim(min(queue.slowest, queue.delivered))
        return owed

    def open(self, user: str, device: str, fresh_generation: bytes, now_ms: int) -> Opened:
        queue = self.queues.setdefault(user, Queue(fresh_generation))
        place = queue.devices.setdefault(device, Device(queue.floor, now_ms))
        place.seen_ms = now_ms
        for name in [name for name, other in queue.devices.items() if now_ms - other.seen_ms > self._retention_ms]:
            del queue.devices[name]
        queue.trim(min(queue.slowest, queue.delivered))
        return Opened(place.cursor, queue.head, queue.generation, len(queue.devices))

    def read(self, user: str, after: int, count_max: int, bytes_max: int) -> Page:
        queue = self.queues.get(user)
        if queue is None:
            return Page(after + 1, (), 0)
        after = max(after, queue.floor)
        at = after - queue.floor
        page: list[Stored] = []
        for item in queue.entries[at : at + count_max]:
            bytes_max -= len(item.body)
            if page and bytes_max < 0:
                break
            page.append(item._replace(flags=item.flags & ~EXPIRING))
        return Page(after + 1, page, queue.head)

    def heads(self, users: Sequence[str]) -> list[int]:
        return [self.queues[user].head if user in self.queues else 0 for user in users]

    # --- what expires

    def expired(self, user: str, now_ms: int, count_max: int) -> list[Owed]:
        queue = self.queues.get(user)
        if queue is None:
            return []
        found: list[Owed] = []
        for seq, item in enumerate(queue.entries, queue.floor + 1):
            if not item.type or not item.expires_ms or item.expires_ms > now_ms:
                continue
            if item.type == Type.DELIVER and seq <= queue.slowest:
                continue
            if _asks(item) and queue.delivered < seq <= queue.furthest:
                continue  # its receipt is on its way
            told = 0 if _asks(item) and seq > queue.delivered else Flag.RECEIPT
            found.append(Owed(seq, item.flags & ~told & ~EXPIRING, item.body))
        for seq, flags, _ in found[:count_max]:
            if flags & Flag.RECEIPT:
                at = seq - queue.floor - 1
                queue.entries[at] = queue.entries[at]._replace(flags=flags | EXPIRING)
        return found[:count_max]

    def bury(self, user: str, seqs: Sequence[int], reason: int, now_ms: int) -> None:
        queue = self.queues.get(user)
        if queue is None:
            return
        for seq in seqs:
            if queue.floor < seq <= queue.head and queue.entries[seq - queue.floor - 1].type:
                tombstone = Stored(0, 0, 0, str(int(reason)).encode())
                queue.bytes += len(tombstone.body) - len(queue.entries[seq - queue.floor - 1].body)
                queue.entries[seq - queue.floor - 1] = tombstone
        live = [(seq, item) for seq, item in enumerate(queue.entries, queue.floor + 1) if item.type]
        queue.trim(live[0][0] - 1 if live else queue.head)
        times = [
            item.expires_ms
            for seq, item in live
            if item.expires_ms and not (item.type == Type.DELIVER and seq <= queue.slowest)
        ]
        queue.due_ms = min(times, default=0)

    def due(self, now_ms: int, count_max: int) -> list[str]:
        due = [(queue.due_ms, user) for user, queue in self.queues.items() if 0 < queue.due_ms <= now_ms]
        return [user for _, user in sorted(due)][:count_max]

    # --- users, and what people see

    def create_user(self, user: str, fresh_generation: bytes, now_ms: int) -> bool:
        is_new = user not in self.queues
        self.queues.setdefault(user, Queue(fresh_generation))
        return is_new

    def delete_user(self, user: str) -> bool:
        return self.queues.pop(user, None) is not None

    def has_user(self, user: str) -> bool:
        return user in self.queues

    def note_trouble(self, user: str, device: str, reason: int, at_ms: int) -> None:
        queue = self.queues.get(user)
        if queue is not None and device in queue.devices:
            _, last_ms, attempts = queue.devices[device].trouble or (0, 0, 0)
            if not attempts or last_ms != at_ms:
                queue.devices[device].trouble = (int(reason), at_ms, attempts + 1)

    def status(self, user: str) -> QueueStatus | None:
        queue = self.queues.get(user)
        if queue is None:
            return None
        cursors = {name: device.cursor for name, device in queue.devices.items()}
        troubles = {
            name: " ".join(map(str, device.trouble)) for name, device in queue.devices.items() if device.trouble
        }
        seen_ms = {name: device.seen_ms for name, device in queue.devices.items()}
        return QueueStatus(queue.floor, queue.head, queue.bytes, cursors, troubles, seen_ms, queue.generation.hex())
