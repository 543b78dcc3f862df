"""AMQP 0-9-1 as it goes out on lean channels: publishes and acks made with `struct`, ready for one joined write. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct
from typing import Final

from brokerd.links.amqp_frames import (
    BASIC_ACK,
    BASIC_PUBLISH,
    BODY,
    CLASS_BASIC,
    FRAME_END,
    FRAME_HEAD_BYTES,
    FRAME_OVERHEAD_BYTES,
    HAS_DELIVERY_MODE,
    HAS_HEADERS,
    HAS_MESSAGE_ID,
    HEADER,
    MANDATORY,
    METHOD,
    PERSISTENT,
    SHORT_TEXT_BYTES_MAX,
    TAG_TEXT_BYTES,
)

_HEAD: Final = Struct(">BHI")
_U32: Final = Struct(">I")
_CONTENT_HEAD: Final = Struct(">HHQH")  # class, weight, body size, property flags
_I64: Final = Struct(">q")
_ACK: Final = Struct(">BHIIQBB")
_PLAIN_HEAD: Final = Struct(">BHIHHQHB")
_POST_HEAD: Final = Struct(f">BHIHHQHBB{TAG_TEXT_BYTES}sBBHI")  # a header frame and the head of its one body frame
_POST_HEAD_BYTES: Final = 32
assert _POST_HEAD.size == FRAME_OVERHEAD_BYTES + _POST_HEAD_BYTES + FRAME_HEAD_BYTES
_POST_FLAGS: Final = HAS_DELIVERY_MODE | HAS_MESSAGE_ID
_END: Final = bytes([FRAME_END])


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    """One whole frame."""
    return _HEAD.pack(kind, channel, len(payload)) + payload + _END


def publish_method(channel: int, queue: str) -> bytes:
    """The method frame of a mandatory publish to `queue` through the default exchange. The same for every batch."""
    name = queue.encode()
    if len(name) > SHORT_TEXT_BYTES_MAX:
        raise ValueError(f"queue name over {SHORT_TEXT_BYTES_MAX} bytes: {queue[:40]!r}…")
    # ticket u16 0, exchange "" (one zero byte), routing key, bits
    return frame(
        METHOD, channel, _U32.pack(BASIC_PUBLISH) + b"\x00\x00\x00" + bytes([len(name)]) + name + bytes([MANDATORY])
    )


def post_content(channel: int, tag: int, body: bytes, bytes_max: int, headers: bytes = b"") -> list[bytes]:
    """Header and body frames of a persistent message with its delivery tag as message id; frames of ≤ bytes_max."""
    size = len(body)
    if not headers and 0 < size <= bytes_max - FRAME_OVERHEAD_BYTES:
        head = _POST_HEAD.pack(
            HEADER, channel, _POST_HEAD_BYTES, CLASS_BASIC, 0, size, _POST_FLAGS,
            PERSISTENT, TAG_TEXT_BYTES, tag_text(tag), FRAME_END, BODY, channel, size,
        )  # fmt: skip
        return [head, body, _END]
    flags = _POST_FLAGS | HAS_HEADERS if headers else _POST_FLAGS
    properties = headers + bytes([PERSISTENT, TAG_TEXT_BYTES]) + tag_text(tag)
    head = frame(HEADER, channel, _CONTENT_HEAD.pack(CLASS_BASIC, 0, size, flags) + properties)
    return [head, *body_frames(channel, body, bytes_max)]


def plain_content(channel: int, body: bytes, bytes_max: int) -> list[bytes]:
    """Header and body frames of a message without properties."""
    head = _PLAIN_HEAD.pack(HEADER, channel, _CONTENT_HEAD.size, CLASS_BASIC, 0, len(body), 0, FRAME_END)
    return [head, *body_frames(channel, body, bytes_max)]


def body_frames(channel: int, body: bytes, bytes_max: int) -> list[bytes]:
    """The body frames of `body`, in pieces to be written one behind the other; none for an empty body."""
    step = bytes_max - FRAME_OVERHEAD_BYTES
    parts = []
    for at in range(0, len(body), step):
        chunk = body[at : at + step]
        parts += [_HEAD.pack(BODY, channel, len(chunk)), chunk, _END]
    return parts


def ack_frame(channel: int, tag: int, multiple: bool) -> bytes:
    """Acknowledge the delivery `tag`, or all up to it."""
    return _ACK.pack(METHOD, channel, 13, BASIC_ACK, tag, multiple, FRAME_END)


def tag_text(tag: int) -> bytes:
    """A delivery tag as the message id that a return is matched by."""
    return b"%016x" % tag


def header_table(fields: Mapping[str, str | int]) -> bytes:
    """An AMQP field table of texts and whole numbers, with its length."""
    parts = []
    for key, value in fields.items():
        name = key.encode()
        if isinstance(value, int):
            coded = b"l" + _I64.pack(value)
        else:
            text = value.encode()
            coded = b"S" + _U32.pack(len(text)) + text
        parts.append(bytes([len(name)]) + name + coded)
    table = b"".join(parts)
    return _U32.pack(len(table)) + table
