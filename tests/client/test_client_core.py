"""Every decision of the client, without a connection."""

from __future__ import annotations

from random import Random

import pytest

from protocol.client_core import (
    Backoff,
    Fate,
    Incoming,
    Mark,
    Outgoing,
    Take,
    ends_connection,
    fate_of,
    may_return,
)
from protocol.errors import Code
from protocol.messages import Error, Send, Welcome
from protocol.wire import Processed


def a_send(payload: bytes, cid: int = 0) -> Send:
    return Send(cid, 0, "bob", payload)


def a_welcome(cursor: int, generation: bytes = b"g" * 8, credit: int = 10, head: int = 99) -> Welcome:
    return Welcome(head, 0, 0, (), "n", "s", 1, b"t" * 9, cursor, generation, 65536, 30000, 1024, credit)


def payloads(requests: list[Send]) -> list[bytes]:
    return [request.payload for request in requests]


# --- codes


@pytest.mark.parametrize(
    ("code", "may"),
    [(Code.REPLACED, False), (Code.BAD_CREDENTIALS, False), (Code.REVOKED, False), (Code.SILENT, True),
     (Code.GOING_AWAY, True), (Code.STORE_DOWN, True), (Code.INTERNAL, True), (199, False), (299, False), (499, True),
     (599, True)],
)  # fmt: skip
def test_whether_to_come_back_follows_the_registry_and_for_unknown_codes_the_hundreds(code: int, may: bool) -> None:
    assert may_return(code) is may


@pytest.mark.parametrize(
    ("code", "ends"),
    [(Code.REPLACED, True), (Code.NO_SUCH_USER, False), (Code.BUSY, False), (Code.INTERNAL, True), (199, True),
     (299, True), (399, False), (499, False)],
)  # fmt: skip
def test_whether_an_error_ends_the_connection_follows_the_registry_and_the_hundreds(code: int, ends: bool) -> None:
    assert ends_connection(code) is ends


@pytest.mark.parametrize(
    ("code", "processed", "fate"),
    [(Code.BUSY, Processed.NO, Fate.AGAIN), (Code.RATE_LIMITED, Processed.NO, Fate.AGAIN),
     (Code.BUSY, Processed.UNKNOWN, Fate.UNKNOWN), (Code.INTERNAL, Processed.UNKNOWN, Fate.UNKNOWN),
     (Code.INTERNAL, Processed.YES, Fate.TAKEN), (Code.NO_SUCH_USER, Processed.NO, Fate.REFUSED),
     (Code.QUEUE_FULL, Processed.NO, Fate.REFUSED), (450, Processed.NO, Fate.AGAIN), (350, Processed.NO, Fate.REFUSED)],
)  # fmt: skip
def test_what_an_error_makes_of_its_request(code: int, processed: Processed, fate: Fate) -> None:
    assert fate_of(Error(7, 0, code, processed, 0, "")) is fate


# --- coming back


def test_waits_double_up_to_the_cap_and_are_jittered_over_their_whole_length() -> None:
    tops: list[float] = []

    def uniform(low: float, high: float) -> float:
        tops.append(high)
        assert low == 0.0
        return high

    backoff = Backoff(uniform)
    assert [backoff.wait_s() for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert tops == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    backoff.reset()
    assert backoff.wait_s() == 0.5


def test_the_same_seed_gives_the_same_waits() -> None:
    one, other = Backoff(Random(3).uniform), Backoff(Random(3).uniform)
    assert [one.wait_s() for _ in range(5)] == [other.wait_s() for _ in range(5)]


def test_retry_after_is_the_least_wait_and_the_jitter_comes_on_top() -> None:
    assert Backoff(lambda low, high: low).wait_s(after_s=3.0) == 3.0
    assert Backoff(lambda low, high: high).wait_s(after_s=3.0) == 3.5


def test_a_time_in_a_goaway_window_is_no_failure() -> None:
    backoff = Backoff(lambda low, high: high)
    assert backoff.pick_s(2.0, 9.0) == 9.0
    assert backoff.pick_s(9.0, 2.0) == 9.0
    assert backoff.tries == 0


def test_a_very_long_outage_does_not_overflow_the_wait() -> None:
    backoff = Backoff(lambda low, high: high)
    backoff.tries = 100_000
    assert backoff.wait_s() == 30.0


# --- out


def test_cids_begin_where_they_are_told_and_grow_by_one() -> None:
    outgoing = Outgoing(100, [])
    assert [outgoing.post(a_send(b"x")).ref for _ in range(3)] == [100, 101, 102]


def test_what_an_earlier_run_left_leaves_first_and_new_cids_are_above_it() -> None:
    outgoing = Outgoing(5, [a_send(b"9", 9), a_send(b"7", 7)])
    assert outgoing.post(a_send(b"new")).ref == 10
    assert [request.ref for request in outgoing.transmit(10)] == [7, 9, 10]


def test_no_more_than_the_window_is_in_flight() -> None:
    outgoing = Outgoing(1, [])
    for index in range(5):
        outgoing.post(a_send(b"%d" % index))
    assert len(outgoing.transmit(2)) == 2
    assert outgoing.transmit(2) == []
    outgoing.answer(1)
    assert payloads(outgoing.transmit(2)) == [b"2"]


def test_after_a_loss_the_unanswered_go_again_in_cid_order_before_anything_new() -> None:
    outgoing = Outgoing(1, [])
    for index in range(4):
        outgoing.post(a_send(b"%d" % index))
    outgoing.transmit(3)
    outgoing.answer(2)
    outgoing.lose_connection()
    assert [request.ref for request in outgoing.transmit(10)] == [1, 3, 4]


def test_a_second_loss_in_the_middle_of_sending_again_keeps_the_order() -> None:
    outgoing = Outgoing(1, [])
    for index in range(4):
        outgoing.post(a_send(b"%d" % index))
    outgoing.transmit(4)
    outgoing.lose_connection()
    outgoing.transmit(2)
    outgoing.lose_connection()
    assert [request.ref for request in outgoing.transmit(10)] == [1, 2, 3, 4]


def test_what_was_refused_leaves_again_under_its_cid_in_order_and_before_what_is_new() -> None:
    outgoing = Outgoing(1, [])
    for text in (b"a", b"b", b"c", b"d"):
        outgoing.post(a_send(text))
    outgoing.transmit(3)
    outgoing.refuse(3)
    outgoing.refuse(1)
    outgoing.answer(2)
    assert [(request.ref, request.payload) for request in outgoing.transmit(10)] == [(1, b"a"), (3, b"c"), (4, b"d")]


def test_what_was_refused_in_a_session_that_ends_leaves_in_the_next_in_its_place() -> None:
    outgoing = Outgoing(1, [a_send(b"a", 1), a_send(b"b", 2), a_send(b"c", 3)])
    outgoing.transmit(3)
    outgoing.refuse(2)
    outgoing.lose_connection()
    assert [request.ref for request in outgoing.transmit(10)] == [1, 2, 3]
    assert len(outgoing) == 3


def test_an_answer_to_nothing_is_nothing() -> None:
    outgoing = Outgoing(1, [])
    assert outgoing.answer(99) is None
    outgoing.refuse(99)
    assert len(outgoing) == 0


# --- in


def test_a_seq_is_new_once_a_repeat_after_and_a_gap_when_one_is_missing() -> None:
    incoming = Incoming(b"g" * 8, 0)
    incoming.welcome(a_welcome(3))
    assert [incoming.take(seq, seq) for seq in (4, 4, 3, 6, 5)] == [
        Take.NEW,
        Take.REPEAT,
        Take.REPEAT,
        Take.GAP,
        Take.NEW,
    ]


def test_gone_moves_over_all_its_seqs() -> None:
    incoming = Incoming(b"g" * 8, 0)
    incoming.welcome(a_welcome(0))
    assert incoming.take(1, 9) is Take.NEW
    assert incoming.take(10, 10) is Take.NEW


def test_acks_are_cumulative_and_said_once() -> None:
    incoming = Incoming(b"g" * 8, 0)
    incoming.welcome(a_welcome(0))
    for seq in (1, 2, 3):
        incoming.take(seq, seq)
    incoming.finish(Mark(0, 2))
    assert incoming.ack_due() == 2
    assert incoming.ack_due() is None
    incoming.finish(Mark(0, 1))
    assert incoming.ack_due() is None


def test_what_was_processed_but_not_acknowledged_before_a_loss_is_acknowledged_after_it() -> None:
    incoming = Incoming(b"g" * 8, 0)
    incoming.welcome(a_welcome(0))
    incoming.take(1, 1)
    incoming.finish(Mark(0, 1))
    incoming.welcome(a_welcome(0))
    incoming.take(1, 1)
    assert incoming.ack_due() == 1


def test_nothing_is_acknowledged_in_a_session_before_it_was_delivered_there() -> None:
    """The server ignores such an ACK (CHAT-115), and the client would not say it again."""
    incoming = Incoming(b"g" * 8, 0)
    incoming.welcome(a_welcome(0))
    for seq in (1, 2, 3):
        incoming.take(seq, seq)
    incoming.hello()
    incoming.finish(Mark(0, 3))
    incoming.welcome(a_welcome(0))
    acks = [incoming.ack_due()]
    for seq in (1, 2, 3):
        incoming.take(seq, seq)
        acks.append(incoming.ack_due())
    assert acks == [None, 1, 2, 3]


def test_a_new_generation_is_a_new_queue_and_marks_of_the_old_one_are_ignored() -> None:
    incoming = Incoming(b"g" * 8, 0)
    incoming.welcome(a_welcome(0))
    for seq in (1, 2, 3):
        incoming.take(seq, seq)
    incoming.welcome(a_welcome(0, b"h" * 8))
    assert incoming.take(1, 1) is Take.NEW
    incoming.finish(Mark(0, 3))
    assert incoming.processed == 0
    incoming.finish(Mark(1, 1))
    assert incoming.ack_due() == 1


def test_a_queue_that_went_back_is_followed_also_under_its_old_generation() -> None:
    incoming = Incoming(b"g" * 8, 40)
    assert incoming.hello() == 40
    incoming.welcome(a_welcome(30, head=35))
    assert [incoming.take(31, 31), incoming.processed] == [Take.NEW, 30]


def test_a_queue_that_lost_what_we_hold_but_did_not_process_is_followed_too() -> None:
    incoming = Incoming(b"g" * 8, 0)
    incoming.welcome(a_welcome(0))
    for seq in (1, 2, 3):
        incoming.take(seq, seq)
    incoming.hello()
    incoming.welcome(a_welcome(0, head=1))
    assert [incoming.take(1, 1), incoming.epoch] == [Take.NEW, 1]


def test_what_is_processed_while_the_login_is_on_its_way_is_no_sign_of_a_queue_that_went_back() -> None:
    incoming = Incoming(b"g" * 8, 0)
    incoming.welcome(a_welcome(0))
    for seq in (1, 2):
        incoming.take(seq, seq)
    incoming.hello()
    incoming.finish(Mark(0, 2))
    incoming.welcome(a_welcome(0))
    assert [incoming.take(seq, seq) for seq in (1, 2)] == [Take.REPEAT, Take.REPEAT]
    assert [incoming.epoch, incoming.ack_due()] == [0, 2]


def test_a_cursor_before_us_is_a_repeat_of_what_we_hold_not_a_step_back() -> None:
    incoming = Incoming(b"g" * 8, 0)
    incoming.welcome(a_welcome(0))
    for seq in (1, 2):
        incoming.take(seq, seq)
    incoming.welcome(a_welcome(0))
    assert [incoming.take(seq, seq) for seq in (1, 2, 3)] == [Take.REPEAT, Take.REPEAT, Take.NEW]


def test_a_pong_that_shows_a_hole_twice_means_that_something_is_missing() -> None:
    incoming = Incoming(b"g" * 8, 0)
    incoming.welcome(a_welcome(0))
    assert [incoming.hear_pong(2), incoming.hear_pong(2)] == [False, True]


def test_a_pong_in_front_of_what_arrives_is_no_hole() -> None:
    incoming = Incoming(b"g" * 8, 0)
    incoming.welcome(a_welcome(0))
    assert incoming.hear_pong(2) is False
    incoming.take(1, 1)
    assert incoming.hear_pong(2) is False


def test_a_pong_shows_no_hole_while_our_own_credit_holds_the_server_back() -> None:
    incoming = Incoming(b"g" * 8, 0)
    incoming.welcome(a_welcome(0, credit=1))
    incoming.take(1, 1)
    assert [incoming.hear_pong(5), incoming.hear_pong(5)] == [False, False]


def test_a_server_that_delivers_far_over_the_credit_is_found_out() -> None:
    incoming = Incoming(b"g" * 8, 0)
    incoming.welcome(a_welcome(0, credit=2))
    seen = []
    for seq in range(1, 6):
        incoming.take(seq, seq)
        seen.append(incoming.is_overrun())
    assert seen == [False, False, False, False, True]
