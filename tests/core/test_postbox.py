"""The postbox: one batch a shard a turn, one answer a message, and nothing half-accepted when the queue is shut."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from brokerd.ports import LinkDown, PostRefused
from chatd.effects import Gate, PostEntry
from chatd.postbox import REFUSED_RETRY_MS, SHUT_S_MAX, WAITING_BYTES_MAX, WAITING_POSTS_MAX, Postbox
from protocol.envelope import (
    BATCH_BYTES_MAX,
    BATCH_ITEMS_MAX,
    AckPost,
    EntryPost,
    Post,
    PostKind,
    SignalPost,
    TroublePost,
    unpack_posts,
)
from protocol.errors import Code
from protocol.names import shard_of
from protocol.wire import Processed, Type

SHARDS = 4
ANN, BOB = "ann", "bob"  # on two shards
assert shard_of(ANN, SHARDS) != shard_of(BOB, SHARDS)


class Window:
    """An inbound queue whose window the test opens and shuts, and whose confirms it gives."""

    def __init__(self) -> None:
        self.is_ready = True
        self.room = 1 << 30  # batches until it shuts by itself
        self.posted: list[tuple[int, bytes, asyncio.Future[None]]] = []

    def post(self, shard: int, batch: bytes) -> asyncio.Future[None]:
        if not self.is_ready:
            raise LinkDown("shut")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.posted.append((shard, batch, done))
        self.room -= 1
        self.is_ready = self.room > 0
        return done

    def batches(self) -> list[tuple[int, list[Post]]]:
        """What was posted, by shard."""
        return [(shard, unpack_posts(batch)[1]) for shard, batch, _ in self.posted]


@dataclass(eq=False)
class Poster:
    """Hears the answers."""

    heard: list[object] = field(default_factory=list)

    def accepted(self, cids: Sequence[int]) -> None:
        self.heard.append(list(cids))

    def refused(self, cid: int, code: Code, processed: Processed, retry_after_ms: int) -> None:
        self.heard.append((cid, code, processed, retry_after_ms))


class Rig:
    def __init__(self) -> None:
        self.window = Window()
        self.gate = Gate()
        self.wakes = 0
        self.box = Postbox("n1", SHARDS, self.window, self.gate, self.wake)
        self.poster = Poster()

    def wake(self) -> None:
        self.wakes += 1

    def wait_out_acks(self) -> None:
        """The time that acknowledgements wait for a message passes."""
        self.box.age_acks()
        self.box.age_acks()
        self.box.flush()

    async def confirm(self, at: int = 0, fault: Exception | None = None) -> None:
        """The queue answers the batch at `at` of those posted."""
        done = self.window.posted[at][2]
        if fault is None:
            done.set_result(None)
        else:
            done.set_exception(fault)
        await asyncio.sleep(0)


@pytest.fixture
async def rig() -> Rig:
    return Rig()


def entry(to: str, cid: int, body: bytes = b"x") -> EntryPost:
    return EntryPost(PostKind.ENTRY, to, b"t" * 9, cid, Type.DELIVER, 0, 1, body)


def single(cid: int, to: str = BOB, body: bytes = b"x") -> PostEntry:
    return PostEntry(cid, entry(to, cid, body), None)


def copied(cid: int) -> PostEntry:
    return PostEntry(cid, entry(BOB, cid), entry(ANN, cid))


def refused(cid: int, processed: Processed) -> tuple[object, ...]:
    return (cid, Code.BUSY, processed, REFUSED_RETRY_MS)


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


async def test_the_acknowledgements_of_a_batch_that_was_refused_leave_again(rig: Rig) -> None:
    rig.box.ack(BOB, "phone", 7)
    rig.wait_out_acks()
    await rig.confirm(0, PostRefused("no"))
    rig.box.flush()
    assert rig.window.batches() == [(shard_of(BOB, SHARDS), [AckPost(PostKind.ACK, BOB, "phone", 7)])] * 2


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


# --- acknowledgements ---------------------------------------------------------------------------------------------


async def test_acknowledgements_of_a_device_are_merged_into_the_last(rig: Rig) -> None:
    rig.box.ack(BOB, "phone", 1)
    rig.box.ack(BOB, "tablet", 2)
    rig.box.ack(BOB, "phone", 4)
    assert not rig.box.is_idle
    rig.wait_out_acks()
    acks = [AckPost(PostKind.ACK, BOB, "phone", 4), AckPost(PostKind.ACK, BOB, "tablet", 2)]
    assert rig.window.batches() == [(shard_of(BOB, SHARDS), acks)]


async def test_an_acknowledgement_leaves_with_the_next_message_for_its_shard_and_waits_for_no_other(rig: Rig) -> None:
    rig.box.ack(BOB, "phone", 1)
    rig.box.ack(ANN, "phone", 2)
    rig.box.post(rig.poster, single(1, BOB))
    rig.box.flush()
    [(shard, posts)] = rig.window.batches()
    assert (shard, posts[1:]) == (shard_of(BOB, SHARDS), [AckPost(PostKind.ACK, BOB, "phone", 1)])


async def test_an_acknowledgement_leaves_alone_when_it_waited_from_one_look_to_the_next(rig: Rig) -> None:
    rig.box.ack(ANN, "phone", 1)
    assert rig.box.age_acks()
    rig.box.ack(BOB, "phone", 2)
    rig.box.flush()
    assert rig.window.batches() == []
    assert rig.box.age_acks(), "bob's is new"
    rig.box.flush()
    assert rig.window.batches() == [(shard_of(ANN, SHARDS), [AckPost(PostKind.ACK, ANN, "phone", 1)])]
    assert not rig.box.age_acks()
    rig.box.flush()
    assert len(rig.window.batches()) == 2
    assert not rig.box.age_acks()


async def test_acknowledgements_are_kept_while_the_queue_is_shut_however_long(rig: Rig) -> None:
    rig.window.is_ready = False
    rig.box.ack(BOB, "phone", 1)
    for now_s in (0.0, SHUT_S_MAX, 2 * SHUT_S_MAX):
        rig.box.flush()
        rig.box.tick(now_s)
    rig.box.ack(BOB, "phone", 3)
    rig.window.is_ready = True
    rig.wait_out_acks()
    assert rig.window.batches() == [(shard_of(BOB, SHARDS), [AckPost(PostKind.ACK, BOB, "phone", 3)])]


async def test_acknowledgements_that_were_on_their_way_out_when_the_queue_shut_are_kept_too(rig: Rig) -> None:
    rig.window.room = 1
    rig.box.ack(ANN, "laptop", 5)
    rig.box.ack(BOB, "phone", 6)
    rig.wait_out_acks()
    assert len(rig.window.posted) == 1
    rig.box.tick(0.0)
    rig.box.tick(SHUT_S_MAX)
    rig.window.room, rig.window.is_ready = 9, True
    rig.box.flush()
    acks = [post for _, batch in rig.window.batches() for post in batch]
    assert sorted(acks) == [AckPost(PostKind.ACK, ANN, "laptop", 5), AckPost(PostKind.ACK, BOB, "phone", 6)]


async def test_an_acknowledgement_that_comes_while_an_older_one_waits_takes_its_place(rig: Rig) -> None:
    rig.window.room = 1
    for user in (ANN, BOB):
        rig.box.ack(user, "phone", 5)
    rig.wait_out_acks()
    for seq in (7, 8):
        for user in (ANN, BOB):
            rig.box.ack(user, "phone", seq)
    rig.box.tick(0.0)
    rig.box.tick(SHUT_S_MAX)
    rig.window.room, rig.window.is_ready = 9, True
    rig.wait_out_acks()
    acks = [post for _, batch in rig.window.batches()[1:] for post in batch]
    assert sorted(acks) == [AckPost(PostKind.ACK, user, "phone", 8) for user in (ANN, BOB)]


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
