"""One golden vector, and how its values stand in JSON. Spec: protocol/SPEC.md §15.

What a vector expects is written by hand in the case files, never computed by the code that it judges.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import msgpack

from protocol.codec import TYPE_OF, encode
from protocol.errors import ERRORS, Code
from protocol.messages import Message
from protocol.wire import HEAD, Flag, Processed

Json = dict[str, Any]

OURS: Final = bytes.fromhex("4348544401000000")  # the preface of version 1.0


@dataclass(frozen=True)
class Case:
    """`side` reads `data` while it is in `state`, and does what `events`, `answers` and `after` say."""

    name: str
    spec: str
    side: str
    state: str
    data: bytes
    meaning: str
    events: list[Json]
    answers: list[Json] = field(default_factory=list)
    after: str = "open"
    limits: Json = field(default_factory=dict)

    def to_json(self) -> Json:
        """The vector as it stands in the file; `limits` only where it differs from the defaults of §8."""
        expect = {"events": self.events, "answers": self.answers, "state": self.after}
        out: Json = {"name": self.name, "spec": self.spec, "side": self.side, "state": self.state}
        if self.limits:
            out["limits"] = self.limits
        return {**out, "hex": self.data.hex(), "meaning": self.meaning, "expect": expect}


def value_to_json(value: object) -> Any:
    """bytes become {"bin": hex}; tuples and lists become lists; the rest is JSON already."""
    if isinstance(value, bytes):
        return {"bin": value.hex()}
    if isinstance(value, (tuple, list)):
        return [value_to_json(item) for item in value]
    return value


def message_to_json(message: Message) -> Json:
    """A message as an event of a vector."""
    values = message._asdict()
    fields = {name: value_to_json(value) for name, value in values.items() if name not in ("ref", "flags")}
    return {
        "message": TYPE_OF[type(message)].name, "flags": int(message.flags), "ref": message.ref, "fields": fields,
    }  # fmt: skip


def raw(
    type_: int, body: bytes = b"", *, flags: int = 0, ref: int = 0, zero: int = 0, claim: int | None = None
) -> bytes:
    """A frame made by hand. `claim` is the length that the head says, if it lies."""
    return HEAD.pack(len(body) if claim is None else claim, type_, flags, zero, ref) + body


def packed(*elements: object) -> bytes:
    """A msgpack array."""
    return bytes(msgpack.packb(elements))


def good(name: str, spec: str, side: str, state: str, message: Message, meaning: str, after: str = "open") -> Case:
    """A message that is read as it is."""
    return Case(name, spec, side, state, encode(message), meaning, [message_to_json(message)], after=after)


def closes(
    name: str, spec: str, state: str, data: bytes, code: Code, meaning: str, *, side: str = "server",
    before: list[Json] | None = None, limits: Json | None = None,
) -> Case:  # fmt: skip
    """Bytes that end the connection with `code`; a server says so in an ERROR with ref 0."""
    assert ERRORS[code].closes
    answers = [error(0, code)] if side == "server" else []
    events = [*(before or []), {"closing": int(code)}]
    return Case(name, spec, side, state, data, meaning, events, answers, "closed", limits or {})


def error(ref: int, code: Code, limit: int | None = None) -> Json:
    """An ERROR that a server answers with. Its text and its retry_after_ms are not part of the vectors."""
    out: Json = {"message": "ERROR", "ref": ref, "code": int(code), "processed": int(Processed.NO)}
    return out if limit is None else {**out, "limit": limit}


def refused(ref: int, code: Code) -> Json:
    """The event of a frame that was refused and answered while the connection goes on."""
    return {"refused": int(code), "ref": ref}


IGNORE: Final = int(Flag.IGNORE)
