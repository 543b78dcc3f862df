"""The postroom: takes the parcels that brokerd hands to this node and gives them to the sessions they are for."""

from __future__ import annotations

from typing import Any

from brokerd.crash_points import WRITTEN_TURNS, crash_point
from brokerd.ports import LinkDown
from chatd.switchboard import Switchboard
from protocol.envelope import (
    DevicesParcel,
    EvictParcel,
    FramesParcel,
    FullParcel,
    HeadParcel,
    SignalParcel,
    StampParcel,
    TraceParcel,
    Undecodable,
    unpack_parcels,
)
from protocol.errors import Code

_written = crash_point("chatd.written", turns=WRITTEN_TURNS)


class Postroom:
    """One for a node."""

    def __init__(self, board: Switchboard, log: Any) -> None:
        self._board = board
        self._log = log
        self.parcels = 0
        self.not_here = 0

    def take(self, batch: bytes) -> None:
        """One batch, as it came. What cannot be read is dropped and logged: its seqs show the gap."""
        try:
            _, parcels = unpack_parcels(batch)
        except Undecodable as fault:
            self._log.error("parcels_undecodable", bytes=len(batch), reason=str(fault))
            return
        self.parcels += len(parcels)
        roster, attend, counts = self._board.roster, self._board.attend, self._board.counts
        if self._board.is_doubtful:  # our users may have gone elsewhere: only who was replaced is told now
            parcels = [parcel for parcel in parcels if type(parcel) is EvictParcel]
        strangers: list[str] = []
        for parcel in parcels:
            if isinstance(parcel, StampParcel):
                self._board.stamp_back(parcel.shard, parcel.stamp)
                continue
            lines = roster.of(parcel.user)
            if not lines and not isinstance(parcel, EvictParcel):
                strangers.append(parcel.user)
            for line in tuple(lines):
                if type(parcel) is FramesParcel:
                    feed = line.session.feed
                    before = feed.expected
                    counts.gaps += feed.is_live and parcel.first > before  # an earlier hand-over was lost
                    line.session.push(parcel.first, parcel.last, parcel.frames)
                    counts.delivered += feed.expected - before
                else:
                    self._give(line, parcel)
                attend(line)
        _written()
        if strangers:
            self.not_here += len(strangers)
            self._board.spawn(self._disown(strangers))

    def _give(self, line: Any, parcel: Any) -> None:
        session = line.session
        if isinstance(parcel, SignalParcel):
            session.signal(parcel.frames)
        elif isinstance(parcel, HeadParcel):
            session.reaches(parcel.head)
        elif isinstance(parcel, TraceParcel):
            self._board.tracer.handed(line, parcel)
        elif isinstance(parcel, FullParcel):
            session.full.note(parcel.peer, self._board.now_s())
        elif isinstance(parcel, DevicesParcel):
            session.hear_devices(parcel.devices)
        elif isinstance(parcel, EvictParcel) and (session.device, session.id) == (parcel.device, parcel.session):
            session.fail(Code(parcel.code))

    def lost_some(self) -> None:
        """Batches may have been lost, and brokerd may have taken us for gone: claim again, and catch up."""
        self._log.warning("inbox_reopened", sessions=len(self._board.roster))
        self._board.logins.reclaim_all()

    async def _disown(self, users: list[str]) -> None:
        """Parcels came for users who are not here: take those entries out of the register."""
        board = self._board
        try:
            for user, seats in zip(users, await board.register.seats(users), strict=True):
                for seat in seats:
                    if seat.node == board.node and board.roster.find(user, seat.device) is None:
                        await board.register.release(user, seat)
        except LinkDown:
            self._log.info("disowning_put_off", users=len(users))
