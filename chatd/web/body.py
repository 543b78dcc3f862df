"""What `POST /api/send` may carry: JSON or msgpack, checked strictly. Pure: bytes in, a SendRequest or a Refusal out.

Strict because a misspelt `ttl_s` that is silently ignored is a message that never expires: unknown and repeated keys,
wrong types and numbers out of range are refused, each naming its key.
"""

from __future__ import annotations

import json
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable
from typing import Any, Final

import msgpack

from chatd.ports import Refusal, SendRequest
from protocol.errors import Code
from protocol.names import NAME_ALLOWED, is_name
from protocol.wire import NAME_BYTES_MAX, TTL_S_MAX, Flag

KEYS_MAX: Final = 8
KEY_BYTES_MAX: Final = 128
HEAD_SLACK_BYTES: Final = 2 * NAME_BYTES_MAX  # what a frame's body holds beside the payload

_JSON_KEYS: Final = frozenset({"to", "text", "payload_b64", "ttl_s", "receipt", "read_receipt"})
_MSGPACK_KEYS: Final = frozenset({"to", "text", "payload", "ttl_s", "receipt", "read_receipt"})


def body_bytes_max_for(frame_body_bytes_max: int) -> int:
    """The longest HTTP body that may hold the longest payload: base64 adds a third, the rest is the other keys."""
    return frame_body_bytes_max * 4 // 3 + 4096


def read_json(body: bytes, sender: str, key: str, payload_bytes_max: int) -> SendRequest:
    """`{"to", "text" | "payload_b64", "ttl_s"?, "receipt"?, "read_receipt"?}`. Raises Refusal."""
    try:
        fields = json.loads(body.decode(), object_pairs_hook=_once, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as fault:
        raise _bad(f"not the JSON that is asked for: {_why(fault)}") from fault
    _check_keys(fields, _JSON_KEYS)
    payload = _payload(fields, "payload_b64", _from_base64)
    return _request(fields, payload, sender, key, payload_bytes_max)


def read_msgpack(body: bytes, sender: str, key: str, payload_bytes_max: int) -> SendRequest:
    """The same as a map; `payload` is bin. Raises Refusal."""
    try:
        fields = msgpack.unpackb(
            body, strict_map_key=True, object_pairs_hook=_once, max_map_len=KEYS_MAX, max_array_len=0, max_ext_len=0
        )
    except (ValueError, msgpack.UnpackException, RecursionError) as fault:
        raise _bad(f"not the msgpack that is asked for: {_why(fault)}") from fault
    _check_keys(fields, _MSGPACK_KEYS)
    payload = _payload(fields, "payload", _from_bin)
    return _request(fields, payload, sender, key, payload_bytes_max)


def idempotency_key(values: list[str]) -> str | None:
    """The value of the Idempotency-Key header, 1 to 128 printable ASCII; None when there is none. Raises Refusal."""
    if not values:
        return None
    key = values[0]
    if len(values) > 1 or not 1 <= len(key) <= KEY_BYTES_MAX or not (key.isascii() and key.isprintable()):
        raise _bad(f"Idempotency-Key: one value of 1 to {KEY_BYTES_MAX} printable ASCII characters")
    return key


def _request(fields: dict[str, Any], payload: bytes, sender: str, key: str, payload_bytes_max: int) -> SendRequest:
    to = fields.get("to")
    if type(to) is not str:
        raise _bad("to: a user name is needed")
    if not is_name(to):
        raise Refusal(Code.BAD_RECEIVER, f"to: {NAME_ALLOWED}")
    if len(payload) > payload_bytes_max:
        raise Refusal(Code.TOO_LARGE, f"a payload of {len(payload)} bytes, at most {payload_bytes_max}")
    ttl_s = fields.get("ttl_s")
    if ttl_s is not None and not (type(ttl_s) is int and 1 <= ttl_s <= TTL_S_MAX):
        raise _bad(f"ttl_s: a whole number of seconds, 1 to {TTL_S_MAX}")
    flags = _flag(fields, "receipt", Flag.RECEIPT) | _flag(fields, "read_receipt", Flag.READ_RECEIPT)
    return SendRequest(sender, to, payload, key, int(flags), ttl_s)


def _payload(fields: dict[str, Any], name: str, read: Callable[[Any], bytes]) -> bytes:
    if ("text" in fields) == (name in fields):
        raise _bad(f"either text or {name} is needed, and not both")
    if name in fields:
        return read(fields[name])
    text = fields["text"]
    if type(text) is not str:
        raise _bad("text: a string is needed")
    try:
        return text.encode()
    except UnicodeEncodeError as fault:
        raise _bad("text: half a surrogate pair is no character") from fault


def _from_base64(value: Any) -> bytes:
    try:
        return b64decode(value.encode("ascii"), validate=True)
    except (AttributeError, UnicodeEncodeError, Base64Error) as fault:
        raise _bad("payload_b64: base64 with its padding is needed") from fault


def _from_bin(value: Any) -> bytes:
    if type(value) is not bytes:
        raise _bad("payload: bin is needed")
    return value


def _flag(fields: dict[str, Any], name: str, flag: Flag) -> Flag:
    value = fields.get(name, False)
    if type(value) is not bool:
        raise _bad(f"{name}: true or false")
    return flag if value else Flag.NONE


def _once(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key stands twice")
    return fields


def _check_keys(fields: Any, allowed: frozenset[str]) -> None:
    if type(fields) is not dict:
        raise _bad("an object is needed")
    unknown = sorted(str(key)[:40] for key in fields if key not in allowed)
    if unknown:
        raise _bad(f"unknown key {unknown[0]!r}; known are {', '.join(sorted(allowed))}")


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is no JSON number")


def _why(fault: BaseException) -> str:
    return str(fault)[:120] or type(fault).__name__


def _bad(detail: str) -> Refusal:
    return Refusal(Code.BAD_REQUEST, detail)
