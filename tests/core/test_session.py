"""A session decides: what each message of the peer makes it answer, and what it asks to be done, compared as values."""

from __future__ import annotations

import pytest

from brokerd.ports import Opened, Page
from chatd.effects import (
    Acknowledge,
    AskHead,
    Close,
    HoldReading,
    PostEntry,
    PostSignal,
    ReadQueue,
    ResumeReading,
)
from chatd.session import BUSY_RETRY_MS, QUEUE_ANEW
from protocol.codec import encode, encode_body
from protocol.envelope import EntryPost, PostKind, SignalPost
from protocol.errors import Code
from protocol.messages import (
    Accepted,
    Ack,
    Bye,
    Credit,
    GoAway,
    Ping,
    Pong,
    Read,
    ReadSync,
    Receipt,
    Send,
    Sent,
    Signal,
    Signalled,
)
from protocol.names import NAME_ALLOWED, message_id
from protocol.wire import ACCEPTED_CIDS_MAX, TTL_S_MAX, Flag, Limits, Processed, Status, Type
from tests.core.peers import GENERATION, NOW_MS, NOW_S, deliver, frames, hello, page
from tests.core.session_rig import EXPIRES_MS, TAG, Rig, error, message, opened_rig

# --- sending ------------------------------------------------------------------------------------------------------


def test_a_message_is_posted_once_for_its_receiver() -> None:
    rig = opened_rig()
    both = int(Flag.RECEIPT | Flag.READ_RECEIPT)
    assert rig.say(Send(7, both | 0x40, "bob", b"tea?", None)) == [PostEntry(7, message(7, flags=both), None)]
    assert rig.heard() == []


def test_what_is_sent_to_oneself_needs_no_copy() -> None:
    rig = opened_rig(devices=2)
    [effect] = rig.say(Send(7, 0, "ann", b"buy tea", None))
    assert isinstance(effect, PostEntry)
    assert effect.copy is None


def test_with_a_second_device_a_copy_goes_to_the_senders_own_queue() -> None:
    rig = opened_rig(devices=2)
    body = encode_body(Sent(0, 0, "bob", message_id(TAG, 7), NOW_MS, b"tea?"))
    copy = EntryPost(PostKind.ENTRY, "ann", b"c" + TAG, 7, Type.SENT, 0, EXPIRES_MS, body)
    assert rig.say(Send(7, 0, "bob", b"tea?", None)) == [PostEntry(7, message(7), copy)]


def test_a_second_device_may_come_while_the_session_stands() -> None:
    rig = opened_rig()
    rig.session.devices = 2
    [effect] = rig.say(Send(1, 0, "bob", b"", None))
    assert isinstance(effect, PostEntry)
    assert effect.copy is not None


def test_a_ttl_is_when_it_expires() -> None:
    assert opened_rig().say(Send(1, 0, "bob", b"tea?", 60)) == [
        PostEntry(1, message(1, expires_ms=NOW_MS + 60_000), None)
    ]


@pytest.mark.parametrize("ttl_s", [0, TTL_S_MAX + 1])
def test_a_ttl_that_is_not_allowed_is_refused(ttl_s: int) -> None:
    rig = opened_rig()
    assert rig.say(Send(4, 0, "bob", b"", ttl_s)) == []
    assert rig.heard() == [error(4, Code.BAD_REQUEST, f"ttl_s is {ttl_s}; 1..{TTL_S_MAX} is allowed")]
    assert rig.session.unaccepted == 0


def test_a_cid_that_does_not_grow_is_refused_and_nothing_is_posted() -> None:
    rig = opened_rig()
    rig.say(Send(5, 0, "bob", b"", None))
    assert rig.say(Send(5, 0, "bob", b"", None), Read(4, 0, "bob", (b"i" * 16,))) == []
    assert rig.heard() == [error(5, Code.BAD_CID, "cid 5 after 5"), error(4, Code.BAD_CID, "cid 4 after 5")]


def test_a_receiver_that_is_no_name_is_refused_and_its_cid_is_used_up() -> None:
    rig = opened_rig()
    assert rig.say(Send(5, 0, "Bob", b"", None)) == []
    assert rig.say(Send(5, 0, "bob", b"", None)) == []
    assert rig.heard() == [error(5, Code.BAD_RECEIVER, NAME_ALLOWED), error(5, Code.BAD_CID, "cid 5 after 5")]


def test_while_the_gate_is_shut_messages_are_refused_at_once_and_signals_dropped() -> None:
    rig = opened_rig()
    rig.gate.is_open = False
    assert rig.say(Send(1, 0, "bob", b"", None), Signal(0, 0, "bob", b"")) == []
    assert rig.heard() == [error(1, Code.BUSY, retry_ms=BUSY_RETRY_MS)]
    rig.gate.is_open = True
    assert [type(effect) for effect in rig.say(Send(1, 0, "bob", b"", None))] == [PostEntry]


def test_read_is_posted_for_the_sender_and_copied_to_the_readers_own_devices() -> None:
    rig = opened_rig(devices=2)
    ids = (b"i" * 16, b"j" * 16)
    body = encode_body(Receipt(0, 0, "ann", int(Status.READ), ids, NOW_MS, 0))
    own = encode_body(ReadSync(0, 0, "bob", ids, NOW_MS))
    assert rig.say(Read(3, 0, "bob", ids)) == [
        PostEntry(
            3,
            EntryPost(PostKind.ENTRY, "bob", TAG, 3, Type.RECEIPT, 0, EXPIRES_MS, body),
            EntryPost(PostKind.ENTRY, "ann", b"c" + TAG, 3, Type.READ_SYNC, 0, EXPIRES_MS, own),
        )
    ]
    assert rig.session.unaccepted == 1


def test_a_signal_is_posted_without_an_answer() -> None:
    rig = opened_rig()
    body = encode_body(Signalled(0, 0, "ann", b"typing"))
    assert rig.say(Signal(0, 0, "bob", b"typing")) == [
        PostSignal(SignalPost(PostKind.SIGNAL, "bob", Type.SIGNALLED, body))
    ]
    assert rig.say(Signal(0, 0, "Bob", b"")) == []
    assert rig.heard() == [error(0, Code.BAD_RECEIVER, NAME_ALLOWED)]


# --- answers ------------------------------------------------------------------------------------------------------


def test_all_that_became_durable_together_is_told_in_one_frame() -> None:
    rig = opened_rig()
    rig.say(*(Send(cid, 0, "bob", b"", None) for cid in (1, 2, 3)))
    rig.session.accepted([3, 1])
    assert rig.heard() == [Accepted(3, 0, (3, 1))]
    assert rig.session.unaccepted == 1


def test_more_than_one_frame_may_hold_are_told_in_several() -> None:
    rig = opened_rig(Limits(unaccepted_max=5000))
    cids = list(range(1, ACCEPTED_CIDS_MAX + 2))
    rig.say(*(Send(cid, 0, "bob", b"", None) for cid in cids))
    rig.session.accepted(cids)
    assert rig.heard() == [
        Accepted(ACCEPTED_CIDS_MAX, 0, tuple(cids[:-1])),
        Accepted(ACCEPTED_CIDS_MAX + 1, 0, (cids[-1],)),
    ]


def test_at_the_bound_of_unanswered_messages_nothing_more_is_read_until_one_is_answered() -> None:
    rig = opened_rig(Limits(unaccepted_max=2))
    effects = rig.say(*(Send(cid, 0, "bob", b"", None) for cid in (1, 2, 3)))
    assert [type(effect) for effect in effects] == [PostEntry, PostEntry, PostEntry, HoldReading]
    assert rig.session.is_holding
    rig.session.accepted([1])
    assert rig.session.take_effects() == []
    rig.session.refused(2, Code.BUSY, Processed.NO, 5, NOW_S)
    assert rig.session.take_effects() == [ResumeReading()]
    assert not rig.session.is_holding
    assert rig.heard() == [Accepted(1, 0, (1,)), error(2, Code.BUSY, retry_ms=5)]


def test_when_nobody_knows_whether_it_was_taken_the_session_ends() -> None:
    rig = opened_rig()
    rig.say(Send(1, 0, "bob", b"", None), Send(2, 0, "bob", b"", None))
    rig.session.refused(1, Code.BUSY, Processed.UNKNOWN, 5, NOW_S)
    rig.session.refused(2, Code.BUSY, Processed.UNKNOWN, 5, NOW_S)
    detail = "whether the last messages were accepted is unknown: reconnect and resend"
    assert rig.session.take_effects() == [Close(Code.INTERNAL, detail)]
    assert rig.heard() == [error(0, Code.INTERNAL, detail)]


def test_answers_that_come_behind_the_end_are_dropped() -> None:
    rig = opened_rig()
    rig.say(Send(1, 0, "bob", b"", None), Send(2, 0, "bob", b"", None))
    assert rig.say(Bye(0, 0)) == [Close(None, "bye")]
    rig.session.accepted([1])
    rig.session.refused(2, Code.BUSY, Processed.NO, 5, NOW_S)
    rig.session.push(1, 1, b"")
    rig.session.signal(b"")
    rig.session.reaches(4)
    rig.session.page(Page(1, (), 0))
    rig.session.head_told(3, NOW_MS)
    rig.session.go_away(0, 1)
    assert rig.heard() == []
    assert rig.session.take_effects() == []


# --- receiving ----------------------------------------------------------------------------------------------------


def test_an_acknowledgement_is_passed_on_once() -> None:
    rig = opened_rig()
    rig.session.push(1, 3, frames(1, 3))
    assert rig.heard() == [deliver(1), deliver(2), deliver(3)]
    assert rig.say(Ack(2, 0), Ack(2, 0), Ack(1, 0)) == [Acknowledge(2)]


def test_an_acknowledgement_of_what_was_not_delivered_is_refused_and_the_session_goes_on() -> None:
    rig = opened_rig()
    rig.session.push(1, 1, frames(1, 1))
    rig.heard()
    assert rig.say(Ack(2, 0)) == []
    assert rig.heard() == [error(2, Code.BAD_ACK, "ack 2, delivered up to 1")]
    assert rig.say(Ack(1, 0)) == [Acknowledge(1)]


def test_credit_beyond_the_servers_bound_is_refused_and_credit_up_to_it_is_used() -> None:
    rig = Rig(Limits(credit_max=10))
    rig.log_in(hello(credit=0), Opened(2, 30, GENERATION, 1))
    rig.heard()
    assert rig.say(Credit(13, 0)) == []
    assert rig.heard() == [error(13, Code.BAD_ACK, "credit 13, at most 12 now")]
    assert rig.say(Credit(12, 0)) == [ReadQueue(2, 10)]


def test_a_page_is_written_and_a_queue_that_went_back_ends_the_session() -> None:
    rig = Rig()
    assert rig.log_in(opened=Opened(0, 2, GENERATION, 1)) == [ReadQueue(0, 512)]
    rig.heard()
    rig.session.page(page(1, 1, 2))
    assert rig.session.take_effects() == [ReadQueue(1, 512)]
    rig.session.page(Page(2, (), 0))
    assert rig.session.take_effects() == [Close(Code.STORE_DOWN, QUEUE_ANEW)]
    assert rig.heard() == [deliver(1), error(0, Code.STORE_DOWN, QUEUE_ANEW)]


def test_signals_are_the_first_that_a_slow_reader_does_not_get() -> None:
    rig = opened_rig()
    typing = encode(Signalled(0, 0, "bob", b"typing"))
    rig.session.set_writable(False)
    rig.session.signal(typing)
    rig.session.set_writable(True)
    rig.session.signal(typing)
    assert rig.heard() == [Signalled(0, 0, "bob", b"typing")]


# --- PING ---------------------------------------------------------------------------------------------------------


def test_a_ping_is_answered_with_the_newest_seq_and_repairs_a_position_that_is_behind() -> None:
    rig = opened_rig()
    assert rig.say(Ping(0, 0)) == [AskHead()]
    rig.session.head_told(2, NOW_MS)
    assert rig.heard() == [Pong(2, 0, True, NOW_MS)]
    assert rig.session.take_effects() == [ReadQueue(0, 1024 // 2)]


def test_a_ping_is_answered_while_the_store_is_down() -> None:
    rig = opened_rig()
    rig.say(Ping(0, 0))
    rig.session.head_told(None, NOW_MS)
    assert rig.heard() == [Pong(0, 0, False, NOW_MS)]
    assert rig.session.take_effects() == []


def test_a_newest_seq_behind_what_was_delivered_before_the_question_ends_the_session() -> None:
    rig = opened_rig()
    rig.session.push(1, 2, frames(1, 2))
    rig.say(Ping(0, 0))
    rig.session.head_told(1, NOW_MS)
    assert rig.session.take_effects() == [Close(Code.STORE_DOWN, QUEUE_ANEW)]


def test_what_is_delivered_while_the_newest_seq_is_asked_for_is_not_taken_for_a_queue_that_went_back() -> None:
    rig = opened_rig()
    rig.session.push(1, 2, frames(1, 2))
    rig.say(Ping(0, 0))
    rig.session.push(3, 3, frames(3, 3))
    rig.say(Ping(0, 0))
    rig.session.head_told(2, NOW_MS)
    rig.session.head_told(2, NOW_MS)
    assert rig.session.is_open
    assert rig.session.take_effects() == []


def test_a_queue_that_was_opened_again_in_the_same_generation_is_looked_at() -> None:
    rig = opened_rig()
    rig.session.reopened(Opened(0, 0, GENERATION, 3))
    assert rig.session.devices == 3
    assert rig.session.take_effects() == [ReadQueue(0, 512)]


def test_a_queue_that_was_made_anew_under_a_session_ends_it() -> None:
    rig = opened_rig()
    rig.session.reopened(Opened(0, 0, b"another!", 1))
    assert rig.session.take_effects() == [Close(Code.STORE_DOWN, QUEUE_ANEW)]


# --- the end ------------------------------------------------------------------------------------------------------


def test_goaway_names_the_last_cid_that_was_accepted() -> None:
    rig = opened_rig()
    rig.say(Send(4, 0, "bob", b"", None), Send(9, 0, "bob", b"", None))
    rig.session.accepted([4])
    rig.session.go_away(0, 500)
    assert rig.heard() == [Accepted(4, 0, (4,)), GoAway(4, 0, int(Code.GOING_AWAY), 0, 500)]


def test_a_peer_that_is_silent_is_closed() -> None:
    rig = opened_rig(Limits(keepalive_s=10))
    rig.session.tick(NOW_S + 19)
    assert rig.session.take_effects() == []
    rig.session.tick(NOW_S + 20)
    assert rig.session.take_effects() == [Close(Code.SILENT, "silent for 20 s")]


def test_what_breaks_the_protocol_closes_behind_what_stood_before_it() -> None:
    rig = opened_rig()
    effects = rig.say(Send(1, 0, "bob", b"tea?", None), hello(), Send(2, 0, "bob", b"", None))
    detail = "HELLO is not for you to send in state open"
    assert effects == [PostEntry(1, message(1), None), Close(Code.OUT_OF_TURN, detail)]
