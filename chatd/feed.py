"""The feed decides what one session is delivered, and when. Pure.

A feed is *live* (deliveries are written as they are handed over) or *catching up* (it reads the sent_queue, as far as
credit and the peer's reading allow). One rule repairs lost hand-overs, slow readers, resume and login with a backlog: a
push is written only when its first seq is the expected one; a later one means that the gap must be read; an earlier one
is dropped. Spec: protocol/SPEC.md §10.
"""

from __future__ import annotations

from typing import Final

from brokerd.ports import Page
from chatd.effects import Effect, ReadQueue
from protocol.codec import pack_fields
from protocol.connection import ServerConnection
from protocol.errors import Code
from protocol.messages import Drained, Gone
from protocol.wire import HEAD, Type

PAGE_ENTRIES_MAX: Final = 512  # entries of one read of the backlog
PAGE_BYTES_MAX: Final = 256 * 1024  # about; one entry may be larger
_GONE: Final = int(Type.GONE)


class Feed:
    """Positions of one device: acked < expected <= granted + 1. Appends to the session's `effects`."""

    __slots__ = (
        "_conn", "_credit", "_drain_to", "_effects", "_granted", "_head_at_read", "_head_seen", "_unsure",
        "acked", "expected", "is_live", "is_reading", "is_writable",
    )  # fmt: skip

    def __init__(self, conn: ServerConnection, effects: list[Effect]) -> None:
        self._conn = conn
        self._effects = effects
        self.expected = 1  # the next seq to be written
        self.acked = 0
        self.is_live = False
        self.is_reading = False  # a read is on its way
        self.is_writable = True  # the transport's buffer is under its mark
        self._credit = 0
        self._granted = 0  # deliver up to this seq
        self._head_seen = 0  # the newest seq that anybody told us of
        self._head_at_read = 0
        self._unsure = False  # hand-overs may have been lost: read, even if nothing is known to be missing
        self._drain_to: int | None = None  # DRAINED is due once so far was written

    def open(self, acked: int, head: int, credit: int) -> None:
        """The session is open behind seq `acked`; begin with what waits."""
        self.acked = acked
        self.expected = acked + 1
        self._credit = credit
        self._granted = acked + credit
        self._head_seen = max(self._head_seen, head)
        self._drain_to = head
        self._catch_up()

    @property
    def unread(self) -> int:
        """How many entries this device has not acknowledged, as far as anybody told us."""
        return self._head_seen - self.acked

    # --- from the peer

    def ack(self, seq: int) -> bool:
        """The device processed all up to seq. Whether that is news; the caller checked seq < expected."""
        if seq <= self.acked:
            return False
        self.acked = seq
        self.grant(seq + self._credit)
        return True

    def grant(self, seq: int) -> None:
        """Deliver up to seq; never taken back."""
        if seq > self._granted:
            self._granted = seq
            if not self.is_live:
                self._catch_up()

    # --- from the back room

    def push(self, first: int, last: int, frames: bytes) -> None:
        """Frames of seqs first..last, handed over by brokerd."""
        if last > self._head_seen:
            self._head_seen = last
        if not self.is_live or last < self.expected:
            return
        if first == self.expected and last <= self._granted:
            self._conn.send_frames(frames)
            self.expected = last + 1
        else:
            self._catch_up()

    def reaches(self, head: int) -> None:
        """The queue reaches up to `head`: if this session stands before it, it reads the gap."""
        if head > self._head_seen:
            self._head_seen = head
        if self.expected <= self._head_seen:
            self._catch_up()

    def doubt(self) -> None:
        """Hand-overs may have been lost: look whether something stands behind our position."""
        self._unsure = True
        self._catch_up()

    def page(self, page: Page) -> bool:
        """A part of the queue, as asked for. False when the store went back behind what it had said: it was made anew."""
        self.is_reading = False
        if page.head < self._head_at_read:
            return False
        self._head_seen = max(self._head_seen, page.head)
        if page.first > self.expected:
            self._conn.send(Gone(self.expected, 0, page.first - 1, int(Code.REMOVED)))
            self.expected = page.first
        self._write(page)
        self._catch_up()
        return True

    def _write(self, page: Page) -> None:
        seq = page.first
        chunks: list[bytes] = []
        for type_, flags, _, body in page.entries:
            if seq == self.expected:
                if type_ == 0:
                    type_, flags, body = _GONE, 0, pack_fields((seq, int(body or b"0")))
                chunks.append(HEAD.pack(len(body), type_, flags, 0, seq))
                chunks.append(body)
                self.expected += 1
            seq += 1
        if chunks:
            self._conn.send_frames(b"".join(chunks))

    def _catch_up(self) -> None:
        """Be live if nothing is missing; else read on, as far as credit and the peer's reading allow."""
        self.is_live = False
        self._tell_drained()  # whatever newer ones wait for: what waited at login is through
        if self.is_reading:
            return
        if self.expected > self._head_seen and not self._unsure:
            self.is_live = self.is_writable
        elif self.is_writable and self.expected <= self._granted:
            self.is_reading = True
            self._head_at_read = self._head_seen
            self._unsure = False  # a doubt that comes while this read is on its way asks for one more
            self._effects.append(ReadQueue(self.expected - 1, min(PAGE_ENTRIES_MAX, self._granted - self.expected + 1)))

    def _tell_drained(self) -> None:
        if self._drain_to is not None and self.expected > self._drain_to:
            self._conn.send(Drained(self._drain_to, 0))
            self._drain_to = None

    # --- the transport

    def set_writable(self, writable: bool) -> None:
        """The transport's buffer passed its high or low mark. A slow reader stops being live and pulls when it can."""
        self.is_writable = writable
        if writable:
            self._catch_up()
        else:
            self.is_live = False

    def retry(self) -> None:
        """A read failed (the store was down): read again."""
        self.is_reading = False
        self._unsure = True
        self._catch_up()

    @property
    def is_behind(self) -> bool:
        """Something was written and not acknowledged, or waits."""
        return self.acked < self.expected - 1 or self.expected <= self._head_seen
