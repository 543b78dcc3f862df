"""What can be said of an entry without its payload: from whom, which message, since when. Payloads are never shown."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgpack

from protocol.errors import Code
from protocol.wire import MESSAGE_ID_BYTES, Status, Type


class Known(NamedTuple):
    """Of one entry of a sent_queue, or of one that should become one. Empty or 0 where it does not apply."""

    type: str  # DELIVER, SENT, RECEIPT, READ_SYNC, or gone
    bytes: int
    peer: str = ""  # DELIVER, RECEIPT: who it is from; SENT, READ_SYNC: who it went to
    id: str = ""  # in hex
    since_ms: int = 0
    says: str = ""


def known(type_: int, body: bytes) -> Known:
    """For bodies of any origin: what cannot be read is not told. Type 0 is a tombstone, its body the reason."""
    if type_ == 0:
        return Known("gone", 0, says=code_name(int(body)) if body.isdigit() else "")
    name = Type(type_).name if type_ in Type.__members__.values() else f"type {type_}"
    try:
        return _read(name, type_, body, msgpack.unpackb(body))
    except (ValueError, TypeError, IndexError, msgpack.UnpackException):
        return Known(name, len(body), says="a body that cannot be read")


def _read(name: str, type_: int, body: bytes, fields: list[Any]) -> Known:
    if type_ in (Type.DELIVER, Type.SENT):
        peer, id_, at_ms = fields[:3]
        return Known(name, len(body), str(peer), bytes(id_).hex(), int(at_ms))
    if type_ == Type.RECEIPT:
        peer, status, ids, at_ms, *rest = fields
        reason = f" ({code_name(rest[0])})" if rest and rest[0] else ""
        says = f"{Status(status).name}{reason} of {_count(ids)}"
        return Known(name, len(body), str(peer), _one(ids), int(at_ms), says)
    peer, ids, at_ms = fields[:3]
    return Known(name, len(body), str(peer), _one(ids), int(at_ms), f"READ of {_count(ids)}")


def _count(ids: list[bytes]) -> str:
    return "1 message" if len(ids) == 1 else f"{len(ids)} messages"


def _one(ids: list[bytes]) -> str:
    return bytes(ids[0]).hex() if len(ids) == 1 and len(ids[0]) == MESSAGE_ID_BYTES else ""


def code_name(code: int) -> str:
    """NO_SUCH_USER for 303; the number for one that is not in the registry."""
    return Code(code).name if code in Code.__members__.values() else str(code)


class Trouble(NamedTuple):
    """Why delivery to a device last stopped, when, and how often it did."""

    reason: str
    at_ms: int
    attempts: int


def trouble(text: str) -> Trouble:
    """QueueStatus.troubles: `reason at_ms attempts`."""
    words = [*text.split(), "0", "0", "0"][:3]
    reason, at_ms, attempts = (int(word) if word.isdigit() else 0 for word in words)
    return Trouble(code_name(reason), at_ms, attempts)
