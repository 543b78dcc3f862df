"""The feed: every seq written once, in order, none missing, whatever was lost, late, or read slowly."""

from __future__ import annotations

import pytest

from brokerd.ports import Page, Stored
from chatd.effects import Effect, ReadQueue
from chatd.feed import PAGE_ENTRIES_MAX, Feed
from protocol.errors import Code
from protocol.messages import Deliver, Drained, Gone, Message
from tests.core.feed_rig import Rig
from tests.core.peers import deliver, frames, open_connection, page


def seqs(messages: list[Message]) -> list[int]:
    return [message.ref for message in messages if isinstance(message, Deliver)]


def live(**options: int) -> Rig:
    rig = Rig(**options)
    assert rig.feed.is_live
    assert rig.written() == [Drained(options.get("head", 0), 0)]
    return rig


# --- opening ------------------------------------------------------------------------------------------------------


def test_an_empty_queue_is_drained_at_once_and_live() -> None:
    rig = Rig(acked=4, head=4)
    assert rig.feed.is_live
    assert rig.reads() == []
    assert rig.written() == [Drained(4, 0)]


def test_what_waits_is_read_then_drained_once_then_live() -> None:
    rig = Rig(acked=1, head=3)
    assert rig.reads() == [ReadQueue(1, 100)]
    assert rig.feed.page(page(2, 3, 3))
    assert rig.written() == [deliver(2), deliver(3), Drained(3, 0)]
    assert rig.feed.is_live
    rig.feed.doubt()
    assert rig.feed.page(page(4, 3, 3))
    rig.feed.push(4, 4, frames(4, 4))
    assert rig.written() == [deliver(4)], "not drained a second time"


def test_a_page_holds_no_more_than_the_bound_and_the_next_is_asked_for_behind_it() -> None:
    rig = Rig(head=PAGE_ENTRIES_MAX + 5, credit=PAGE_ENTRIES_MAX + 2)
    assert rig.reads() == [ReadQueue(0, PAGE_ENTRIES_MAX)]
    rig.feed.page(page(1, PAGE_ENTRIES_MAX, PAGE_ENTRIES_MAX + 5))
    assert rig.reads() == [ReadQueue(PAGE_ENTRIES_MAX, 2)], "what credit is left"


def test_drained_comes_when_all_up_to_welcome_was_written_though_newer_ones_wait_for_credit() -> None:
    rig = Rig(head=2, credit=2)
    rig.feed.push(3, 3, frames(3, 3))
    rig.feed.page(page(1, 2, 3))
    assert rig.written() == [deliver(1), deliver(2), Drained(2, 0)]


def test_drained_waits_for_credit_as_the_deliveries_do() -> None:
    rig = Rig(head=2, credit=1)
    rig.feed.page(page(1, 1, 2))
    assert rig.written() == [deliver(1)]
    assert rig.feed.ack(1)
    rig.feed.page(page(2, 2, 2))
    assert rig.written() == [deliver(2), Drained(2, 0)]


# --- pushes -------------------------------------------------------------------------------------------------------


def test_a_push_in_turn_is_written_as_it_came() -> None:
    rig = live()
    rig.feed.push(1, 2, frames(1, 2))
    rig.feed.push(3, 3, frames(3, 3))
    assert rig.written() == [deliver(1), deliver(2), deliver(3)]
    assert rig.reads() == []


def test_a_push_that_was_written_before_is_dropped() -> None:
    rig = live()
    for _ in range(2):
        rig.feed.push(1, 2, frames(1, 2))
    rig.feed.push(1, 1, frames(1, 1))
    assert seqs(rig.written()) == [1, 2]
    assert rig.feed.is_live


def test_a_gap_is_read_and_the_push_behind_it_is_not_written_before_it() -> None:
    rig = live()
    rig.feed.push(3, 3, frames(3, 3))
    assert rig.written() == []
    assert rig.reads() == [ReadQueue(0, 100)]
    rig.feed.page(page(1, 3, 3))
    assert seqs(rig.written()) == [1, 2, 3]
    assert rig.feed.is_live


def test_a_push_that_overlaps_what_was_written_is_read_instead() -> None:
    rig = live()
    rig.feed.push(1, 2, frames(1, 2))
    rig.feed.push(2, 4, frames(2, 4))
    assert rig.reads() == [ReadQueue(2, 98)]
    rig.feed.page(page(3, 4, 4))
    assert seqs(rig.written()) == [1, 2, 3, 4]


def test_a_push_that_arrives_while_a_read_is_on_its_way_is_never_lost() -> None:
    rig = Rig(head=1)
    assert rig.reads() == [ReadQueue(0, 100)]
    rig.feed.push(2, 2, frames(2, 2))
    rig.feed.page(page(1, 1, 1))  # read before 2 was there
    assert rig.reads() == [ReadQueue(1, 99)]
    rig.feed.push(3, 3, frames(3, 3))
    rig.feed.page(page(2, 3, 3))  # read behind 3: the page has it already
    assert seqs(rig.written()) == [1, 2, 3]
    rig.feed.push(4, 4, frames(4, 4))
    assert seqs(rig.written()) == [4], "and live again"


def test_a_push_before_the_session_is_open_shows_that_something_waits() -> None:
    effects: list[Effect] = []
    feed = Feed(open_connection(), effects)
    feed.push(6, 6, frames(6, 6))
    feed.open(5, 5, 10)
    assert effects == [ReadQueue(5, 10)]


def test_a_nudge_reads_the_gap_and_one_that_says_nothing_new_does_nothing() -> None:
    rig = live()
    rig.feed.push(1, 1, frames(1, 1))
    rig.feed.reaches(1)
    assert rig.reads() == []
    rig.feed.reaches(2)
    rig.feed.reaches(3)
    assert rig.reads() == [ReadQueue(1, 99)], "one read at a time"


# --- credit and acknowledgements ----------------------------------------------------------------------------------


def test_a_push_beyond_the_credit_waits_for_the_acknowledgement() -> None:
    rig = live(credit=2)
    rig.feed.push(1, 2, frames(1, 2))
    rig.feed.push(3, 3, frames(3, 3))
    assert seqs(rig.written()) == [1, 2]
    assert rig.reads() == []
    assert rig.feed.ack(1)
    assert rig.reads() == [ReadQueue(2, 1)]
    rig.feed.page(page(3, 3, 3))
    assert seqs(rig.written()) == [3]


def test_a_push_of_which_the_credit_covers_a_part_is_read_up_to_there() -> None:
    rig = live(credit=2)
    rig.feed.push(1, 4, frames(1, 4))
    assert rig.written() == []
    assert rig.reads() == [ReadQueue(0, 2)]


def test_credit_is_absolute_and_never_taken_back() -> None:
    rig = live(credit=0)
    rig.feed.push(1, 1, frames(1, 1))
    assert rig.reads() == []
    rig.feed.grant(3)
    rig.feed.grant(2)
    assert rig.reads() == [ReadQueue(0, 3)]


def test_an_acknowledgement_is_news_once() -> None:
    rig = live()
    rig.feed.push(1, 3, frames(1, 3))
    assert rig.feed.ack(2)
    assert not rig.feed.ack(2)
    assert not rig.feed.ack(1)
    assert rig.feed.is_behind
    assert rig.feed.ack(3)
    assert not rig.feed.is_behind


# --- slow readers -------------------------------------------------------------------------------------------------


def test_a_slow_reader_gets_nothing_and_reads_the_rest_when_it_caught_up() -> None:
    rig = live()
    rig.feed.set_writable(False)
    rig.feed.push(1, 2, frames(1, 2))
    rig.feed.push(3, 3, frames(3, 3))
    assert rig.written() == []
    assert rig.reads() == []
    rig.feed.set_writable(True)
    assert rig.reads() == [ReadQueue(0, 100)]
    rig.feed.page(page(1, 3, 3))
    assert seqs(rig.written()) == [1, 2, 3]
    assert rig.feed.is_live


def test_a_page_that_meets_a_slow_reader_is_written_and_no_other_is_asked_for() -> None:
    rig = Rig(head=4)
    rig.reads()
    rig.feed.set_writable(False)
    rig.feed.page(page(1, 2, 4))
    assert seqs(rig.written()) == [1, 2]
    assert rig.reads() == []
    rig.feed.set_writable(True)
    assert rig.reads() == [ReadQueue(2, 98)]


def test_a_reader_that_was_slow_for_a_moment_and_missed_nothing_is_live_again() -> None:
    rig = live()
    rig.feed.set_writable(False)
    assert not rig.feed.is_live
    rig.feed.set_writable(True)
    assert rig.feed.is_live
    assert rig.reads() == []


# --- doubt --------------------------------------------------------------------------------------------------------


def test_doubt_reads_although_nothing_is_known_to_be_missing() -> None:
    rig = live()
    rig.feed.doubt()
    assert not rig.feed.is_live
    assert rig.reads() == [ReadQueue(0, 100)]
    rig.feed.page(page(1, 1, 1))
    assert seqs(rig.written()) == [1]
    assert rig.feed.is_live


def test_doubt_while_a_read_is_on_its_way_asks_for_one_more() -> None:
    rig = Rig(head=1)
    rig.reads()
    rig.feed.doubt()
    rig.feed.page(page(1, 1, 1))
    assert rig.reads() == [ReadQueue(1, 99)]
    rig.feed.page(page(2, 1, 1))
    assert rig.reads() == []
    assert rig.feed.is_live


def test_doubt_without_credit_waits_for_credit() -> None:
    rig = live(credit=0)
    rig.feed.doubt()
    assert rig.reads() == []
    rig.feed.grant(1)
    assert rig.reads() == [ReadQueue(0, 1)]


def test_a_read_that_failed_is_asked_for_again() -> None:
    rig = Rig(head=2)
    rig.reads()
    rig.feed.retry()
    assert rig.reads() == [ReadQueue(0, 100)]
    rig.feed.page(page(1, 2, 2))
    assert rig.feed.is_live


# --- tombstones, trims, and a store that went back ----------------------------------------------------------------


def test_a_tombstone_is_told_as_gone_with_its_reason() -> None:
    rig = Rig(head=3)
    dead = Stored(0, 0, 0, b"%d" % Code.TTL_PASSED)
    one, _, three = page(1, 3, 3).entries
    rig.feed.page(Page(1, [one, dead, three], 3))
    assert rig.written() == [deliver(1), Gone(2, 0, 2, Code.TTL_PASSED), deliver(3), Drained(3, 0)]


def test_entries_that_were_trimmed_are_told_as_gone_in_one() -> None:
    rig = Rig(acked=2, head=9)
    rig.feed.page(page(8, 9, 9))
    assert rig.written() == [Gone(3, 0, 7, Code.REMOVED), deliver(8), deliver(9), Drained(9, 0)]


def test_a_queue_that_is_all_trimmed_is_told_as_gone_and_drained() -> None:
    rig = Rig(acked=2, head=9)
    rig.feed.page(Page(10, (), 9))
    assert rig.written() == [Gone(3, 0, 9, Code.REMOVED), Drained(9, 0)]
    assert rig.feed.is_live


@pytest.mark.parametrize("head", [0, 1])
def test_a_store_that_went_back_is_found_out(head: int) -> None:
    rig = Rig(head=2)
    assert not rig.feed.page(Page(head + 1, (), head))
    assert rig.written() == []


def test_a_push_that_the_read_could_not_see_yet_is_not_taken_for_a_store_that_went_back() -> None:
    rig = Rig(head=2)
    rig.feed.push(3, 3, frames(3, 3))
    assert rig.feed.page(page(1, 2, 2))
