"""Frames: bytes in, cut anywhere; whole frames out. Spec: protocol/SPEC.md §3."""

from __future__ import annotations

from typing import NamedTuple

from protocol.errors import Code
from protocol.tuples import new
from protocol.wire import BODY_BYTES_HARD_MAX, HEAD, HEAD_BYTES, REF_MAX


class Frame(NamedTuple):
    """One whole frame. `type` may be a number that nobody here knows."""

    type: int
    flags: int
    ref: int
    body: bytes


class Oversize(NamedTuple):
    """A frame over the limit: its head was read, its `length` body bytes are being skipped."""

    type: int
    flags: int
    ref: int
    length: int


class FrameFault(Exception):
    """The peer broke a framing rule; nothing after it can be read. The reader must not be fed again.

    `before` holds the frames that stood whole in front of the fault in the same read: they count as much as if they had
    come in a read of their own, so that what is processed does not hang on how TCP cut the stream.
    """

    def __init__(self, code: Code, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.before: list[Frame | Oversize] = []


def pack_frame(type_: int, flags: int, ref: int, body: bytes) -> bytes:
    """One frame as bytes."""
    return HEAD.pack(len(body), type_, flags, 0, ref) + body


class FrameReader:
    """Cuts a byte stream into frames.

    Holds at most one unfinished frame, so never more than `body_bytes_max` and what one read brought. A frame longer
    than `body_bytes_max` comes out as Oversize once, and its bytes are skipped without being kept.
    """

    __slots__ = ("_kept", "_skip", "_wanted", "body_bytes_max", "skippable")

    def __init__(self, body_bytes_max: int, *, skippable: bool) -> None:
        self.body_bytes_max = body_bytes_max
        self.skippable = skippable  # False before login: then an oversize frame is a FrameFault
        self._kept = bytearray()
        self._wanted = HEAD_BYTES  # nothing is parsed before so many bytes are there
        self._skip = 0

    def feed(self, data: bytes) -> list[Frame | Oversize]:
        """Take bytes as they came off the socket; give the frames that are now whole, in order.

        Raises FrameFault: FRAME_TOO_LARGE once the head is known, FRAME_MALFORMED when ref is over 2^53-1.
        """
        if self._kept:
            self._kept += data
            if len(self._kept) < self._wanted:
                return []
            data = bytes(self._kept)
            self._kept.clear()
        out: list[Frame | Oversize] = []
        try:
            self._cut(data, out)
        except FrameFault as fault:
            fault.before = out
            raise
        return out

    def _cut(self, data: bytes, out: list[Frame | Oversize]) -> None:
        at, end = 0, len(data)
        if self._skip:
            at = min(self._skip, end)
            self._skip -= at
        unpack, body_bytes_max, append = HEAD.unpack_from, self.body_bytes_max, out.append
        while (begin := at + HEAD_BYTES) <= end:
            length, type_, flags, _, ref = unpack(data, at)
            if ref > REF_MAX:
                raise FrameFault(Code.FRAME_MALFORMED, f"ref {ref} is over 2^53-1")
            if length > body_bytes_max:
                at = begin + self._begin_skip(length, end - begin)
                append(Oversize(type_, flags, ref, length))
                continue
            stop = begin + length
            if stop > end:
                break
            append(new(Frame, (type_, flags, ref, data[begin:stop])))
            at = stop
        self._keep(data, at, end)

    def _begin_skip(self, length: int, available: int) -> int:
        if not self.skippable or length > BODY_BYTES_HARD_MAX:
            limit = BODY_BYTES_HARD_MAX if self.skippable else self.body_bytes_max
            raise FrameFault(Code.FRAME_TOO_LARGE, f"a frame of {length} bytes; at most {limit} here")
        now = min(length, available)
        self._skip = length - now
        return now

    def _keep(self, data: bytes, at: int, end: int) -> None:
        self._wanted = HEAD_BYTES
        if at < end:
            self._kept += data[at:end]
            if end - at >= HEAD_BYTES:
                self._wanted = HEAD_BYTES + int(HEAD.unpack_from(data, at)[0])
