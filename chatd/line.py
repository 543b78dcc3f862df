"""A line: one transport, its session, and what waits to be written to it. The thin shell round the pure session."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from brokerd.crash_points import crash_point
from brokerd.ports import Seat
from chatd.ports import Wire
from protocol.errors import Code
from protocol.wire import Processed

if TYPE_CHECKING:
    from chatd.session import Session
    from chatd.switchboard import Switchboard

_frame_read = crash_point("chatd.frame_read")


def login_ms_of(seat: Seat) -> int:
    """When the session of a seat logged in, by its node's clock. A seat of an older chatd does not say: it counts as newer."""
    parts = seat.session.split(".")
    return int(parts[1]) if len(parts) == 3 and parts[1].isascii() and parts[1].isdigit() else sys.maxsize


class Line:
    """Implements chatd.ports.Endpoint for the transport and Poster for the postbox."""

    __slots__ = (
        "_log", "board", "claim", "closing", "is_lost", "login_ms", "paused_s", "peer", "proof", "seat", "session", "wire",
    )  # fmt: skip

    def __init__(self, wire: Wire, peer: str, session: Session, board: Switchboard, log: Any) -> None:
        self.wire = wire
        self.peer = peer
        self.session = session
        self.board = board
        self._log = log
        self.proof = ""  # see chatd.ports.Identity
        self.seat: Seat | None = None  # our register entry, once claimed
        self.login_ms = 0  # when it logged in: of two sessions of a device the one with the later login is the newer
        self.claim = 0  # how often this session claimed: makes each seat unlike the one before
        self.closing: tuple[Code | None, str] | None = None  # set once: the first reason counts
        self.is_lost = False
        self.paused_s: float | None = None  # since when the peer reads too slowly

    @property
    def log(self) -> Any:
        """With who this is. Bound when something is said: most connections say little."""
        session = self.session
        who = {"user": session.user, "device": session.device} if session.user else {}
        return self._log.bind(session=session.id, peer=self.peer, **who)

    def next_seat(self, node: str) -> Seat:
        """The register entry of the next claim."""
        self.claim += 1
        return Seat(self.session.device, node, f"{self.session.id}.{self.login_ms}.{self.claim}")

    def own_seats(self) -> list[Seat]:
        """What may stand in the register for this session: the seat that we know of, and those whose claims were not
        answered and perhaps carried out."""
        if self.seat is None:
            return []
        device, node, session = self.seat
        start, _, known = session.rpartition(".")
        return [Seat(device, node, f"{start}.{claim}") for claim in range(int(known), self.claim + 1)]

    def is_gone(self) -> bool:
        """The transport is lost or the session is over: nobody is there to be answered."""
        return self.is_lost or self.session.conn.is_over

    # --- called by the transport

    def receive(self, data: bytes) -> None:
        """Bytes came in."""
        _frame_read()
        board = self.board
        board.counts.bytes_in += len(data)
        self.session.receive(data, board.now_s(), board.now_ms())
        board.attend(self)

    def pause_writing(self) -> None:
        """The peer reads slowly: no live deliveries, and no more of its requests, whose answers would pile up."""
        self.paused_s = self.board.now_s()
        self.session.set_writable(False)
        self.wire.pause_reading()
        self.board.attend(self)

    def resume_writing(self) -> None:
        """It caught up."""
        self.paused_s = None
        self.session.set_writable(True)
        if not self.session.is_holding:
            self.wire.resume_reading()
        self.board.attend(self)

    def lost(self, reason: str) -> None:
        """The transport is gone."""
        self.is_lost = True
        self.board.lost(self, reason)

    # --- called by the postbox

    def accepted(self, cids: Sequence[int]) -> None:
        """These are durable."""
        self.board.counts.accepted += len(cids)
        self.session.accepted(cids)
        self.board.attend(self)

    def refused(self, cid: int, code: Code, processed: Processed, retry_after_ms: int) -> None:
        """This was not taken."""
        self.board.counts.refused += 1
        self.board.tracer.refused(self, cid, code)
        self.session.refused(cid, code, processed, retry_after_ms, self.board.now_s())
        self.board.attend(self)
