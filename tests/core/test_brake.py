"""The brake: who says much to a shard that is behind is read more slowly, until it has caught up or nothing is heard of it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from brokerd.ports import Delivery
from chatd.brake import (
    BEHIND_S,
    DEBT_MAX,
    SHARE_MAX,
    SLOT_S,
    SLOT_SHARE,
    STAMP_POSTS_MIN,
    STAMP_POSTS_PER_S,
    STAMP_S,
    TARGET_S,
    TOLD_S,
    TOLD_S_MAX,
    WINDOW_MIN,
    Brake,
    Share,
)
from chatd.effects import HoldReading, ResumeReading
from protocol.envelope import EntryPost, ParcelKind, StampParcel, pack_batch, unpack_posts, unpack_stamped
from protocol.messages import Send
from protocol.names import shard_of
from tests.core.back_room import back_room, until
from tests.core.node_room import node_room
from tests.core.postbox_rig import Rig, entry, single
from tests.core.session_rig import opened_rig

SHARDS = 4
START_S = 100.0
BOB, ANN = shard_of("bob", SHARDS), shard_of("ann", SHARDS)


MUCH = 10_000  # posts


def behind(brake: Brake, age_s: float, shard: int = BOB) -> None:
    """Of very many posts brokerd has taken none but the first, just now, at START_S."""
    brake.wants_stamp(shard, 1 + MUCH)
    brake.told(shard, stamp_of(START_S - age_s, 1), START_S)


def stamp_of(at_s: float, posted: int) -> int:
    return int(at_s * 1000) << 32 | posted


# --- how far a shard is behind ------------------------------------------------------------------------------------


def test_a_node_that_says_little_asks_nothing_and_one_that_says_much_asks_a_few_times_a_second() -> None:
    brake = Brake(SHARDS)
    assert not brake.wants_stamp(BOB, STAMP_POSTS_MIN - 1)
    assert brake.wants_stamp(BOB, 1)
    assert brake.stamp(BOB, START_S) == 0, "that took long"
    assert brake.wants_stamp(BOB, MUCH)
    assert brake.stamp(BOB, START_S + STAMP_S / 2) == 0, "not so soon"
    assert brake.stamp(BOB, START_S + 2 * STAMP_S) == stamp_of(START_S + 2 * STAMP_S, STAMP_POSTS_MIN + MUCH)
    assert brake.wants_stamp(BOB, STAMP_POSTS_MIN)
    assert brake.stamp(BOB, START_S + 2 * STAMP_S + 1.1 * STAMP_POSTS_MIN / STAMP_POSTS_PER_S) == 0


def test_of_a_shard_that_is_behind_a_node_keeps_what_brokerd_works_off_in_the_target_time() -> None:
    brake = Brake(SHARDS)
    per_s = 8000
    brake.wants_stamp(BOB, 100 * per_s)
    steps = [0.3 * step for step in range(8)]  # brokerd is half a second late all the time
    for passed_s in steps:
        brake.told(BOB, stamp_of(START_S + passed_s - 2 * BEHIND_S, int(per_s * (1 + passed_s))), START_S + passed_s)
    assert brake.is_full(BOB)
    now_s, worked = START_S + steps[-1], int(per_s * (1 + steps[-1]))
    room = int(TARGET_S * per_s)
    brake.told(BOB, stamp_of(now_s - BEHIND_S, 100 * per_s - int(1.05 * room)), now_s)
    assert brake.is_full(BOB)
    assert brake.told(BOB, stamp_of(now_s - BEHIND_S, 100 * per_s - int(0.95 * room)), now_s), "there is room again"
    assert not brake.is_full(BOB)
    assert worked < 100 * per_s


def test_a_shard_that_keeps_up_is_never_full() -> None:
    brake = Brake(SHARDS)
    brake.wants_stamp(BOB, MUCH)
    brake.told(BOB, stamp_of(START_S - BEHIND_S + 0.01, 1), START_S)
    assert (brake.is_on, brake.is_full(BOB)) == (False, False)


def test_what_is_said_in_one_turn_fills_a_shard_before_it_is_posted() -> None:
    brake = Brake(SHARDS)
    brake.wants_stamp(BOB, 1)
    brake.told(BOB, stamp_of(START_S - BEHIND_S, 1), START_S)
    for _ in range(WINDOW_MIN):
        brake.take("bob")
    assert not brake.is_full(BOB)
    brake.take("bob")
    assert brake.is_full(BOB)


@pytest.mark.parametrize("age_s", [BEHIND_S, 60.0])
def test_what_was_told_ages_out_when_nothing_more_is_heard(age_s: float) -> None:
    brake = Brake(SHARDS)
    behind(brake, age_s)
    counts_s = min(max(TOLD_S, age_s), TOLD_S_MAX)
    brake.next_slot(START_S + counts_s - SLOT_S)
    assert (brake.is_on, brake.shards_behind, brake.is_full(BOB)) == (True, 1, True)
    brake.next_slot(START_S + counts_s)
    assert (brake.is_on, brake.shards_behind, brake.is_full(BOB)) == (False, 0, False)


def test_a_stamp_of_a_shard_that_there_is_not_or_of_the_future_brakes_nobody() -> None:
    brake = Brake(SHARDS)
    for shard, age_s in ((SHARDS, 10.0), (-1, 10.0), (BOB, -10.0)):
        assert not brake.told(shard, stamp_of(START_S - age_s, 1), START_S)
    assert not brake.is_on


# --- what a session may say ---------------------------------------------------------------------------------------


def test_a_session_that_says_no_more_than_ordinary_people_is_never_held() -> None:
    brake = Brake(SHARDS)
    share = Share(brake)
    behind(brake, 60.0)
    for slot in range(100):
        for _ in range(SLOT_SHARE):
            share.take("bob")
            assert not share.is_used_up(), slot
        brake.next_slot(START_S)


def test_who_says_more_waits_for_as_many_slots_as_that_is_worth_within_a_bound() -> None:
    brake = Brake(SHARDS)
    share = Share(brake)
    behind(brake, 60.0)
    for _ in range(10 * DEBT_MAX):
        share.take("bob")
    slots = 0
    while share.is_used_up():
        brake.next_slot(START_S)
        slots += 1
    assert slots == DEBT_MAX // SLOT_SHARE + 1


def test_what_goes_to_shards_that_keep_up_is_not_counted() -> None:
    brake = Brake(SHARDS)
    share = Share(brake)
    behind(brake, 60.0)
    for _ in range(1000):
        share.take("ann")
    assert not share.is_used_up()


def test_a_session_that_says_much_to_a_full_shard_is_not_read_until_there_is_room() -> None:
    rig = opened_rig()
    brake = rig.gate.brake
    behind(brake, BEHIND_S, 0)
    sends = [Send(cid, 0, "bob", b"", None) for cid in range(1, SHARE_MAX + 1)]
    assert HoldReading() not in rig.say(*sends[:-1])
    assert HoldReading() in rig.say(sends[-1])
    rig.session.accepted([send.ref for send in sends])
    assert rig.session.take_effects() == [], "that it is accepted does not help"
    assert brake.told(0, stamp_of(START_S, 1 + MUCH), START_S)
    rig.session.look_again()
    assert rig.session.take_effects() == [ResumeReading()]


# --- the way of a stamp -------------------------------------------------------------------------------------------


async def test_a_postbox_that_posts_much_stamps_a_batch_and_the_posts_are_as_before() -> None:
    rig = Rig()
    for cid in range(MUCH):
        rig.box.post(rig.poster, single(cid))
    rig.gate.brake.stamp(BOB, time.monotonic() - STAMP_S)
    rig.box.flush()
    batch = rig.window.posted[0][1]
    node, posts, stamp = unpack_stamped(batch)
    assert (node, posts) == unpack_posts(batch)
    assert stamp > 0


async def test_brokerd_gives_a_stamp_back_as_soon_as_it_takes_the_batch_and_says_nothing_of_others(
    tmp_path: Path,
) -> None:
    async with back_room(tmp_path, SHARDS) as room:
        room.store.down.add("append")  # it is taken all the same
        room.queue.post(ANN, pack_batch("n1", [entry("ann", 1)]))
        room.queue.post(BOB, pack_batch("n1", [entry("bob", 2)], 77))
        await until(lambda: bool(room.parcels))
        assert room.parcels == [StampParcel(ParcelKind.STAMP, BOB, 77)]


async def test_a_node_holds_who_overdoes_it_while_stamps_come_back_late_and_reads_on_when_they_come_no_more(
    tmp_path: Path,
) -> None:
    batches: list[Delivery] = []
    async with node_room(tmp_path) as room:
        await room.queue.consume(BOB, batches.append)
        await room.queue.consume(ANN, lambda delivery: delivery.done())
        eve, ann = await room.log_in("eve"), await room.log_in("ann")
        room.board.gate.brake.wants_stamp(BOB, MUCH)
        room.hand(StampParcel(ParcelKind.STAMP, BOB, stamp_of(room.board.now_s() - 1.0, 1)))
        eve.say(*(Send(cid, 0, "bob", b"", None) for cid in range(1, 2 * SHARE_MAX)))
        ann.say(Send(1, 0, "bob", b"", None))
        assert (eve.wire.is_reading, ann.wire.is_reading) == (False, True)
        await until(lambda: eve.wire.is_reading)
        await until(lambda: not room.board.gate.brake.is_on)
        posts = [post for batch in batches for post in unpack_posts(batch.body)[1]]
        assert len([post for post in posts if isinstance(post, EntryPost)]) == 2 * SHARE_MAX, "nothing was refused"
