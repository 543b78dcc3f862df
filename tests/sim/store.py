"""The store of the simulated world: the contract of SentQueue and Register in dicts, one step at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from brokerd.ports import (
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
    Seat,
    Stored,
)  # fmt: skip
from protocol.wire import Flag, Type

_COPIES = {int(Type.SENT), int(Type.READ_SYNC)}


@dataclass
class Queue:
    """One user's."""

    generation: bytes
    floor: int = 0
    delivered: int = 0
    entries: list[Stored] = field(default_factory=list)
    cursors: dict[str, int] = field(default_factory=dict)
    taken: dict[bytes, int] = field(default_factory=dict)  # the highest cid by origin; a key counts as 0

    @property
    def head(self) -> int:
        return self.floor + len(self.entries)

    def trim(self) -> None:
        """Drop what every device processed and whose senders know."""
        floor = min(min(self.cursors.values(), default=0), self.delivered)
        if floor > self.floor:
            del self.entries[: floor - self.floor]
            self.floor = floor


class Store:
    """Synchronous: each call is one atomic step, as one script is."""

    def __init__(self, clock_s: Callable[[], float]) -> None:
        self._clock_s = clock_s
        self.queues: dict[str, Queue] = {}
        self._seats: dict[str, dict[str, Seat]] = {}
        self._lease_ends_s: dict[str, float] = {}

    # --- the sent_queue

    def append(self, appends: Sequence[Append], now_ms: int) -> list[Appended]:
        return [self._append(user, entries) for user, entries in appends]

    def _append(self, user: str, entries: Sequence[Entry]) -> Appended:
        queue = self.queues.get(user)
        if queue is None:
            return Appended([NO_USER] * len(entries), 0, ())
        results = [self._take(queue, entry) for entry in entries]
        return Appended(results, queue.head, self._seats_of(user))

    def _take(self, queue: Queue, entry: Entry) -> int:
        if entry.type in _COPIES and len(queue.cursors) < 2:
            return REPEAT
        if entry.cid <= queue.taken.get(entry.origin, -1 if entry.cid == 0 else 0):
            return REPEAT
        queue.taken[entry.origin] = entry.cid
        queue.entries.append(Stored(entry.type, entry.flags, entry.expires_ms, entry.body))
        return queue.head

    def acknowledge(self, acks: Sequence[Ack], now_ms: int) -> list[Acked]:
        return [Acked(self._acknowledge(ack)) for ack in acks]

    def _acknowledge(self, ack: Ack) -> list[Owed]:
        queue = self.queues.get(ack.user)
        if queue is None or (ack.device and ack.device not in queue.cursors):
            return []
        if ack.device:
            queue.cursors[ack.device] = max(queue.cursors[ack.device], min(ack.seq, queue.head))
        furthest = max(queue.cursors.values(), default=0)
        delivered = max(queue.delivered, min(ack.settled, furthest))
        owed = [
            Owed(seq, item.flags, item.body)
            for seq, item in enumerate(queue.entries[: furthest - queue.floor], queue.floor + 1)
            if seq > delivered and item.type == Type.DELIVER and item.flags & Flag.RECEIPT
        ][:256]
        queue.delivered = owed[0].seq - 1 if owed else max(delivered, furthest)
        queue.trim()
        return owed

    def open(self, user: str, device: str, fresh_generation: bytes, now_ms: int) -> Opened:
        queue = self.queues.setdefault(user, Queue(fresh_generation))
        cursor = queue.cursors.setdefault(device, queue.floor)
        return Opened(cursor, queue.head, queue.generation, len(queue.cursors))

    def read(self, user: str, after: int, count_max: int, bytes_max: int) -> Page:
        queue = self.queues.get(user)
        if queue is None:
            return Page(after + 1, (), 0)
        after = max(after, queue.floor)
        at = after - queue.floor
        return Page(after + 1, queue.entries[at : at + count_max], queue.head)

    def heads(self, users: Sequence[str]) -> list[int]:
        return [self.queues[user].head if user in self.queues else 0 for user in users]

    def note_trouble(self, user: str, device: str, reason: int, at_ms: int) -> None:
        pass

    def expired(self, user: str, now_ms: int, count_max: int) -> list[Owed]:
        queue = self.queues[user]
        slowest = min(queue.cursors.values(), default=0)
        return [
            Owed(seq, item.flags, item.body)
            for seq, item in enumerate(queue.entries, queue.floor + 1)
            if item.type and item.expires_ms <= now_ms and not (item.type == Type.DELIVER and seq <= slowest)
        ][:count_max]

    def bury(self, user: str, seqs: Sequence[int], reason: int, now_ms: int) -> None:
        queue = self.queues[user]
        for seq in seqs:
            if seq > queue.floor:
                queue.entries[seq - queue.floor - 1] = Stored(0, 0, 0, str(int(reason)).encode())

    def due(self, now_ms: int, count_max: int) -> list[str]:
        return [
            user
            for user, queue in self.queues.items()
            if any(item.type and item.expires_ms <= now_ms for item in queue.entries)
        ][:count_max]

    # --- the register

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
        return [self._seats_of(user) for user in users]

    def _seats_of(self, user: str) -> list[Seat]:
        now_s = self._clock_s()
        return [seat for seat in self._seats.get(user, {}).values() if self._lease_ends_s.get(seat.node, 0.0) > now_s]

    def renew_lease(self, node: str, ttl_ms: int) -> bool:
        now_s = self._clock_s()
        stood = self._lease_ends_s.get(node, 0.0) > now_s
        self._lease_ends_s[node] = now_s + ttl_ms / 1000
        return stood

    def drop_lease(self, node: str) -> None:
        self._lease_ends_s.pop(node, None)
