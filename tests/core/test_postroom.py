"""The postroom: parcels reach the sessions they are for, and no parcel hurts another."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from brokerd.ports import Seat
from protocol.codec import encode
from protocol.envelope import DevicesParcel, EvictParcel, FullParcel, HeadParcel, ParcelKind, SignalParcel
from protocol.errors import Code
from protocol.messages import Bye, Deliver, Message, Signalled
from tests.core.back_room import until
from tests.core.node_room import NodeRoom, Peer, framed, node_room
from tests.core.peers import deliver


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[NodeRoom]:
    async with node_room(tmp_path) as running:
        yield running


def deliveries(messages: list[Message]) -> list[Message]:
    return [message for message in messages if isinstance(message, Deliver | Signalled)]


async def test_frames_reach_every_device_of_their_user_and_nobody_else(room: NodeRoom) -> None:
    laptop, phone, bob = await room.log_in(), await room.log_in("ann", "phone"), await room.log_in("bob")
    room.hand(framed(1, 2))
    for peer in (laptop, phone):
        await until(lambda peer=peer: len(peer.wire.written) > 2)  # type: ignore[misc]
    assert deliveries(laptop.heard()) == deliveries(phone.heard()) == [deliver(1), deliver(2)]
    assert deliveries(bob.heard()) == []
    assert room.board.counts.delivered == 4


async def test_a_gap_between_parcels_is_read_from_the_queue(room: NodeRoom) -> None:
    ann = await room.log_in()
    await room.save(1, 2, 3)
    ann.heard()
    room.hand(framed(3, 3))
    await until(lambda: bool(ann.wire.written))
    assert ann.heard() == [deliver(1), deliver(2), deliver(3)]
    assert room.board.counts.gaps == 1


async def test_a_nudge_reads_what_is_missing(room: NodeRoom) -> None:
    ann = await room.log_in()
    await room.save(1)
    ann.heard()
    room.hand(HeadParcel(ParcelKind.HEAD, "ann", 1))
    await until(lambda: bool(ann.wire.written))
    assert ann.heard() == [deliver(1)]


async def test_a_signal_is_shown_and_a_device_that_came_elsewhere_is_counted(room: NodeRoom) -> None:
    ann = await room.log_in()
    ann.heard()
    typing = Signalled(0, 0, "bob", b"typing")
    room.hand(SignalParcel(ParcelKind.SIGNAL, "ann", encode(typing)), DevicesParcel(ParcelKind.DEVICES, "ann", 3))
    await until(lambda: bool(ann.wire.written))
    assert ann.heard() == [typing]
    assert ann.line.session.devices == 3


async def test_an_eviction_closes_the_session_that_it_names_and_no_newer_one(room: NodeRoom) -> None:
    ann = await room.log_in()
    id_ = ann.line.session.id
    room.hand(EvictParcel(ParcelKind.EVICT, "ann", "laptop", id_ + "0", int(Code.REPLACED)))
    room.hand(EvictParcel(ParcelKind.EVICT, "ann", "phone", id_, int(Code.REPLACED)))
    assert ann.line.session.is_open
    room.hand(EvictParcel(ParcelKind.EVICT, "ann", "laptop", id_, int(Code.REPLACED)))
    await until(lambda: ann.end is Code.REPLACED)


async def test_a_session_that_is_over_but_not_gone_yet_does_not_stop_the_parcels_behind_it(room: NodeRoom) -> None:
    ann, bob = await room.log_in(), await room.log_in("bob")
    bob.heard()
    ann.say(Bye(0, 0))
    room.hand(framed(1, 1), framed(1, 1, "bob"))
    await until(lambda: bool(bob.wire.written))
    assert bob.heard() == [deliver(1)]


async def test_a_batch_that_cannot_be_read_is_dropped(room: NodeRoom) -> None:
    ann = await room.log_in()
    ann.heard()
    room.postroom.take(b"what?")
    room.hand(framed(1, 1))
    await until(lambda: bool(ann.wire.written))
    assert ann.heard() == [deliver(1)]


async def test_a_seat_of_somebody_who_is_not_here_is_taken_out_of_the_register(room: NodeRoom) -> None:
    ann = await room.log_in()
    ours, lost, other = Seat("laptop", "n1", "?"), Seat("phone", "n1", "9.1"), Seat("desk", "n2", "1.1")
    for seat in (lost, other):
        await room.real_register.claim("ann", seat)
        await room.real_register.claim("eve", seat)
    room.hand(framed(1, 1, "eve"))

    async def is_clean() -> bool:
        return await room.seats("eve") == [other]

    await until(is_clean)
    assert ours.device == ann.line.session.device
    assert len(await room.seats("ann")) == 3, "somebody who is here keeps what the register has"


async def test_after_an_inbox_was_lost_every_session_claims_its_seat_again_and_looks_what_it_missed(
    room: NodeRoom,
) -> None:
    ann, bob = await room.log_in(), await room.log_in("bob")
    await room.save(1)
    for peer in (ann, bob):
        peer.heard()
        assert peer.line.seat is not None
        await room.real_register.release(peer.user, peer.line.seat)
    room.postroom.lost_some()
    await until(lambda: bool(ann.wire.written))
    assert ann.heard() == [deliver(1)]
    for peer in (ann, bob):
        await until(lambda peer=peer: _has_seat(room, peer))  # type: ignore[misc]


async def _has_seat(room: NodeRoom, peer: Peer) -> bool:
    return [seat.device for seat in await room.seats(peer.user)] == [peer.device]


async def test_a_full_queue_is_noted_by_the_sessions_of_the_sender(room: NodeRoom) -> None:
    ann, bob = await room.log_in(), await room.log_in("bob")
    room.hand(FullParcel(ParcelKind.FULL, "ann", "cat"))
    now_s = room.board.now_s()
    assert ann.line.session.full.has("cat", now_s)
    assert not bob.line.session.full.has("cat", now_s)
