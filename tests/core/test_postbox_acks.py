"""The postbox and acknowledgements: merged, taken along by messages, kept whatever happens to the queue."""

from __future__ import annotations

import pytest

from brokerd.ports import PostRefused
from chatd.postbox import SHUT_S_MAX
from protocol.envelope import (
    AckPost,
    PostKind,
)
from protocol.names import shard_of
from protocol.wire import GENERATION_BYTES
from tests.core.postbox_rig import ANN, BOB, SHARDS, Rig, single

GEN = b"1" * GENERATION_BYTES


@pytest.fixture
async def rig() -> Rig:
    return Rig()


async def test_acknowledgements_of_a_device_are_merged_into_the_last(rig: Rig) -> None:
    rig.box.ack(BOB, "phone", 1, GEN)
    rig.box.ack(BOB, "tablet", 2, GEN)
    rig.box.ack(BOB, "phone", 4, GEN)
    assert not rig.box.is_idle
    rig.wait_out_acks()
    acks = [AckPost(PostKind.ACK, BOB, "phone", 4, GEN), AckPost(PostKind.ACK, BOB, "tablet", 2, GEN)]
    assert rig.window.batches() == [(shard_of(BOB, SHARDS), acks)]


async def test_an_acknowledgement_leaves_with_the_next_message_for_its_shard_and_waits_for_no_other(rig: Rig) -> None:
    rig.box.ack(BOB, "phone", 1, GEN)
    rig.box.ack(ANN, "phone", 2, GEN)
    rig.box.post(rig.poster, single(1, BOB))
    rig.box.flush()
    [(shard, posts)] = rig.window.batches()
    assert (shard, posts[1:]) == (shard_of(BOB, SHARDS), [AckPost(PostKind.ACK, BOB, "phone", 1, GEN)])


async def test_an_acknowledgement_leaves_alone_when_it_waited_from_one_look_to_the_next(rig: Rig) -> None:
    rig.box.ack(ANN, "phone", 1, GEN)
    assert rig.box.age_acks()
    rig.box.ack(BOB, "phone", 2, GEN)
    rig.box.flush()
    assert rig.window.batches() == []
    assert rig.box.age_acks(), "bob's is new"
    rig.box.flush()
    assert rig.window.batches() == [(shard_of(ANN, SHARDS), [AckPost(PostKind.ACK, ANN, "phone", 1, GEN)])]
    assert not rig.box.age_acks()
    rig.box.flush()
    assert len(rig.window.batches()) == 2
    assert not rig.box.age_acks()


async def test_acknowledgements_are_kept_while_the_queue_is_shut_however_long(rig: Rig) -> None:
    rig.window.is_ready = False
    rig.box.ack(BOB, "phone", 1, GEN)
    for now_s in (0.0, SHUT_S_MAX, 2 * SHUT_S_MAX):
        rig.box.flush()
        rig.box.tick(now_s)
    rig.box.ack(BOB, "phone", 3, GEN)
    rig.window.is_ready = True
    rig.wait_out_acks()
    assert rig.window.batches() == [(shard_of(BOB, SHARDS), [AckPost(PostKind.ACK, BOB, "phone", 3, GEN)])]


async def test_acknowledgements_that_were_on_their_way_out_when_the_queue_shut_are_kept_too(rig: Rig) -> None:
    rig.window.room = 1
    rig.box.ack(ANN, "laptop", 5, GEN)
    rig.box.ack(BOB, "phone", 6, GEN)
    rig.wait_out_acks()
    assert len(rig.window.posted) == 1
    rig.box.tick(0.0)
    rig.box.tick(SHUT_S_MAX)
    rig.window.room, rig.window.is_ready = 9, True
    rig.box.flush()
    acks = [post for _, batch in rig.window.batches() for post in batch]
    assert sorted(acks) == [AckPost(PostKind.ACK, ANN, "laptop", 5, GEN), AckPost(PostKind.ACK, BOB, "phone", 6, GEN)]


async def test_an_acknowledgement_that_comes_while_an_older_one_waits_takes_its_place(rig: Rig) -> None:
    rig.window.room = 1
    for user in (ANN, BOB):
        rig.box.ack(user, "phone", 5, GEN)
    rig.wait_out_acks()
    for seq in (7, 8):
        for user in (ANN, BOB):
            rig.box.ack(user, "phone", seq, GEN)
    rig.box.tick(0.0)
    rig.box.tick(SHUT_S_MAX)
    rig.window.room, rig.window.is_ready = 9, True
    rig.wait_out_acks()
    acks = [post for _, batch in rig.window.batches()[1:] for post in batch]
    assert sorted(acks) == [AckPost(PostKind.ACK, user, "phone", 8, GEN) for user in (ANN, BOB)]


async def test_the_acknowledgements_of_a_batch_that_was_refused_leave_again(rig: Rig) -> None:
    rig.box.ack(BOB, "phone", 7, GEN)
    rig.wait_out_acks()
    await rig.confirm(0, PostRefused("no"))
    rig.box.flush()
    assert rig.window.batches() == [(shard_of(BOB, SHARDS), [AckPost(PostKind.ACK, BOB, "phone", 7, GEN)])] * 2


async def test_an_acknowledgement_of_a_queue_that_was_made_anew_takes_no_other_ones_place(rig: Rig) -> None:
    """The old session may speak last; what it says does not count in the new queue."""
    rig.box.ack(BOB, "phone", 7, GEN)
    rig.box.ack(BOB, "phone", 2, b"new")
    rig.box.ack(BOB, "phone", 8, GEN)
    rig.wait_out_acks()
    acks = [AckPost(PostKind.ACK, BOB, "phone", 8, GEN), AckPost(PostKind.ACK, BOB, "phone", 2, b"new")]
    await rig.confirm(0, PostRefused("no"))
    rig.box.flush()
    assert rig.window.batches() == [(shard_of(BOB, SHARDS), acks)] * 2
