"""Bodies: strict msgpack in, messages out, and back. Spec: protocol/SPEC.md §4.1.

Bodies are msgpack arrays that only ever grow at their end: elements behind the known ones are ignored. A body that is
not what its type asks for is Malformed (which closes); a value that is well-formed but not allowed is the session's
business (which answers with a 3xx).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgpack

from protocol.frames import pack_frame
from protocol.messages import (
    Accepted,
    Ack,
    Bye,
    Credit,
    Deliver,
    Drained,
    Error,
    GoAway,
    Gone,
    Hello,
    Message,
    Ping,
    Pong,
    Read,
    ReadSync,
    Receipt,
    Send,
    Sent,
    Signal,
    Signalled,
    Welcome,
)
from protocol.tuples import new
from protocol.wire import (
    ACCEPTED_CIDS_MAX,
    BODY_BYTES_HARD_MAX,
    FEATURE_BYTES_MAX,
    FEATURES_MAX,
    GENERATION_BYTES,
    INFO_PAIRS_MAX,
    INFO_TEXT_BYTES_MAX,
    MESSAGE_ID_BYTES,
    RECEIPT_IDS_MAX,
    REF_MAX,
    SECRET_BYTES_MAX,
    Type,
)


class Malformed(Exception):
    """The body is not the msgpack that its type asks for. Text for people; never parsed."""


# --- strict msgpack (SPEC §4.1) ----------------------------------------------------------------------------------

_ARRAY_ITEMS_MAX: Final = 32
_DEPTH_MAX: Final = 8  # of arrays and maps in one another, the body's own array included
_LIST_ITEMS_MAX: Final = max(ACCEPTED_CIDS_MAX, RECEIPT_IDS_MAX)
_NO_TTL: Final = [None]
_unpackb = msgpack.unpackb
_UNPACK_FAULTS: Final = (ValueError, msgpack.UnpackException, RecursionError)  # UnicodeDecodeError is a ValueError


def _unique_pairs(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a key stands twice in a map")
    return out


def _unpack(body: bytes, arity: int, *, items_max: int = _ARRAY_ITEMS_MAX, pairs_max: int = 0) -> list[Any]:
    """The body as a list of at least `arity` elements. Sizes are checked before anything is allocated for them."""
    try:
        value = msgpack.unpackb(
            body,
            use_list=True,
            object_pairs_hook=_unique_pairs if pairs_max else None,
            max_array_len=items_max,
            max_map_len=pairs_max,
            max_ext_len=0,
            max_str_len=SECRET_BYTES_MAX,
            max_bin_len=BODY_BYTES_HARD_MAX,
        )
    except _UNPACK_FAULTS as fault:
        raise Malformed(f"not strict msgpack: {type(fault).__name__}: {str(fault)[:120]}") from None
    if type(value) is not list or len(value) < arity:
        raise Malformed(f"an array of at least {arity} elements is asked for")
    for unknown in value[arity:]:
        _check_unknown(unknown, depth=1)
    return value


def _check_unknown(value: object, depth: int) -> None:
    """What stands behind the known elements is ignored, but it is strict msgpack too. msgpack itself would let pass
    ext types of no bytes, bin keys, and 511 levels of nesting."""
    if type(value) is list or type(value) is dict:
        _need(depth < _DEPTH_MAX, f"nested deeper than {_DEPTH_MAX}")
        for item in value:
            _need(type(value) is list or type(item) is str, "a map's key is not a str")
            _check_unknown(item if type(value) is list else value[item], depth + 1)
    else:
        _need(type(value) not in (msgpack.ExtType, msgpack.Timestamp), "an ext type")


def _need(condition: bool, what: str) -> None:
    if not condition:
        raise Malformed(what)


def _int(value: object, name: str) -> int:
    if type(value) is int and 0 <= value <= REF_MAX:
        return value
    raise Malformed(f"{name} is not an integer of 0..2^53-1")


def _str(value: object, name: str, bytes_max: int = 256) -> str:
    if type(value) is str and len(value) <= bytes_max and (value.isascii() or len(value.encode()) <= bytes_max):
        return value
    raise Malformed(f"{name} is not a str of at most {bytes_max} bytes")


def _bin(value: object, name: str, size: int | None = None) -> bytes:
    if type(value) is bytes and (size is None or len(value) == size):
        return value
    raise Malformed(f"{name} is not a bin" + (f" of {size} bytes" if size is not None else ""))


def _ids(value: object) -> tuple[bytes, ...]:
    if type(value) is not list or not 1 <= len(value) <= RECEIPT_IDS_MAX:
        raise Malformed(f"ids are not an array of 1..{RECEIPT_IDS_MAX}")
    return tuple(_bin(item, "id", MESSAGE_ID_BYTES) for item in value)


def _features(value: object) -> tuple[str, ...]:
    if type(value) is not list or len(value) > FEATURES_MAX:
        raise Malformed(f"features are not an array of at most {FEATURES_MAX}")
    return tuple(_str(item, "feature", FEATURE_BYTES_MAX) for item in value)


# --- decoding ----------------------------------------------------------------------------------------------------


def _hello(flags: int, ref: int, body: bytes) -> Hello:
    f = _unpack(body, 9, pairs_max=INFO_PAIRS_MAX)
    info = f[8]
    _need(type(info) is dict, "info is not a map")
    for key, value in info.items():
        _str(key, "info key", INFO_TEXT_BYTES_MAX)
        _str(value, "info value", INFO_TEXT_BYTES_MAX)
    _need(type(f[6]) is bytes and len(f[6]) in (0, GENERATION_BYTES), "generation is not a bin of 0 or 8 bytes")
    return Hello(
        ref, flags, _int(f[0], "minor"), _features(f[1]), _str(f[2], "user"), _str(f[3], "device"),
        _int(f[4], "scheme"), _str(f[5], "secret", SECRET_BYTES_MAX), f[6], _int(f[7], "credit"), info,
    )  # fmt: skip


def _welcome(flags: int, ref: int, body: bytes) -> Welcome:
    f = _unpack(body, 12)
    return Welcome(
        ref, flags, _int(f[0], "minor"), _features(f[1]), _str(f[2], "node"), _str(f[3], "session"),
        _int(f[4], "time_ms"), _bin(f[5], "device_tag"), _int(f[6], "cursor"), _bin(f[7], "generation"),
        _int(f[8], "body_bytes_max"), _int(f[9], "keepalive_ms"), _int(f[10], "unaccepted_max"), _int(f[11], "credit"),
    )  # fmt: skip


def _send(flags: int, ref: int, body: bytes) -> Send:
    try:  # as _unpack does it, in line: of all that is decoded this is most
        to, payload, *more = _unpackb(
            body, max_array_len=_ARRAY_ITEMS_MAX, max_map_len=0, max_ext_len=0, max_str_len=SECRET_BYTES_MAX,
            max_bin_len=BODY_BYTES_HARD_MAX,
        )  # fmt: skip
    except (*_UNPACK_FAULTS, TypeError):  # not msgpack, or not two and more of anything
        to, payload, *more = _unpack(body, 2)
    if type(to) is not str or type(payload) is not bytes:
        raise Malformed("SEND is [to: str, payload: bin, ttl_s: int or nil]")
    if not more or more == _NO_TTL:
        return new(Send, (ref, flags, to, payload, None))
    ttl_s = _unpack(body, 2)[2]
    return new(Send, (ref, flags, to, payload, _int(ttl_s, "ttl_s") if ttl_s is not None else None))


def _accepted(flags: int, ref: int, body: bytes) -> Accepted:
    f = _unpack(body, 1, items_max=_LIST_ITEMS_MAX)
    _need(type(f[0]) is list, "cids are not an array")
    return Accepted(ref, flags, tuple(_int(cid, "cid") for cid in f[0]))


def _deliver(flags: int, ref: int, body: bytes) -> Deliver:
    f = _unpack(body, 4)
    return Deliver(
        ref, flags, _str(f[0], "sender"), _bin(f[1], "id"), _int(f[2], "time_ms"), _bin(f[3], "payload")
    )  # fmt: skip


def _sent(flags: int, ref: int, body: bytes) -> Sent:
    return Sent(*_deliver(flags, ref, body))


def _receipt(flags: int, ref: int, body: bytes) -> Receipt:
    f = _unpack(body, 5, items_max=_LIST_ITEMS_MAX)
    return Receipt(
        ref, flags, _str(f[0], "peer"), _int(f[1], "status"), _ids(f[2]), _int(f[3], "time_ms"), _int(f[4], "reason")
    )  # fmt: skip


def _read(flags: int, ref: int, body: bytes) -> Read:
    f = _unpack(body, 2, items_max=_LIST_ITEMS_MAX)
    return Read(ref, flags, _str(f[0], "to"), _ids(f[1]))


def _read_sync(flags: int, ref: int, body: bytes) -> ReadSync:
    f = _unpack(body, 3, items_max=_LIST_ITEMS_MAX)
    return ReadSync(ref, flags, _str(f[0], "peer"), _ids(f[1]), _int(f[2], "time_ms"))


def _signal(flags: int, ref: int, body: bytes) -> Signal:
    f = _unpack(body, 2)
    return Signal(ref, flags, _str(f[0], "to"), _bin(f[1], "payload"))


def _signalled(flags: int, ref: int, body: bytes) -> Signalled:
    f = _unpack(body, 2)
    return Signalled(ref, flags, _str(f[0], "sender"), _bin(f[1], "payload"))


def _gone(flags: int, ref: int, body: bytes) -> Gone:
    f = _unpack(body, 2)
    return Gone(ref, flags, _int(f[0], "last"), _int(f[1], "reason"))


def _pong(flags: int, ref: int, body: bytes) -> Pong:
    f = _unpack(body, 2)
    _need(type(f[0]) is bool, "known is not a bool")
    return Pong(ref, flags, f[0], _int(f[1], "time_ms"))


def _go_away(flags: int, ref: int, body: bytes) -> GoAway:
    f = _unpack(body, 3)
    return GoAway(ref, flags, _int(f[0], "reason"), _int(f[1], "after_ms_min"), _int(f[2], "after_ms_max"))


def _error(flags: int, ref: int, body: bytes) -> Error:
    f = _unpack(body, 5)
    return Error(
        ref, flags, _int(f[0], "code"), _int(f[1], "processed"), _int(f[2], "retry_after_ms"),
        _str(f[3], "detail", 1024), _int(f[4], "limit"),
    )  # fmt: skip


def _bare(kind: Callable[[int, int], Message]) -> Callable[[int, int, bytes], Message]:
    """Messages whose head says all. Their body is empty, or an array whose elements nobody knows yet."""

    def decode(flags: int, ref: int, body: bytes) -> Message:
        if body:
            _unpack(body, 0)
        return kind(ref, flags)

    return decode


DECODERS: Final[dict[int, Callable[[int, int, bytes], Message]]] = {
    Type.HELLO: _hello,
    Type.WELCOME: _welcome,
    Type.SEND: _send,
    Type.ACCEPTED: _accepted,
    Type.DELIVER: _deliver,
    Type.SENT: _sent,
    Type.RECEIPT: _receipt,
    Type.READ: _read,
    Type.READ_SYNC: _read_sync,
    Type.SIGNAL: _signal,
    Type.SIGNALLED: _signalled,
    Type.ACK: _bare(Ack),
    Type.CREDIT: _bare(Credit),
    Type.DRAINED: _bare(Drained),
    Type.GONE: _gone,
    Type.PING: _bare(Ping),
    Type.PONG: _pong,
    Type.GOAWAY: _go_away,
    Type.ERROR: _error,
    Type.BYE: _bare(Bye),
}


def decode(type_: int, flags: int, ref: int, body: bytes) -> Message:
    """The message of a frame whose type is known. Raises Malformed."""
    return DECODERS[type_](flags, ref, body)


# --- encoding ----------------------------------------------------------------------------------------------------

# A body from its fields, where no message is made for it (the hot path, and types that are only passed on). One packer for
# all: 0.15 µs against 0.8 for packb.
pack_fields: Final[Callable[[tuple[object, ...]], bytes]] = msgpack.Packer(autoreset=True).pack

TYPE_OF: Final[dict[type, Type]] = {
    Hello: Type.HELLO, Welcome: Type.WELCOME, Send: Type.SEND, Accepted: Type.ACCEPTED, Deliver: Type.DELIVER,
    Sent: Type.SENT, Receipt: Type.RECEIPT, Read: Type.READ, ReadSync: Type.READ_SYNC, Signal: Type.SIGNAL,
    Signalled: Type.SIGNALLED, Ack: Type.ACK, Credit: Type.CREDIT, Drained: Type.DRAINED, Gone: Type.GONE,
    Ping: Type.PING, Pong: Type.PONG, GoAway: Type.GOAWAY, Error: Type.ERROR, Bye: Type.BYE,
}  # fmt: skip


def encode_body(message: Message) -> bytes:
    """The body bytes alone: the fields behind ref and flags, as an array; no bytes for a message without fields."""
    fields = message[2:]
    return pack_fields(fields) if fields else b""


def encode(message: Message) -> bytes:
    """The whole frame."""
    return pack_frame(TYPE_OF[type(message)], message.flags, message.ref, encode_body(message))


assert set(DECODERS) == set(Type) == set(TYPE_OF.values())
