"""The broker: nothing is acknowledged before it is safe, nothing waits for ever, and one bad batch hurts no other."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from brokerd.broker import SETTLING_MAX
from brokerd.ports import Seat
from protocol.envelope import (
    BATCH_ITEMS_MAX,
    AckPost,
    EntryPost,
    FramesParcel,
    HeadParcel,
    PostKind,
    SignalPost,
    SweepPost,
    TroublePost,
)
from protocol.errors import Code
from protocol.messages import Deliver, Receipt
from protocol.names import device_tag, message_id, shard_of
from protocol.wire import Flag, Status, Type
from tests.core.back_room import BackRoom, back_room, entry, payloads, until
from tests.core.peers import NOW_MS, messages_of

ASKS = int(Flag.RECEIPT)


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[BackRoom]:
    async with back_room(tmp_path) as running:
        yield running


def receipts(room_read: Sequence[object]) -> list[tuple[Status, tuple[bytes, ...], int]]:
    return [(Status(it.status), it.ids, it.reason) for it in room_read if isinstance(it, Receipt)]


def id_of(cid: int, sender: str = "ann") -> bytes:
    return message_id(device_tag(sender, "laptop"), cid)


def ack(seq: int, user: str = "bob", device: str = "phone") -> AckPost:
    return AckPost(PostKind.ACK, user, device, seq)


def rotten() -> EntryPost:
    """A post that can be decoded and that no store can take."""
    return entry(9)._replace(cid="nine")  # type: ignore[arg-type]


# --- the way of a message -----------------------------------------------------------------------------------------


async def test_a_message_is_done_with_when_it_is_saved_and_handed_to_the_node(room: BackRoom) -> None:
    await room.seat("bob")
    await room.post(entry(1), entry(2))
    assert payloads(await room.read("bob")) == [b"tea?", b"tea?"]
    await until(lambda: bool(room.parcels))
    [parcel] = room.parcels
    assert isinstance(parcel, FramesParcel)
    assert [message.ref for message in messages_of(parcel.frames)] == [1, 2]


async def test_a_message_for_somebody_who_is_away_is_saved_and_handed_to_nobody(room: BackRoom) -> None:
    await room.open("bob")
    await room.post(entry(1))
    await room.seat("eve")
    await room.post(entry(2, "eve"), to="eve")
    await until(lambda: bool(room.parcels))
    assert [parcel.user for parcel in room.parcels] == ["eve"]
    assert payloads(await room.read("bob")) == [b"tea?"]


async def test_what_is_posted_twice_is_saved_once_and_the_second_time_only_nudges(room: BackRoom) -> None:
    await room.seat("bob")
    await room.post(entry(1))
    await room.post(entry(1))
    await until(lambda: len(room.parcels) == 2)
    assert room.parcels[1] == HeadParcel(2, "bob", 1)
    assert len(await room.read("bob")) == 1
    assert room.broker.counts.repeats == 1


async def test_trouble_is_noted_with_the_device(room: BackRoom) -> None:
    await room.open("bob")
    await room.post(TroublePost(PostKind.TROUBLE, "bob", "phone", Code.SILENT, NOW_MS), entry(1))
    status = await room.real_store.status("bob")
    assert status is not None
    assert str(int(Code.SILENT)) in status.troubles["phone"]


async def test_a_signal_reaches_those_who_are_there_and_is_saved_nowhere(room: BackRoom) -> None:
    await room.seat("bob")
    await room.post(SignalPost(PostKind.SIGNAL, "bob", Type.SIGNALLED, b"\x92\xa3ann\xc4\x00"))
    await until(lambda: bool(room.parcels))
    assert await room.read("bob") == []


async def test_more_parcels_than_one_batch_may_hold_reach_the_node_all_the_same(room: BackRoom) -> None:
    await room.seat("bob")
    half = [SignalPost(PostKind.SIGNAL, "bob", Type.SIGNALLED, b"\x92\xa3ann\xc4\x00")] * (BATCH_ITEMS_MAX * 2 // 3)
    await asyncio.gather(room.post(*half), room.post(*half))
    await until(lambda: len(room.parcels) == 2 * len(half))


# --- the store is down --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["append", "acknowledge", "note_trouble"])
async def test_while_the_store_is_down_nothing_is_acknowledged_and_then_it_goes_on(room: BackRoom, call: str) -> None:
    await room.seat("bob")
    room.store.down = {call}
    trouble = TroublePost(PostKind.TROUBLE, "bob", "phone", Code.SILENT, NOW_MS)
    posted = room.post(entry(1), ack(0), trouble)
    await until(lambda: room.broker.counts.retries >= 2)
    assert not posted.done()
    room.store.down = set()
    await posted
    assert len(await room.read("bob")) == 1


async def test_an_answer_of_the_store_that_was_lost_costs_nothing_but_a_nudge(room: BackRoom) -> None:
    await room.seat("bob")
    room.store.lost_answers = {"append"}
    await room.post(entry(1))
    await until(lambda: bool(room.parcels))
    assert room.parcels == [HeadParcel(2, "bob", 1)]
    assert len(await room.read("bob")) == 1


async def test_nobody_is_taken_for_absent_because_the_store_is_down(room: BackRoom) -> None:
    room.store.down = {"append"}
    posted = room.post(entry(1, "ghost"), to="ghost")
    await until(lambda: room.broker.counts.retries >= 1)
    assert room.broker.counts.bounced == 0
    await room.open("ghost")
    room.store.down = set()
    await posted
    assert payloads(await room.read("ghost")) == [b"tea?"]


# --- poison -------------------------------------------------------------------------------------------------------


async def test_a_batch_that_cannot_be_decoded_is_buried_and_its_shard_goes_on(room: BackRoom) -> None:
    await room.open("bob")
    shard = shard_of("bob", room.shards)
    bad, good = room.queue.post(shard, b"what?"), room.post(entry(1))
    await asyncio.gather(bad, good)
    [letter] = room.queue.dead_letters
    assert letter.body == b"what?"
    assert len(await room.read("bob")) == 1


async def test_a_batch_that_no_store_can_take_is_buried_and_those_beside_it_are_saved_once(room: BackRoom) -> None:
    await room.open("bob")
    await asyncio.gather(room.post(entry(1)), room.post(rotten()), room.post(entry(2)))
    assert len(room.queue.dead_letters) == 1
    assert payloads(await room.read("bob")) == [b"tea?", b"tea?"]


async def test_each_bad_batch_of_a_round_is_buried_once_whatever_is_bad_about_it(room: BackRoom) -> None:
    await room.open("bob")
    shard = shard_of("bob", room.shards)
    await asyncio.gather(room.queue.post(shard, b"what?"), room.post(rotten()), room.post(entry(1)))
    await until(lambda: len(room.queue.dead_letters) == 2)
    await room.post(entry(2))
    assert sorted(letter.body == b"what?" for letter in room.queue.dead_letters) == [False, True]
    assert room.broker.counts.dead_letters == 2


async def test_a_body_that_nobody_can_read_stops_its_own_receipt_and_nothing_else(room: BackRoom) -> None:
    await room.open("ann")
    await room.open("bob")
    await room.open("eve")
    await room.post(entry(1, flags=ASKS)._replace(body=b"\x01"), entry(2, "eve", flags=ASKS))
    await room.post(ack(1), ack(1, "eve"))
    await until(lambda: _has_receipts(room, 1))


# --- bounces ------------------------------------------------------------------------------------------------------


async def test_the_sender_of_a_message_to_nobody_is_told_that_it_failed(room: BackRoom) -> None:
    await room.open("ann")
    await room.post(entry(1, "ghost"), to="ghost")
    assert receipts(await room.read("ann")) == [(Status.FAILED, (id_of(1),), Code.NO_SUCH_USER)]


@pytest.mark.pure
async def test_a_bounce_is_durable_before_its_batch_is_done_with(room: BackRoom) -> None:
    sender = next(
        name for name in ("ann", "amy", "art") if shard_of(name, room.shards) != shard_of("ghost", room.shards)
    )
    await room.open(sender)
    real_post, held = room.reserve.post, asyncio.Event()

    async def late(shard: int, batch: bytes) -> None:
        await held.wait()
        await real_post(shard, batch)

    posted = room.post(entry(1, "ghost", sender=sender), to="ghost")
    room.reserve.post = lambda shard, batch: asyncio.ensure_future(late(shard, batch))  # type: ignore[method-assign]
    await until(lambda: room.broker.counts.bounced == 1)
    await room.real_store.heads([sender])
    assert not posted.done()
    held.set()
    await posted
    assert len(await room.read(sender)) == 1


async def test_more_bounces_than_one_batch_may_hold_all_arrive(room: BackRoom) -> None:
    await room.open("ann")
    half = BATCH_ITEMS_MAX * 2 // 3
    lots = [[entry(cid, f"ghost{cid}") for cid in range(1 + part * half, 1 + (part + 1) * half)] for part in range(2)]
    await asyncio.gather(*(room.post(*some, to="ghost") for some in lots))
    assert len(await room.read("ann")) == 2 * half
    assert not room.queue.dead_letters


async def test_a_full_queue_of_which_every_batch_owes_a_bounce_empties_itself(tmp_path: Path) -> None:
    async with back_room(tmp_path, batches_max=4) as room:
        await room.open("ann")
        posted = [room.post(entry(cid, "ghost"), to="ghost") for cid in range(1, 5)]
        assert not room.queue.is_ready
        async with asyncio.timeout(5):
            await asyncio.gather(*posted)
        told = [ids for _, ids, _ in receipts(await room.read("ann"))]
        assert sorted(itertools.chain(*told)) == [id_of(cid) for cid in range(1, 5)]


# --- receipts -----------------------------------------------------------------------------------------------------


async def _has_receipts(room: BackRoom, count: int, user: str = "ann") -> bool:
    return len(await room.read(user)) >= count


async def test_an_acknowledgement_tells_the_sender_delivered_once_and_is_settled(room: BackRoom) -> None:
    await room.open("ann")
    await room.open("bob")
    await room.post(entry(1, flags=ASKS), entry(2), entry(3, flags=ASKS))
    await room.post(ack(3))
    await until(lambda: _has_receipts(room, 1))
    await room.post(ack(3))
    await room.post(SweepPost(PostKind.SWEEP, "bob"))
    assert receipts(await room.read("ann")) == [(Status.DELIVERED, (id_of(1), id_of(3)), 0)]
    await until(lambda: _is_trimmed(room, "bob", 3))


async def _is_trimmed(room: BackRoom, user: str, floor: int) -> bool:
    status = await room.real_store.status(user)
    return status is not None and status.floor == floor


async def test_the_second_device_of_a_receiver_tells_nothing_new(room: BackRoom) -> None:
    await room.open("ann")
    for device in ("phone", "tablet"):
        await room.open("bob", device)
    await room.post(entry(1, flags=ASKS))
    await room.post(ack(1))
    await until(lambda: _has_receipts(room, 1))
    await room.post(ack(1, device="tablet"))
    await until(lambda: _is_trimmed(room, "bob", 1))
    assert len(await room.read("ann")) == 1


@pytest.mark.pure
async def test_receipts_that_a_store_that_went_down_kept_owed_are_found_by_the_sweep(room: BackRoom) -> None:
    await room.open("ann")
    await room.open("bob")
    await room.post(entry(1, flags=ASKS))
    real = room.broker._post_all

    async def down(posts: object) -> None:
        room.broker._post_all = real  # type: ignore[method-assign]
        room.store.down = {"acknowledge"}  # the receipts are durable, but that cannot be noted
        await real(posts)  # type: ignore[arg-type]

    room.broker._post_all = down  # type: ignore[method-assign]
    await room.post(ack(1))
    await until(lambda: _has_receipts(room, 1))
    room.store.down = set()
    await room.post(SweepPost(PostKind.SWEEP, "bob"))
    await until(lambda: _is_trimmed(room, "bob", 1))
    assert receipts(await room.read("ann")) == [(Status.DELIVERED, (id_of(1),), 0)], "told twice, taken once"


async def test_more_acknowledgements_at_once_than_are_settled_at_once_do_not_stop_their_shard(tmp_path: Path) -> None:
    async with back_room(tmp_path, shards=1) as room:
        users = [f"user{number}" for number in range(SETTLING_MAX + 50)]
        for user in ("ann", *users):
            await room.open(user)
        await room.post(*(entry(cid, user, flags=ASKS) for cid, user in enumerate(users, 1)))
        await room.post(*(ack(1, user) for user in users))
        await until(lambda: _has_receipts(room, len(users)))
        told = receipts(await room.read("ann"))
        assert sorted(ids for _, ids, _ in told) == sorted((id_of(cid),) for cid in range(1, len(users) + 1))


# --- expiry -------------------------------------------------------------------------------------------------------


async def test_what_expired_is_told_and_becomes_a_tombstone_and_the_rest_stays(room: BackRoom) -> None:
    await room.open("ann")
    await room.open("bob")
    await room.post(entry(1), entry(2, flags=ASKS, expires_ms=NOW_MS + 1000), entry(3))
    room.now_ms = NOW_MS + 999
    await room.post(SweepPost(PostKind.SWEEP, "bob"), to="bob")
    await until(lambda: "bury" in room.store.calls)
    assert len(payloads(await room.read("bob"))) == 3
    room.now_ms = NOW_MS + 1000
    await room.post(SweepPost(PostKind.SWEEP, "bob"))
    await until(lambda: _has_receipts(room, 1))
    await until(lambda: room.broker.counts.expired == 1)
    first, second, third = await room.read("bob")
    assert (type(first), second, type(third)) == (Deliver, None, Deliver)
    assert receipts(await room.read("ann")) == [(Status.EXPIRED, (id_of(2),), Code.TTL_PASSED)]


async def test_what_expired_is_buried_only_when_its_sender_was_told(room: BackRoom) -> None:
    await room.open("ann")
    await room.open("bob")
    await room.post(entry(1, flags=ASKS, expires_ms=NOW_MS + 1))
    room.now_ms = NOW_MS + 2
    room.store.down = {"append"}
    await room.post(SweepPost(PostKind.SWEEP, "bob"))
    await until(lambda: room.broker.counts.retries >= 1)
    assert await room.read("bob") != [None]
    room.store.down = set()
    await until(lambda: room.broker.counts.expired == 1)
    assert len(await room.read("ann")) == 1


async def test_an_acknowledgement_that_meets_a_sweep_tells_the_same_end(room: BackRoom) -> None:
    await room.open("ann")
    await room.open("bob")
    await room.post(entry(1, flags=ASKS, expires_ms=NOW_MS + 1), entry(2, flags=ASKS))
    room.now_ms = NOW_MS + 2
    room.store.held["expired"] = asyncio.Event()
    await room.post(SweepPost(PostKind.SWEEP, "bob"))
    await until(lambda: "expired" in room.store.calls)
    await room.post(ack(2))
    await until(lambda: _has_receipts(room, 2))
    room.store.held["expired"].set()
    await until(lambda: room.broker.counts.expired == 1)
    await until(lambda: _is_trimmed(room, "bob", 2))
    told = [(status, ids) for status, ids, _ in receipts(await room.read("ann"))]
    assert sorted(told) == [(Status.DELIVERED, (id_of(2),)), (Status.EXPIRED, (id_of(1),))]


# --- stale seats --------------------------------------------------------------------------------------------------


async def test_the_seats_of_a_node_that_is_gone_are_released_and_others_stay(room: BackRoom) -> None:
    await room.seat("bob", "phone", node="n-dead")
    await room.seat("bob", "tablet")
    await room.seat("eve", "desk", node="n-dead")  # nothing was handed to it: it is found at its own time
    await room.post(entry(1))
    tablet, desk = Seat("tablet", "n1", "1.1"), Seat("desk", "n-dead", "1.1")

    async def is_released() -> bool:
        return await room.register.seats(["bob", "eve"]) == [[tablet], [desk]]

    await until(is_released)
    assert room.broker.counts.stale_nodes == 1


async def test_a_seat_that_was_taken_anew_meanwhile_is_not_released(room: BackRoom) -> None:
    await room.seat("bob", "phone", node="n-dead")
    posted = room.post(entry(1))
    newer = Seat("phone", "n1", "7.1")

    def take_anew(node: str) -> None:
        room.register._seats["bob"]["phone"] = newer

    room.nodes._told.insert(0, take_anew)
    await room.register.renew_lease("n1", 60_000)
    await posted
    await until(lambda: room.broker.counts.stale_nodes == 1)
    await room.post(entry(2))
    assert await room.register.seats(["bob"]) == [[newer]]
