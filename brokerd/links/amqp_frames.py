"""AMQP 0-9-1 as it comes in: the wire's numbers, cutting frames, reading a lean channel. Pure: no socket, no clock.

aiormq reads every frame that sets things up. The few that come once a batch (deliver, ack, nack, return and their content)
are read here with `struct`: aiormq's tasks and objects cost 110 to 220 µs a message, this costs one or two.

    frame = kind u8 · channel u16 · size u32 · payload[size] · 0xCE
    a content = one method frame, one header frame (class 60, body size), body frames until the body size is reached
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Final, Protocol

METHOD: Final = 1
HEADER: Final = 2
BODY: Final = 3
FRAME_END: Final = 0xCE
FRAME_HEAD_BYTES: Final = 7
FRAME_OVERHEAD_BYTES: Final = FRAME_HEAD_BYTES + 1
FRAME_BYTES_MAX: Final = 16 * 1024 * 1024  # a longer one is a torn stream: RabbitMQ's own default is 128 KiB
HEARTBEAT_FRAME: Final = b"\x08\x00\x00\x00\x00\x00\x00\xce"
PROTOCOL_HEADER: Final = b"AMQP"  # a broker that wants another version answers with this instead of a frame

CONNECTION_BLOCKED: Final = 10 << 16 | 60
CONNECTION_UNBLOCKED: Final = 10 << 16 | 61
CHANNEL_CLOSE: Final = 20 << 16 | 40
BASIC_CANCEL: Final = 60 << 16 | 30
BASIC_PUBLISH: Final = 60 << 16 | 40
BASIC_RETURN: Final = 60 << 16 | 50
BASIC_DELIVER: Final = 60 << 16 | 60
BASIC_ACK: Final = 60 << 16 | 80
BASIC_NACK: Final = 60 << 16 | 120

CLASS_BASIC: Final = 60
MANDATORY: Final = 1
MULTIPLE: Final = 1
HAS_HEADERS: Final = 1 << 13
HAS_DELIVERY_MODE: Final = 1 << 12
HAS_MESSAGE_ID: Final = 1 << 7
PERSISTENT: Final = 2
TAG_TEXT_BYTES: Final = 16  # the delivery tag in hex, as the message id
SHORT_TEXT_BYTES_MAX: Final = 255

_HEAD: Final = Struct(">BHI")
_U16: Final = Struct(">H")
_U32: Final = Struct(">I")
_U64: Final = Struct(">Q")
_TAG: Final = Struct(">QB")  # delivery tag, bits
_CONTENT_HEAD: Final = Struct(">HHQH")  # class, weight, body size, property flags


class TornStream(Exception):
    """The bytes are not AMQP frames: the connection cannot be used any more."""


# --- reading -------------------------------------------------------------------------------------------------------


class ChannelSink:
    """Who listens on a lean channel. Every call comes in the order of the wire; what is not overridden is dropped."""

    def delivered(self, tag: int, redelivered: bool, body: bytes) -> None:
        """A whole message came."""

    def acked(self, tag: int, multiple: bool) -> None:
        """The broker took the publish `tag`, or all up to it."""

    def nacked(self, tag: int, multiple: bool) -> None:
        """The broker did not take the publish `tag`, or none up to it that is still open."""

    def returned(self, queue: str, message_id: bytes, reason: str) -> None:
        """A publish found no queue. Its ack still follows. `message_id` is empty when it had none."""

    def cancelled(self) -> None:
        """The broker ended the consumer (its queue is gone). The channel lives."""

    def closed(self, reason: str) -> None:
        """The broker closed the channel: write nothing on it any more."""


class FrameReader(Protocol):
    """Takes the frames of one channel."""

    def take(self, kind: int, data: bytes, at: int, stop: int) -> bool:
        """`data[at:stop]` is the payload. False: the frame is aiormq's to read."""
        ...


class ChannelReader:
    """Reads the hot methods of one lean channel and tells its sink. Holds at most one content that is not whole yet."""

    __slots__ = ("_chunks", "_left", "_method", "_method_end", "_sink")

    def __init__(self, sink: ChannelSink) -> None:
        self._sink = sink
        self._method = b""  # the payload of the deliver or return whose content is being read
        self._method_end: tuple[int, bool] | bytes = b""
        self._left = 0
        self._chunks: list[bytes] = []

    def take(self, kind: int, data: bytes, at: int, stop: int) -> bool:
        if kind == BODY:
            self._left -= stop - at
            if self._chunks or self._left > 0:
                self._chunks.append(data[at:stop])
                if self._left <= 0:
                    body = b"".join(self._chunks)
                    self._chunks = []
                    self._content_ends(body)
            else:
                self._content_ends(data[at:stop])
            return True
        if kind == HEADER:
            (self._left,) = _U64.unpack_from(data, at + 4)
            if self._method:
                self._method_end = data[at:stop]
            if not self._left:
                self._content_ends(b"")
            return True
        return kind == METHOD and self._take_method(data, at, stop)

    def _take_method(self, data: bytes, at: int, stop: int) -> bool:
        (method,) = _U32.unpack_from(data, at)
        if method == BASIC_DELIVER:
            tag, redelivered = _TAG.unpack_from(data, at + 5 + data[at + 4])  # behind the consumer tag
            self._method_end = (tag, redelivered != 0)
        elif method == BASIC_ACK:
            tag, bits = _TAG.unpack_from(data, at + 4)
            self._sink.acked(tag, bits & MULTIPLE != 0)
        elif method == BASIC_NACK:
            tag, bits = _TAG.unpack_from(data, at + 4)
            self._sink.nacked(tag, bits & MULTIPLE != 0)
        elif method == BASIC_RETURN:
            self._method = data[at:stop]
        else:
            if method == CHANNEL_CLOSE:
                self._sink.closed(_reply(data[at:stop])[0])
            elif method == BASIC_CANCEL:
                self._sink.cancelled()
            return False
        return True

    def _content_ends(self, body: bytes) -> None:
        kept = self._method_end
        if isinstance(kept, tuple):
            self._sink.delivered(kept[0], kept[1], body)
        elif self._method:
            reason, behind = _reply(self._method)
            _, behind = _short_text(self._method, behind)  # the exchange
            queue, _ = _short_text(self._method, behind)
            self._method = b""
            self._sink.returned(queue.decode(), message_id_of(kept), reason)


class ControlReader:
    """Reads channel 0 along with aiormq: whether the broker takes no publishes for now, and for which alarm ("" = none)."""

    __slots__ = ("_on_blocked",)

    def __init__(self, on_blocked: Callable[[str], None]) -> None:
        self._on_blocked = on_blocked

    def take(self, kind: int, data: bytes, at: int, stop: int) -> bool:
        if kind == METHOD and stop - at >= 4:
            (method,) = _U32.unpack_from(data, at)
            if method == CONNECTION_BLOCKED:
                words = data[at + 5 : min(stop, at + 5 + data[at + 4])] if stop - at > 4 else b""
                self._on_blocked(words.decode(errors="replace") or "an alarm")
            elif method == CONNECTION_UNBLOCKED:
                self._on_blocked("")
        return False


class FrameCutter:
    """Cuts what came off the socket into frames and shows each to the reader of its channel."""

    __slots__ = ("_is_raw", "_rest", "lean_frames", "readers")

    def __init__(self) -> None:
        self.readers: dict[int, FrameReader] = {}
        self.lean_frames = 0  # frames that a reader took
        self._rest = b""
        self._is_raw = False

    def feed(self, data: bytes) -> bytes:
        """Take bytes, cut anywhere; give the whole frames that no reader took. Holds less than one frame.

        Raises TornStream when a frame does not end where its size says, or is over FRAME_BYTES_MAX.
        """
        if self._rest:
            data = self._rest + data
        if self._is_raw or data.startswith(PROTOCOL_HEADER):
            self._is_raw, self._rest = True, b""  # no AMQP 0-9-1 follows; aiormq says which error that is
            return data
        at, end, readers, passed = 0, len(data), self.readers, []
        while end - at >= FRAME_OVERHEAD_BYTES:
            kind, channel, size = _HEAD.unpack_from(data, at)
            stop = at + FRAME_HEAD_BYTES + size
            if stop >= end:
                if size > FRAME_BYTES_MAX:
                    raise TornStream(f"a frame of {size} bytes")
                break
            if data[stop] != FRAME_END:
                raise TornStream(f"a frame that ends with {data[stop]:#x}")
            reader = readers.get(channel)
            if reader is not None and reader.take(kind, data, at + FRAME_HEAD_BYTES, stop):
                self.lean_frames += 1
            else:
                passed.append(data[at : stop + 1])
            at = stop + 1
        self._rest = data[at:]
        return b"".join(passed)


def message_id_of(header: bytes) -> bytes:
    """The message id in a content header that this module made; empty when there is none."""
    flags = _CONTENT_HEAD.unpack_from(header)[3]
    if not flags & HAS_MESSAGE_ID or flags & ~(HAS_HEADERS | HAS_DELIVERY_MODE | HAS_MESSAGE_ID):
        return b""
    at = _CONTENT_HEAD.size
    if flags & HAS_HEADERS:
        at += 4 + int(_U32.unpack_from(header, at)[0])
    if flags & HAS_DELIVERY_MODE:
        at += 1
    return _short_text(header, at)[0]


def _reply(payload: bytes) -> tuple[str, int]:
    """The reply code and text behind the method number, as one reason; and where they end."""
    text, behind = _short_text(payload, 6)
    return f"{_U16.unpack_from(payload, 4)[0]} {text.decode(errors='replace')}", behind


def _short_text(data: bytes, at: int) -> tuple[bytes, int]:
    behind = at + 1 + data[at]
    return data[at + 1 : behind], behind
