"""What was said, accepted, seen and told, and the promises that this must keep. Broken ones raise at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from protocol.wire import Type

PROMPT_S_MAX = 2.0  # in a gentle world, from ACCEPTED (or WELCOME) to the screen


class Broken(Exception):
    """A promise does not hold; `text` names the message whose history explains it."""

    def __init__(self, why: str, text: bytes = b"") -> None:
        super().__init__(why)
        self.why, self.text = why, text


@dataclass
class Told:
    """One message, from its sender's first try to its end."""

    sender: str
    tag: bytes
    to: str
    wants_receipt: bool
    ids: list[bytes] = field(default_factory=list)  # one for each cid it went out under
    accepted: bytes = b""
    accepted_s: float = 0.0
    receipts: set[str] = field(default_factory=set)  # devices of the sender that were told


class Ledger:
    """All messages of one world, by their text, which is unique."""

    def __init__(self, clock_s: Any) -> None:
        self._clock_s = clock_s
        self.messages: dict[bytes, Told] = {}
        self.by_id: dict[bytes, bytes] = {}
        self.refused: set[bytes] = set()
        self.acked: set[bytes] = set()
        self.seen: dict[str, dict[str, dict[bytes, int]]] = {}  # user → device → id → seq
        self.queues: dict[str, dict[int, tuple[int, bytes]]] = {}  # user → seq → (type, id), as first seen
        self.told: dict[str, dict[str, set[bytes]]] = {}  # user → device → ids with a DELIVERED receipt
        self.copies: dict[str, dict[str, set[bytes]]] = {}  # user → device → ids in SENT
        self._history: list[tuple[float, bytes, str]] = []

    def note(self, id_or_text: bytes, what: str) -> None:
        """One line of a message's history; b"": of the world's."""
        self._history.append((self._clock_s(), self.by_id.get(id_or_text, id_or_text), what))

    def history(self, text: bytes) -> str:
        """What happened to a message, and round it."""
        of_it = [at_s for at_s, whose, _ in self._history if whose == text]
        begin_s, end_s = (min(of_it), max(of_it)) if of_it else (0.0, 1e9)
        return "\n".join(
            f"  {at_s - 1000:9.4f}  {what}"
            for at_s, whose, what in self._history
            if whose == text or (not whose and begin_s - 1 <= at_s <= end_s + 20)
        )

    def enrol(self, user: str, device: str) -> None:
        for book in (self.seen, self.told, self.copies):
            book.setdefault(user, {})[device] = {} if book is self.seen else set()  # type: ignore[assignment]
        self.queues.setdefault(user, {})

    # --- the sender's side

    def sent(self, text: bytes, id_: bytes, who: str) -> None:
        self.by_id[id_] = text
        self.messages[text].ids.append(id_)
        self.note(text, f"{who} sends it to {self.messages[text].to}, id …{id_[-7:].hex()}")

    def accepted(self, id_: bytes) -> None:
        text = self.by_id[id_]
        message = self.messages[text]
        self.note(text, "ACCEPTED")
        if id_ in self.refused:
            raise Broken("accepted, and refused before", text)
        if message.accepted not in (b"", id_):
            raise Broken("accepted under two cids", text)
        if not message.accepted:
            message.accepted, message.accepted_s = id_, self._clock_s()

    def refuse(self, id_: bytes) -> None:
        """Refused for good: it goes out under a new cid."""
        text = self.by_id[id_]
        self.note(text, "refused")
        if self.messages[text].accepted == id_:
            raise Broken("refused, and accepted before", text)
        self.refused.add(id_)

    # --- the receiver's side

    def at(self, user: str, device: str, seq: int, type_: int, id_: bytes) -> None:
        """Every device sees the same at the same seq."""
        first = self.queues[user].setdefault(seq, (type_, id_))
        if first != (type_, id_):
            raise Broken(
                f"devices of {user} disagree about seq {seq}: {first} and {(type_, id_)}", self.by_id.get(id_, b"")
            )

    def delivered(self, user: str, device: str, seq: int, id_: bytes, since_s: float | None) -> None:
        """`since_s`: when its session began, in a gentle world; else None."""
        self.note(id_, f"seen by {user}/{device} as {seq}")
        text = self.by_id.get(id_)
        if text is None or self.messages[text].to != user:
            raise Broken(f"{user} saw what nobody sent it", text or b"")
        if id_ in self.refused:
            raise Broken("seen, though its sender was told that it was refused", text)
        if id_ in self.seen[user][device]:
            raise Broken(f"{user}/{device} saw it twice", text)
        self.seen[user][device][id_] = seq
        message = self.messages[text]
        if since_s is not None and message.accepted:
            late_s = self._clock_s() - max(since_s, message.accepted_s)
            if late_s > PROMPT_S_MAX:
                raise Broken(f"{user}/{device} saw it {late_s:.1f} s late, though nothing was lost", text)

    def acknowledged(self, user: str, position: int) -> None:
        """A device of the user is about to say that it processed all up to `position`."""
        for seq, (type_, id_) in self.queues[user].items():
            if type_ == Type.DELIVER and seq <= position:
                self.acked.add(id_)

    def receipt(self, user: str, device: str, id_: bytes) -> None:
        self.note(id_, f"{user}/{device} is told DELIVERED")
        if id_ not in self.acked:
            raise Broken("told DELIVERED before any device had acknowledged it", self.by_id.get(id_, b""))
        self.told[user][device].add(id_)

    # --- the end

    def unfinished(self) -> tuple[str, bytes] | None:
        """What is still owed, if anything."""
        for text, message in self.messages.items():
            id_ = message.accepted
            if not id_:
                return "never answered", text
            for device, seen in self.seen[message.to].items():
                if id_ not in seen:
                    return f"accepted, and not seen by {message.to}/{device}", text
        return None

    def untold(self) -> tuple[str, bytes] | None:
        """A receipt that was asked for and is missing, or a copy."""
        for text, message in self.messages.items():
            for device, told in self.told[message.sender].items():
                if message.wants_receipt and message.accepted not in told:
                    return f"{message.sender}/{device} was not told DELIVERED", text
        return None

    def check_order(self) -> None:
        """What one device sent to one user is seen in the order of its cids."""
        for user, devices in self.seen.items():
            for device, seen in devices.items():
                last: dict[bytes, bytes] = {}
                for id_ in sorted(seen, key=lambda it: seen[it]):
                    if id_ < last.get(id_[:9], b""):
                        raise Broken(f"{user}/{device} saw it behind a later one", self.by_id[id_])
                    last[id_[:9]] = id_
