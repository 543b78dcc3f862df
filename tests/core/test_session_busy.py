"""A session that refused something with BUSY: what comes again, in which order, and what each post says of the one before."""

from __future__ import annotations

import itertools

from chatd.brake import IN_FLIGHT_MAX, SHARE_MIN
from chatd.effects import Close, Effect, HoldReading, PostEntry, ResumeReading
from chatd.full import HINT_S
from chatd.refusals import ORDER_S_MAX, REFUSED_MAX
from chatd.session import RECEIVERS_MAX, REFUSED_MUCH
from protocol.errors import Code
from protocol.messages import Ack, Send
from protocol.wire import UNACCEPTED_MAX, Limits, Processed
from tests.core.peers import NOW_S, frames
from tests.core.session_rig import error, opened_rig


def posted(effects: list[Effect]) -> list[tuple[int, int]]:
    """cid and prev of what is posted."""
    return [(effect.cid, effect.post.prev) for effect in effects if isinstance(effect, PostEntry)]


def test_what_was_refused_is_not_passed_by_a_later_cid_until_it_came_again() -> None:
    rig = opened_rig()
    rig.gate.is_open = False
    rig.say(Send(1, 0, "bob", b"", None), Send(2, 0, "bob", b"", None))
    rig.gate.is_open = True
    assert rig.say(Send(2, 0, "bob", b"", None), Send(3, 0, "cat", b"", None), after_s=1.0) == []
    again = [Send(cid, 0, "bob", b"", None) for cid in (1, 2, 3, 4)]
    assert [cid for cid, _ in posted(rig.say(*again, after_s=1.0))] == [1, 2, 3, 4]


def test_what_the_postbox_refused_is_not_passed_by_what_was_written_behind_it() -> None:
    rig = opened_rig()
    rig.say(*(Send(cid, 0, "bob", b"", None) for cid in (1, 2, 3)))
    for cid in (2, 1):  # shard by shard
        rig.session.refused(cid, Code.BUSY, Processed.NO, 1000, NOW_S + 3)
    assert rig.say(Send(4, 0, "bob", b"", None), after_s=3.1) == []
    again = [Send(cid, 0, "bob", b"", None) for cid in (1, 2, 4)]
    assert [cid for cid, _ in posted(rig.say(*again, after_s=4.0))] == [1, 2, 4]


def test_who_gave_a_refused_one_up_goes_on_after_a_while() -> None:
    rig = opened_rig()
    rig.gate.is_open = False
    rig.say(Send(1, 0, "bob", b"", None))
    rig.gate.is_open = True
    assert rig.say(Send(2, 0, "bob", b"", None), after_s=1.0) == []
    assert posted(rig.say(Send(3, 0, "bob", b"", None), after_s=ORDER_S_MAX)) == [(3, 2)]


def test_only_a_cid_that_was_refused_for_now_may_come_again_and_only_once() -> None:
    rig = opened_rig()
    rig.say(Send(1, 0, "bob", b"", None), Send(2, 0, "bob", b"", None))
    rig.session.refused(1, Code.BUSY, Processed.NO, 5, NOW_S)
    rig.heard()
    effects = rig.say(*(Send(cid, 0, "bob", b"", None) for cid in (1, 1, 2)), after_s=1.0)
    assert [cid for cid, _ in posted(effects)] == [1]
    assert rig.heard() == [error(cid, Code.BAD_CID, f"cid {cid} after 2") for cid in (1, 2)]


def test_a_post_says_which_one_before_it_may_not_be_taken() -> None:
    rig = opened_rig()
    sends = [Send(cid, 0, to, b"", None) for cid, to in ((1, "bob"), (2, "cat"), (3, "bob"))]
    assert posted(rig.say(*sends)) == [(1, 0), (2, 0), (3, 1)]
    rig.session.accepted([1, 2, 3])
    rig.session.take_effects()
    assert posted(rig.say(Send(4, 0, "bob", b"", None), Send(5, 0, "bob", b"", None))) == [(4, 0), (5, 4)]
    rig.session.refused(4, Code.BUSY, Processed.NO, 5, NOW_S)
    assert posted(rig.say(Send(4, 0, "bob", b"", None))) == [(4, 3)], "whatever lies before it stays open"
    assert posted(rig.say(Send(6, 0, "bob", b"", None), Send(7, 0, "cat", b"", None))) == [(6, 5), (7, 0)]


def test_what_was_refused_at_the_gate_may_not_be_taken_for_a_repeat_either_nor_may_its_copy() -> None:
    rig = opened_rig(devices=2)
    rig.gate.is_open = False
    rig.say(Send(1, 0, "bob", b"", None))
    rig.gate.is_open = True
    [effect] = rig.say(Send(2, 0, "bob", b"", None), after_s=ORDER_S_MAX)
    assert isinstance(effect, PostEntry)
    assert effect.copy is not None
    assert (effect.post.prev, effect.copy.prev) == (1, 1)


def test_receivers_that_are_remembered_are_bounded_by_waiting_for_the_answers() -> None:
    rig = opened_rig(Limits(unaccepted_max=10**6))
    cids = range(1, RECEIVERS_MAX + 1)
    effects = rig.say(*(Send(cid, 0, f"user{cid}", b"", None) for cid in cids))
    assert effects[-1] == HoldReading()
    rig.session.accepted(cids[:-1])
    assert rig.session.take_effects() == []
    rig.session.accepted(cids[-1:])
    assert rig.session.take_effects() == [ResumeReading()]


def test_who_goes_on_in_spite_of_every_refusal_is_closed() -> None:
    rig = opened_rig()
    rig.gate.is_open = False
    effects = rig.say(*(Send(cid, 0, "bob", b"", None) for cid in range(1, REFUSED_MAX + 3)))
    assert effects == [Close(Code.INTERNAL, REFUSED_MUCH)]


def test_when_the_node_has_much_in_flight_only_who_has_little_is_read_on() -> None:
    rig = opened_rig()
    rig.gate.in_flight = IN_FLIGHT_MAX
    sends = [Send(cid, 0, "bob", b"", None) for cid in range(1, SHARE_MIN + 1)]
    assert HoldReading() not in rig.say(*sends[:-1])
    assert HoldReading() in rig.say(sends[-1])
    assert rig.gate.in_flight == IN_FLIGHT_MAX + SHARE_MIN
    rig.session.accepted([1])
    assert ResumeReading() in rig.session.take_effects()
    rig.session.accepted(list(range(2, SHARE_MIN + 1)))
    assert rig.gate.in_flight == IN_FLIGHT_MAX


def test_who_is_not_read_is_not_taken_for_silent() -> None:
    rig = opened_rig()
    rig.gate.in_flight = IN_FLIGHT_MAX
    rig.say(*[Send(cid, 0, "bob", b"", None) for cid in range(1, SHARE_MIN + 1)])
    late_s = NOW_S + 10 * Limits().keepalive_s
    rig.session.tick(late_s)
    assert rig.session.is_open
    rig.session.accepted(list(range(1, SHARE_MIN + 1)))
    rig.session.tick(late_s + 10 * Limits().keepalive_s)
    assert not rig.session.is_open


def test_a_receiver_whose_queue_was_full_a_moment_ago_is_refused_at_once_and_then_tried_again() -> None:
    rig = opened_rig()
    cids = itertools.count(1)
    for _ in range(
        UNACCEPTED_MAX
    ):  # so many may have been taken by an earlier session: they are never refused for this
        rig.session.full.note("bob", NOW_S)
        rig.say(Send(cid := next(cids), 0, "bob", b"", None))
        rig.session.accepted([cid])
    rig.session.take_effects()
    rig.heard()
    full, other, again = (next(cids) for _ in range(3))
    [effect] = rig.say(Send(full, 0, "bob", b"", None), Send(other, 0, "cat", b"", None))
    assert isinstance(effect, PostEntry)
    assert effect.cid == other
    assert rig.heard() == [error(full, Code.QUEUE_FULL)]
    later = posted(rig.say(Send(again, 0, "bob", b"", None), after_s=HINT_S))
    assert later == [(again, full)], (
        "the refusal may be lost, and the refused one come again: the later one leaves it open"
    )


def test_who_does_not_read_its_own_queue_is_refused_before_there_is_no_room_for_what_must_be_told() -> None:
    rig = opened_rig(Limits(unaccepted_max=2, unread_max=10))
    for cid in (1, 2):  # so many may have been taken by an earlier session
        rig.say(Send(cid, 0, "bob", b"", None))
        rig.session.accepted([cid])
    rig.session.push(1, 10, frames(1, 10))
    rig.heard()
    assert posted(rig.say(Send(3, 0, "bob", b"", None))) == []
    assert rig.heard() == [error(3, Code.QUEUE_FULL)]
    assert posted(rig.say(Ack(1, 0), Send(4, 0, "bob", b"", None))) == [(4, 3)]
