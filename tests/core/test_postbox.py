"""The postbox: one batch a shard a turn, one answer a message, and nothing half-accepted when the queue is shut."""

from __future__ import annotations

import pytest

from brokerd.ports import LinkDown, PostRefused
from chatd.auth.own import own_names
from chatd.effects import PostBurst
from chatd.postbox import SHUT_S_MAX, WAITING_BYTES_MAX, WAITING_POSTS_MAX
from protocol.envelope import (
    BATCH_BYTES_MAX,
    BATCH_ITEMS_MAX,
    PostKind,
    SignalPost,
    TroublePost,
)
from protocol.names import shard_of
from protocol.wire import GENERATION_BYTES, Processed, Type
from tests.core.postbox_rig import ANN, BOB, SHARDS, Poster, Rig, copied, entry, refused, single


@pytest.fixture
async def rig() -> Rig:
    return Rig()


# --- batches ------------------------------------------------------------------------------------------------------


async def test_what_one_turn_brought_leaves_as_one_batch_a_shard_in_its_order(rig: Rig) -> None:
    signal = SignalPost(PostKind.SIGNAL, BOB, Type.SIGNALLED, b"s")
    trouble = TroublePost(PostKind.TROUBLE, ANN, "laptop", 106, 5)
    rig.box.post(rig.poster, single(1))
    rig.box.post(rig.poster, single(2, to=ANN))
    rig.box.signal(signal)
    rig.box.trouble(trouble)
    rig.box.post(rig.poster, single(3))
    assert rig.window.posted == [], "nothing leaves before the turn ends"
    rig.box.flush()
    assert sorted(rig.window.batches()) == sorted(
        [
            (shard_of(BOB, SHARDS), [entry(BOB, 1), signal, entry(BOB, 3)]),
            (shard_of(ANN, SHARDS), [entry(ANN, 2), trouble]),
        ]
    )
    rig.box.flush()
    assert len(rig.window.posted) == 2, "and nothing leaves twice"


async def test_a_burst_is_posted_and_answered_as_its_messages(rig: Rig) -> None:
    rig.box.post(rig.poster, single(1))
    rig.box.post_burst(rig.poster, PostBurst([entry(BOB, 2), entry(BOB, 3)]))
    rig.box.flush()
    assert rig.window.batches() == [(shard_of(BOB, SHARDS), [entry(BOB, 1), entry(BOB, 2), entry(BOB, 3)])]
    await rig.confirm(0)
    assert rig.poster.heard == [[1, 2, 3]]


async def test_a_batch_is_cut_at_the_count_that_a_broker_takes(rig: Rig) -> None:
    for cid in range(1, BATCH_ITEMS_MAX + 2):
        rig.box.post(rig.poster, single(cid))
    rig.box.flush()
    (_, first), (_, second) = rig.window.batches()
    assert [post.cid for post in (*first, *second)] == list(range(1, BATCH_ITEMS_MAX + 2))  # type: ignore[union-attr]
    assert len(first) == BATCH_ITEMS_MAX
    await rig.confirm(1)
    await rig.confirm(0)
    assert rig.poster.heard == [[BATCH_ITEMS_MAX + 1], list(range(1, BATCH_ITEMS_MAX + 1))]


async def test_a_batch_is_cut_before_it_grows_over_its_bytes(rig: Rig) -> None:
    body = bytes(BATCH_BYTES_MAX // 3)
    for cid in range(1, 6):
        rig.box.post(rig.poster, single(cid, body=body))
    rig.box.flush()
    assert [len(posts) for _, posts in rig.window.batches()] == [2, 2, 1]
    assert all(len(batch) <= BATCH_BYTES_MAX for _, batch, _ in rig.window.posted)


async def test_one_message_that_is_larger_than_a_batch_leaves_alone(rig: Rig) -> None:
    rig.box.post(rig.poster, single(1, body=bytes(BATCH_BYTES_MAX + 1)))
    rig.box.post(rig.poster, single(2))
    rig.box.flush()
    assert [len(posts) for _, posts in rig.window.batches()] == [1, 1]


async def test_a_drain_waits_for_what_people_say_and_not_for_the_canary(rig: Rig) -> None:
    one, other = own_names("n1")
    rig.box.ack(one, "canary", 1, bytes(GENERATION_BYTES))
    rig.box.post(rig.poster, single(1, other))
    assert rig.box.is_idle
    rig.wait_out_acks()
    assert rig.window.posted
    assert rig.box.is_idle
    rig.box.post(rig.poster, single(2, BOB))
    assert not rig.box.is_idle
    rig.box.flush()
    assert not rig.box.is_idle
    await rig.confirm(len(rig.window.posted) - 1)
    assert rig.box.is_idle
    rig.box.ack(BOB, "phone", 1, bytes(GENERATION_BYTES))
    assert not rig.box.is_idle


# --- answers ------------------------------------------------------------------------------------------------------


async def test_what_became_durable_together_is_answered_together_and_each_poster_once(rig: Rig) -> None:
    other = Poster()
    for cid in (1, 2):
        rig.box.post(rig.poster, single(cid))
        rig.box.post(other, single(cid + 10))
    rig.box.flush()
    assert not rig.box.is_idle
    await rig.confirm()
    assert (rig.poster.heard, other.heard) == ([[1, 2]], [[11, 12]])
    assert rig.box.is_idle
    assert rig.wakes == 1


async def test_a_message_with_a_copy_is_answered_once_when_both_are_durable(rig: Rig) -> None:
    rig.box.post(rig.poster, copied(7))
    rig.box.flush()
    await rig.confirm(0)
    assert rig.poster.heard == []
    await rig.confirm(1)
    assert rig.poster.heard == [[7]]


async def test_a_batch_that_the_queue_surely_did_not_take_may_be_sent_again_at_once(rig: Rig) -> None:
    rig.box.post(rig.poster, single(1))
    rig.box.flush()
    await rig.confirm(0, PostRefused("no"))
    assert rig.poster.heard == [refused(1, Processed.NO)]


@pytest.mark.parametrize("fault", [LinkDown("lost"), RuntimeError("anything else")])
async def test_a_batch_of_which_nobody_knows_is_told_as_unknown(rig: Rig, fault: Exception) -> None:
    rig.box.post(rig.poster, single(1))
    rig.box.flush()
    await rig.confirm(0, fault)
    assert rig.poster.heard == [refused(1, Processed.UNKNOWN)]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_a_message_of_which_one_half_was_refused_is_told_as_unknown_once(
    rig: Rig, order: tuple[int, int]
) -> None:
    rig.box.post(rig.poster, copied(7))
    rig.box.flush()
    await rig.confirm(order[0], PostRefused("no"))
    await rig.confirm(order[1])
    assert rig.poster.heard == [refused(7, Processed.UNKNOWN)]


async def test_a_message_of_which_both_halves_were_refused_is_told_once(rig: Rig) -> None:
    rig.box.post(rig.poster, copied(7))
    rig.box.flush()
    await rig.confirm(0, PostRefused("no"))
    await rig.confirm(1, PostRefused("no"))
    assert rig.poster.heard == [refused(7, Processed.UNKNOWN)]


# --- a queue that is shut -----------------------------------------------------------------------------------------


async def test_messages_wait_for_a_queue_that_is_shut_for_a_moment(rig: Rig) -> None:
    rig.window.is_ready = False
    rig.box.post(rig.poster, single(1))
    rig.box.flush()
    rig.box.tick(0.0)
    rig.box.tick(SHUT_S_MAX / 2)
    assert rig.poster.heard == []
    rig.window.is_ready = True
    rig.box.tick(SHUT_S_MAX)
    await rig.confirm()
    assert rig.poster.heard == [[1]]
    assert rig.gate.is_open


async def test_messages_are_refused_and_the_gate_shuts_when_the_queue_stays_shut(rig: Rig) -> None:
    rig.window.is_ready = False
    rig.box.post(rig.poster, single(1))
    rig.box.tick(0.0)
    rig.box.tick(SHUT_S_MAX)
    assert rig.poster.heard == [refused(1, Processed.NO)]
    assert not rig.gate.is_open
    assert rig.box.is_idle
    rig.window.is_ready = True
    rig.box.tick(2 * SHUT_S_MAX)
    assert rig.gate.is_open
    assert rig.window.posted == [], "what was refused does not leave any more"


async def test_a_message_and_its_copy_that_both_wait_were_surely_not_taken(rig: Rig) -> None:
    rig.window.is_ready = False
    rig.box.post(rig.poster, copied(7))
    rig.box.tick(0.0)
    rig.box.tick(SHUT_S_MAX)
    assert rig.poster.heard == [refused(7, Processed.NO)]


async def test_a_message_of_which_one_half_left_before_the_queue_shut_is_told_as_unknown(rig: Rig) -> None:
    rig.window.room = 1
    rig.box.post(rig.poster, copied(7))
    rig.box.flush()
    rig.box.tick(0.0)
    rig.box.tick(SHUT_S_MAX)
    assert rig.poster.heard == [refused(7, Processed.UNKNOWN)]
    await rig.confirm()
    assert len(rig.poster.heard) == 1


async def test_a_queue_that_is_full_at_each_look_but_moves_on_is_not_shut(rig: Rig) -> None:
    rig.window.room = 1
    rig.box.post(rig.poster, single(1))
    rig.box.flush()
    rig.box.post(rig.poster, single(2))
    rig.box.tick(0.0)
    await rig.confirm()  # others took the room that this made
    rig.box.tick(SHUT_S_MAX)
    assert rig.poster.heard == [[1]]
    assert rig.gate.is_open
    rig.box.tick(2 * SHUT_S_MAX)
    assert rig.poster.heard == [[1], refused(2, Processed.NO)], "nothing moved for so long"


@pytest.mark.pure
async def test_a_queue_that_shuts_between_the_look_and_the_post_loses_nothing(rig: Rig) -> None:
    window = rig.window
    rig.box.post(rig.poster, single(1))
    rig.box.post(rig.poster, single(2))
    post = window.post
    window.post = lambda shard, batch: (_ for _ in ()).throw(LinkDown("now"))  # type: ignore[method-assign]
    window.is_ready = _TrueOnce()  # type: ignore[assignment]
    rig.box.flush()
    window.post, window.is_ready = post, True  # type: ignore[method-assign]
    rig.box.flush()
    assert window.batches() == [(shard_of(BOB, SHARDS), [entry(BOB, 1), entry(BOB, 2)])]
    assert rig.box.statistics()["waiting"] == 0
    assert rig.box.statistics()["waiting_bytes"] == 0


class _TrueOnce:
    def __init__(self) -> None:
        self.looks = 0

    def __bool__(self) -> bool:
        self.looks += 1
        return self.looks == 1


async def test_the_gate_shuts_when_too_many_wait_and_opens_when_half_is_gone(rig: Rig) -> None:
    rig.window.is_ready = False
    for cid in range(1, WAITING_POSTS_MAX + 1):
        rig.box.post(rig.poster, single(cid))
    assert rig.gate.is_open
    rig.box.post(rig.poster, single(WAITING_POSTS_MAX + 1))
    assert not rig.gate.is_open
    rig.window.is_ready = True
    rig.box.tick(0.0)
    assert rig.gate.is_open


async def test_the_gate_shuts_when_too_many_bytes_wait(rig: Rig) -> None:
    rig.window.is_ready = False
    rig.box.post(rig.poster, single(1, body=bytes(WAITING_BYTES_MAX)))
    assert not rig.gate.is_open
