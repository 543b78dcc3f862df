"""What a WebSocket client may send, kept over picows, which parses frames and checks little else. Pure.

picows lets through reserved bits, text, a continuation without a start, any number of fragments, empty ones too, and
pings without end. Here frames become whole binary messages, or a Breach with its close code (RFC 6455 §7.4.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final


class Opcode(IntEnum):
    """RFC 6455 §5.2."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


class CloseCode(IntEnum):
    """The close codes that we send, beside 4000 + a code of our own registry."""

    DONE = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    POLICY = 1008
    TOO_BIG = 1009


CLOSE_CODE_BASE: Final = 4000  # + protocol.errors.Code
CLOSE_REASON_BYTES_MAX: Final = 123  # a control frame holds 125, the code takes 2


@dataclass(frozen=True, slots=True)
class MessageLimits:
    """What one message may be made of, and how much may come that is no message."""

    message_bytes_max: int
    greeting_bytes_max: int = 16 * 1024  # all that comes before the session's first word: nobody has logged in yet
    fragments_max: int = 64
    idle_frames_max: int = 100  # pings, pongs and empty messages …
    idle_window_s: float = 10.0  # … in so many seconds


class Breach(Exception):
    """The client broke a rule: close with this code."""

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


def is_close_code(code: int) -> bool:
    """Whether a peer may put this code into a close frame."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def close_reason(detail: str) -> bytes:
    """A detail, cut at a character so that it fits into a close frame."""
    return detail.encode("utf-8", "replace")[:CLOSE_REASON_BYTES_MAX].decode("utf-8", "ignore").encode()


class MessageGuard:
    """Puts the frames of one connection together. Holds at most `message_bytes_max`."""

    __slots__ = ("_fragments", "_idle_frames", "_limits", "_parts", "_size_bytes", "_window_ends_s")

    def __init__(self, limits: MessageLimits) -> None:
        self._limits = limits
        self._parts: list[bytes] = []
        self._fragments = 0  # of the message that is under way; 0 = none is
        self._size_bytes = 0
        self._idle_frames = 0
        self._window_ends_s = 0.0

    def take_data(self, opcode: int, is_final: bool, payload: bytes, now_s: float) -> bytes:
        """A BINARY, TEXT or CONTINUATION frame; gives the message that it completes, else b"". Raises Breach."""
        if opcode == Opcode.TEXT:
            raise Breach(CloseCode.UNSUPPORTED_DATA, "binary messages only")
        if (opcode == Opcode.CONTINUATION) != (self._fragments > 0):
            raise Breach(CloseCode.PROTOCOL_ERROR, "a message is cut into BINARY and then CONTINUATION")
        if is_final and not self._fragments:
            if not payload:
                self.take_idle(now_s)
            elif len(payload) > self._limits.message_bytes_max:
                raise self._too_big()
            return payload
        return self._take_fragment(is_final, payload, now_s)

    def take_idle(self, now_s: float) -> None:
        """A frame that brings nothing (PING, PONG, an empty message). Raises Breach when they come too fast."""
        if now_s >= self._window_ends_s:
            self._window_ends_s = now_s + self._limits.idle_window_s
            self._idle_frames = 0
        self._idle_frames += 1
        if self._idle_frames > self._limits.idle_frames_max:
            raise Breach(CloseCode.POLICY, "too many frames that bring nothing")

    def _take_fragment(self, is_final: bool, payload: bytes, now_s: float) -> bytes:
        self._fragments += 1
        self._size_bytes += len(payload)
        if self._size_bytes > self._limits.message_bytes_max:
            raise self._too_big()
        if self._fragments > self._limits.fragments_max:
            raise Breach(CloseCode.TOO_BIG, f"over {self._limits.fragments_max} fragments")
        self._parts.append(payload)
        if not is_final:
            return b""
        message = b"".join(self._parts)
        self._parts.clear()
        self._fragments = self._size_bytes = 0
        if not message:
            self.take_idle(now_s)
        return message

    def _too_big(self) -> Breach:
        return Breach(CloseCode.TOO_BIG, f"a message has at most {self._limits.message_bytes_max} bytes")
