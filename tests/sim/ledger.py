"""What was said, answered, seen and told in one world, and the promises that can be checked at once. Broken ones raise;
what can only be known at the end is in promises.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from protocol.wire import Status, Type

PROMPT_S_MAX = 2.0  # in a gentle world, from ACCEPTED (or WELCOME) to the screen


Item = tuple[int, bytes]  # type and id


class Broken(Exception):
    """A promise does not hold; `id` names the message whose history explains it."""

    def __init__(self, why: str, id_: bytes = b"") -> None:
        super().__init__(why)
        self.why, self.id = why, id_


@dataclass
class Said:
    """One SEND or READ, from its sender's first try to its end. Its id is its own for ever."""

    sender: str
    device: str
    to: str
    of: bytes  # READ: the message that was read; b"" = a SEND
    text: bytes
    wants_receipt: bool
    expires_ms: int  # at the earliest; 0: not in the life of a world
    is_unsure: bool  # the store came back empty behind it: nothing is promised
    accepted_s: float = 0.0
    is_refused: bool = False  # for good
    told: dict[int, set[str]] = field(default_factory=dict)  # status → devices of the sender


class Ledger:
    """All requests of one world, by their ids. Devices are named user/device."""

    def __init__(self, clock_s: Callable[[], float], now_ms: Callable[[], int]) -> None:
        self._clock_s, self.now_ms = clock_s, now_ms
        self.said: dict[bytes, Said] = {}
        self.texts: dict[bytes, bytes] = {}
        self.devices: dict[str, dict[str, int]] = {}  # user → device → the seq behind which it began
        self.shared: set[str] = set()  # users who had two devices from the start: they get copies of all that they say
        self.seen: dict[str, dict[bytes, int]] = {}  # device → message → seq
        self.copies: dict[str, set[bytes]] = {}  # device → messages in SENT
        self.synced: dict[str, set[bytes]] = {}  # device → messages in READ_SYNC
        self.acked: set[bytes] = set()  # messages that a device said to have processed
        self._acked_to: dict[tuple[str, bytes], int] = {}  # by user and generation
        self.queues: dict[tuple[str, bytes], dict[int, Item]] = {}  # by user and generation, then seq
        self.signals: set[tuple[str, bytes]] = set()  # receiver, text
        self.emptied = 0
        self.is_unsure = False
        self._history: list[tuple[float, bytes, str]] = []

    # --- the story

    def note(self, id_: bytes, what: str) -> None:
        """One line of a message's history; b"": of the world's."""
        self._history.append((self._clock_s(), id_, what))

    def history(self, id_: bytes) -> str:
        """What happened to a message, and round it; of the whole world when there is none."""
        of_it = [at_s for at_s, whose, _ in self._history if id_ and whose == id_]
        begin_s, end_s = (min(of_it) - 1, max(of_it) + 20) if of_it else (self._clock_s() - 60, 1e12)
        return "\n".join(
            f"  {at_s - 1000:9.4f}  {what}"
            for at_s, whose, what in self._history
            if (id_ and whose == id_) or (not whose and begin_s <= at_s <= end_s)
        )

    # --- the world's side

    def enrol(self, user: str, device: str, begin: int) -> None:
        """A device is in for the first time, behind seq `begin`."""
        self.devices.setdefault(user, {}).setdefault(device, begin)

    def store_emptied(self) -> None:
        """Nothing is promised of what was said so far, and until `settled`."""
        self.emptied += 1
        self.is_unsure = True
        for said in self.said.values():
            said.is_unsure = True
        for devices in self.devices.values():
            for device in devices:
                devices[device] = 0

    def settled(self) -> None:
        """Everybody is in again."""
        self.is_unsure = False

    # --- the sender's side

    def say(self, id_: bytes, said: Said) -> None:
        """A new request is about to leave."""
        said.is_unsure = self.is_unsure
        self.said[id_] = said
        what = f"says READ of …{said.of[-7:].hex()}" if said.of else f"sends {said.text.decode()}"
        self.note(id_, f"{said.sender}/{said.device} {what} to {said.to}, cid {int.from_bytes(id_[-7:], 'big')}")

    def accepted(self, id_: bytes) -> None:
        said = self.said[id_]
        self.note(id_, "ACCEPTED")
        said.accepted_s = said.accepted_s or self._clock_s()

    def refused(self, id_: bytes) -> None:
        """For good: the receiver's queue is full. Of a resend this may be wrong (an earlier session's try was taken, and is
        seen): a node cannot tell a resend from a new message. An open question."""
        self.note(id_, "refused: QUEUE_FULL")
        self.said[id_].is_refused = True

    def _is_seen(self, id_: bytes, said: Said) -> bool:
        return any(id_ in self.seen.get(f"{said.to}/{device}", ()) for device in self.devices.get(said.to, ()))

    # --- the receiver's side

    def at(self, user: str, generation: bytes, seq: int, type_: int, id_: bytes) -> None:
        """Every device of a user sees the same at the same seq; but for what expired, which one may have seen before."""
        queue = self.queues.setdefault((user, generation), {})
        first = queue.setdefault(seq, (type_, id_))
        if first == (type_, id_) or self.is_unsure:
            return
        if Type.GONE in (type_, first[0]):
            queue[seq] = first if type_ == Type.GONE else (type_, id_)
            if self._may_be_gone(queue[seq]):
                return
        raise Broken(f"devices of {user} disagree about seq {seq}: {first} and {(type_, id_)}", id_ or first[1])

    def _may_be_gone(self, item: Item) -> bool:
        said = self.said[item[1]] if item[0] == Type.DELIVER else None
        return said is not None and 0 < said.expires_ms <= self.now_ms()

    def delivered(self, user: str, device: str, seq: int, id_: bytes, since_s: float | None) -> None:
        """`since_s`: when its session began, in a gentle world; else None."""
        name = f"{user}/{device}"
        self.note(id_, f"seen by {name} as {seq}")
        said = self.said.get(id_)
        if said is None or said.to != user or said.of:
            raise Broken(f"{name} saw what nobody sent it", id_)
        seen = self.seen.setdefault(name, {})
        if id_ in seen and not said.is_unsure:
            raise Broken(f"{name} saw it twice", id_)
        if Status.FAILED in said.told and not said.is_unsure:
            raise Broken(f"{name} saw it, though its sender was told that it failed", id_)
        seen[id_] = seq
        if since_s is not None and said.accepted_s:
            late_s = self._clock_s() - max(since_s, said.accepted_s)
            if late_s > PROMPT_S_MAX:
                raise Broken(f"{name} saw it {late_s:.1f} s late, though nothing was lost", id_)

    def copied(self, name: str, id_: bytes) -> None:
        """SENT: a device of the sender learns of it."""
        said = self.said.get(id_)
        if said is None or said.sender != name.partition("/")[0] or said.of:
            raise Broken(f"{name} was told of what its user never sent", id_)
        copies = self.copies.setdefault(name, set())
        if id_ in copies and not said.is_unsure:
            raise Broken(f"{name} was told twice what its user said", id_)
        copies.add(id_)

    def read_synced(self, name: str, of: bytes) -> None:
        """READ_SYNC: a device of the reader learns of it; again, when two devices said READ of the same message."""
        user = name.partition("/")[0]
        if not any(said.of == of and said.sender == user for said in self.said.values()):
            raise Broken(f"{name} was told of a READ that its user never said", of)
        self.synced.setdefault(name, set()).add(of)

    def processed(self, user: str, generation: bytes, seq: int) -> None:
        """A device is about to say that it processed all up to `seq`."""
        queue = self.queues.get((user, generation), {})
        for at in range(self._acked_to.get((user, generation), 0) + 1, seq + 1):
            type_, id_ = queue.get(at, (0, b""))
            if type_ == Type.DELIVER:
                self.acked.add(id_)
        self._acked_to[user, generation] = max(seq, self._acked_to.get((user, generation), 0))

    def receipt(self, name: str, peer: str, status: int, id_: bytes) -> None:
        """A device of the sender is told what became of a message."""
        said = self.said.get(id_)
        self.note(id_, f"{name} is told {Status(status).name}")
        if said is None or said.sender != name.partition("/")[0] or said.to != peer or said.of:
            raise Broken(f"{name} was told {Status(status).name} of what its user did not send to {peer}", id_)
        said.told.setdefault(status, set()).add(name)
        if not said.is_unsure and not self._is_true(status, id_, said):
            raise Broken(f"told {Status(status).name}, which is not so", id_)

    def _is_true(self, status: int, id_: bytes, said: Said) -> bool:
        if status == Status.DELIVERED:
            ended = said.told.keys() & {Status.FAILED, Status.EXPIRED}
            return id_ in self.acked and said.wants_receipt and not ended
        if status == Status.READ:
            return any(other.of == id_ and other.sender == said.to for other in self.said.values())
        if status == Status.EXPIRED:
            return said.wants_receipt and 0 < said.expires_ms <= self.now_ms() and Status.DELIVERED not in said.told
        return not self._is_seen(id_, said)

    def signalled(self, name: str, text: bytes) -> None:
        """Nobody hears what was not signalled to him."""
        if (name.partition("/")[0], text) not in self.signals:
            raise Broken(f"{name} heard a signal that nobody gave it: {text!r}")
