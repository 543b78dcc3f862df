"""The ledger of a chaos run: what every device posted, saw and was told, and what must follow from it. No I/O.

Breaches are found as early as possible (a second sight, a receipt before the sight that it claims, a seq that is missing);
what must happen in the end is asked with `unfinished`. A message is known by its label, which is in its payload, so the
server cannot hide a second copy behind another id.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from protocol.client import Incomings, Refused
from protocol.messages import Deliver, Gone, Read, ReadSync, Receipt, Send, Sent, Signalled
from protocol.wire import DEVICE_TAG_BYTES, Flag, Status

BREACHES_MAX: Final = 200  # kept with their words; all are counted
END: Final = (Status.DELIVERED, Status.EXPIRED, Status.FAILED)


class DeviceName(NamedTuple):
    """One device of one user."""

    user: str
    device: str

    def __str__(self) -> str:
        return f"{self.user}/{self.device}"


@dataclass(slots=True)
class Message:
    """All that is known of one message. Times are seconds of the run."""

    label: str
    by: DeviceName
    to: str
    flags: int
    ttl_s: int | None
    posted_s: float
    accepted_s: float | None = None
    refused: str = ""
    id: bytes = b""
    seen: dict[DeviceName, tuple[float, int]] = field(default_factory=dict)  # when, under which seq
    told: dict[tuple[DeviceName, int], float] = field(default_factory=dict)  # device and status, when
    read_s: float | None = None  # a READ of it was accepted


class Breach(NamedTuple):
    """Something that was promised not to happen. `kind`: lost, duplicate, misordered, phantom, early, gap, refused."""

    kind: str
    text: str
    label: str = ""


@dataclass(slots=True)
class Book:
    """What one device has seen so far."""

    last_seq: int | None = None
    last_cids: dict[tuple[bytes, str], int] = field(default_factory=dict)  # by sender's device tag and receiver


class Ledger:
    """`devices` are all there will ever be, each logged in once before the first message."""

    def __init__(self, devices: Iterable[DeviceName]) -> None:
        self._begun_s = time.monotonic()
        self.of_user: dict[str, list[DeviceName]] = defaultdict(list)
        for name in devices:
            self.of_user[name.user].append(name)
        self.messages: dict[str, Message] = {}
        self.by_id: dict[bytes, Message] = {}
        self.counts: Counter[str] = Counter()
        self.breaches: list[Breach] = []
        self._open: dict[str, Message] = {}
        self._early: dict[bytes, list[tuple[DeviceName, Receipt]]] = defaultdict(
            list
        )  # told before ACCEPTED gave the id
        self._books: dict[DeviceName, Book] = defaultdict(Book)
        self._queues: dict[str, dict[int, object]] = defaultdict(dict)  # user → seq → what it is, as first seen

    def now_s(self) -> float:
        """Seconds of this run."""
        return time.monotonic() - self._begun_s

    def breach(self, kind: str, text: str, message: Message | None = None) -> None:
        """Note a broken promise."""
        self.counts[kind] += 1
        if len(self.breaches) < BREACHES_MAX:
            self.breaches.append(Breach(kind, f"{self.now_s():.3f} s: {text}", message.label if message else ""))

    # --- out

    def posted(self, by: DeviceName, label: str, send: Send) -> Message:
        """A device is about to post."""
        message = Message(label, by, send.to, send.flags, send.ttl_s, self.now_s())
        self.messages[label] = self._open[label] = message
        return message

    def withdraw(self, message: Message) -> None:
        """It was not posted after all."""
        del self.messages[message.label], self._open[message.label]

    def accepted(self, message: Message, id_: bytes) -> None:
        """ACCEPTED came."""
        message.accepted_s = self.now_s()
        self.counts["accepted"] += 1
        self._name(message, id_)

    def refused(self, message: Message, fault: Refused) -> None:
        """The server said surely no."""
        message.refused = str(fault) or repr(fault)
        self.counts["refused"] += 1
        self._open.pop(message.label, None)
        if message.seen:
            self.breach("phantom", f"{message.label} was refused ({message.refused}) and is seen", message)

    def read(self, request: Read) -> None:
        """A READ was accepted."""
        for id_ in request.ids:
            message = self.by_id[id_]
            message.read_s = self.now_s()
            self._open[message.label] = message

    def _name(self, message: Message, id_: bytes) -> None:
        if message.id and message.id != id_:
            self.breach("phantom", f"{message.label} has two ids, {message.id.hex()} and {id_.hex()}", message)
        message.id = id_
        self.by_id[id_] = message
        for name, event in self._early.pop(id_, ()):
            self._take_status(name, event, message)

    # --- in

    def saw(self, name: DeviceName, event: Incomings) -> Message | None:
        """A device's application takes an event. Gives the message of a DELIVER."""
        if isinstance(event, Signalled):
            return None
        book = self._books[name]
        last = event.last if isinstance(event, Gone) else event.ref
        if book.last_seq is not None and event.ref != book.last_seq + 1:
            kind = "gap" if event.ref > book.last_seq else "duplicate"
            self.breach(kind, f"{name} takes seq {event.ref} after {book.last_seq}: {event}"[:200])
        book.last_seq = last
        if isinstance(event, Gone):
            self.counts["gone"] += last - event.ref + 1
            return None
        self._compare(name, event)
        if isinstance(event, Receipt):
            self._take_receipt(name, event)
        elif not isinstance(event, ReadSync):
            return self._take_message(name, book, event)
        return None

    def _compare(self, name: DeviceName, event: Deliver | Sent | Receipt | ReadSync) -> None:
        """All devices of a user see the same at the same place."""
        what: object = hash(event)
        if self._queues[name.user].setdefault(event.ref, what) != what:
            self.breach("misordered", f"{name} sees at seq {event.ref} what another device does not: {event}"[:200])

    def _take_message(self, name: DeviceName, book: Book, event: Deliver | Sent) -> Message | None:
        label = event.payload.split(b"\0", 1)[0].decode(errors="replace")
        message = self.messages.get(label)
        to, sender = (name.user, event.sender) if isinstance(event, Deliver) else (event.to, name.user)
        if message is None or (message.to, message.by.user) != (to, sender):
            self.breach("phantom", f"{name} sees {label!r} from {sender} to {to}", message)
            return None
        if message.refused:
            self.breach("phantom", f"{name} sees {label}, which was refused ({message.refused})", message)
        if name in message.seen:
            self.breach("duplicate", f"{name} sees {label} again, as seq {event.ref}", message)
        self._name(message, event.id)
        cid, key = int.from_bytes(event.id[DEVICE_TAG_BYTES:], "big"), (event.id[:DEVICE_TAG_BYTES], to)
        if cid <= book.last_cids.get(key, 0):
            self.breach("misordered", f"{name} sees {label} (cid {cid}) after cid {book.last_cids[key]}", message)
        book.last_cids[key] = cid
        message.seen[name] = (self.now_s(), event.ref)
        self.counts["seen"] += 1
        return message if isinstance(event, Deliver) else None

    def _take_receipt(self, name: DeviceName, event: Receipt) -> None:
        for id_ in event.ids:
            message = self.by_id.get(id_)
            if message is None:  # an ACCEPTED that a fault held up: the message may end before its sender learns its id
                self._early[id_].append((name, event))
            else:
                self._take_status(name, event, message)

    def _take_status(self, name: DeviceName, event: Receipt, message: Message) -> None:
        if (message.by.user, message.to) != (name.user, event.peer):
            self.breach("phantom", f"{name} is told status {event.status} of {message.label}, not its own", message)
            return
        key = (name, event.status)
        self.counts["receipts"] += key not in message.told
        message.told.setdefault(key, self.now_s())
        readers = [other for other in message.seen if other.user == message.to]
        if event.status in (Status.DELIVERED, Status.READ) and not readers:
            self.breach(
                "early", f"{name} is told {Status(event.status).name} before anybody saw {message.label}", message
            )
        if event.status == Status.EXPIRED and message.ttl_s is None:
            self.breach("lost", f"{message.label} expired without a ttl", message)
        if event.status == Status.FAILED:
            self.breach("lost", f"{message.label} failed, reason {event.reason}", message)

    # --- the end

    def strangers(self) -> list[str]:
        """What was told of ids that no message has, by now."""
        return [f"{name} was told status {event.status} of {id_.hex()}, which nobody sent"
                for id_, told in self._early.items() for name, event in told]  # fmt: skip

    def unfinished(self) -> dict[str, list[str]]:
        """What has still to happen, by the label of the message."""
        waits: dict[str, list[str]] = {}
        for label, message in tuple(self._open.items()):
            missing = list(self._missing(message))
            if missing:
                waits[label] = missing
            else:
                del self._open[label]
        return waits

    def _missing(self, message: Message) -> Iterator[str]:
        if message.accepted_s is None:
            yield "an answer"
        mine = self.of_user[message.by.user]
        if message.ttl_s is None:
            yield from (f"the sight of {name}" for name in self.of_user[message.to] if name not in message.seen)
        if len(mine) > 1:
            yield from (f"the copy for {name}" for name in mine if name not in message.seen)
        for name in mine:
            if message.flags & Flag.RECEIPT and not any((name, int(status)) in message.told for status in END):
                yield f"its end told to {name}"
            if message.read_s is not None and (name, int(Status.READ)) not in message.told:
                yield f"READ told to {name}"

    def trace(self, label: str) -> list[str]:
        """The life of a message, in lines, by time."""
        message = self.messages[label]
        lines = [
            (message.posted_s, f"posted by {message.by} to {message.to}, flags {message.flags}, ttl {message.ttl_s}")
        ]
        if message.accepted_s is not None:
            lines.append((message.accepted_s, f"ACCEPTED, id {message.id.hex()}"))
        if message.refused:
            lines.append((message.posted_s, f"refused: {message.refused}"))
        lines += [(at_s, f"seen by {name}, seq {seq}") for name, (at_s, seq) in message.seen.items()]
        lines += [(at_s, f"{Status(status).name} told to {name}") for (name, status), at_s in message.told.items()]
        if message.read_s is not None:
            lines.append((message.read_s, "READ accepted"))
        return [f"{label}:"] + [f"  {at_s:9.3f} s  {text}" for at_s, text in sorted(lines)]
