"""What every SentQueue promises (brokerd/ports.py), on each adapter of store_factories."""

from __future__ import annotations

import pytest

from brokerd.links.gaps import GAPS_MAX
from brokerd.ports import FULL, NO_USER, REPEAT, Ack, Append, Owed, SentQueue, Stored
from protocol.wire import GENERATION_BYTES, Flag, Type
from tests.contracts.letters import CAT, DAY, GEN, NOW, ack, bodies, floor, letter, letters, results, save
from tests.contracts.store_factories import RETENTION_S, Bounds

# --- append


async def test_seqs_are_one_two_three_over_batches_and_trims(bob: SentQueue) -> None:
    assert await results(bob, letters(1, 3)) == [1, 2, 3]
    await ack(bob, "phone", 3)
    assert await results(bob, letters(4, 5)) == [4, 5]
    assert await bob.heads(["bob", "nobody"]) == [5, 0]


async def test_each_user_of_a_batch_has_seqs_and_a_head_of_its_own(bob: SentQueue) -> None:
    await bob.create_user("cat", GEN, NOW)
    await save(bob, letters(1, 2), "cat")
    answers = await bob.append([Append("cat", letters(3, 4)), Append("bob", letters(1, 1)), Append("dan", ())], NOW)
    assert [(list(answer.results), answer.head) for answer in answers] == [([3, 4], 4), ([1], 1), ([], 0)]


async def test_a_large_batch_is_saved_whole_and_in_order(bob: SentQueue) -> None:
    many = [letter(1, b"%d" % n, origin=b"origin%3d" % n) for n in range(2_500)]
    assert await results(bob, many) == list(range(1, 2_501))
    assert await results(bob, many) == [REPEAT] * 2_500
    assert await bodies(bob) == [b"%d" % n for n in range(2_500)]


async def test_a_repeat_is_not_stored_again_and_its_first_result_stands(bob: SentQueue) -> None:
    await save(bob, letters(1, 3))
    answer = await save(bob, letters(2, 4))
    assert (list(answer.results), answer.head) == ([REPEAT, REPEAT, 4], 4)
    assert await bodies(bob) == [b"letter 1", b"letter 2", b"letter 3", b"letter 4"]


async def test_a_repeat_within_one_batch_is_found_too(bob: SentQueue) -> None:
    assert await results(bob, [letter(7), letter(7), letter(8)]) == [1, REPEAT, 2]


async def test_what_was_refused_before_it_came_here_may_come_later_once(bob: SentQueue) -> None:
    """cids 2, 3 and 5 were posted and not taken; each entry says what its poster did not know to be taken."""
    await save(bob, [letter(1)])
    assert await results(bob, [letter(4, prev=3), letter(6, prev=5)]) == [2, 3]
    assert await results(bob, [letter(1), letter(4), letter(6)]) == [REPEAT] * 3
    assert await results(bob, [letter(2), letter(3, prev=2), letter(5)]) == [4, 5, 6]
    assert await results(bob, letters(1, 6)) == [REPEAT] * 6
    assert await results(bob, [letter(7)]) == [7]


async def test_a_gap_that_is_filled_stays_open_below_only_as_far_as_its_poster_says(bob: SentQueue) -> None:
    await save(bob, [letter(9, prev=8)])
    assert await results(bob, [letter(5, prev=3), letter(4), letter(6), letter(7), letter(8)]) == [2, REPEAT, 3, 4, 5]
    assert await results(bob, [letter(2, prev=1), letter(3), letter(1)]) == [6, 7, 8]


async def test_a_gap_is_of_one_origin_and_outlives_the_month(bob: SentQueue) -> None:
    await save(bob, [letter(3, prev=2), letter(3, origin=CAT)])
    later = NOW + 31 * DAY
    assert await results(bob, [letter(4)], now_ms=later) == [3]
    assert await results(bob, [letter(2, origin=CAT), letter(2), letter(2)], now_ms=later) == [REPEAT, 4, REPEAT]


async def test_a_cid_known_to_be_taken_opens_nothing(bob: SentQueue) -> None:
    assert await results(bob, [letter(1), letter(2, prev=1), letter(9), letter(8)]) == [1, 2, 3, REPEAT]


@pytest.mark.parametrize("bounds", [Bounds(count_max=3)])
async def test_what_fills_a_gap_and_finds_the_queue_full_is_refused_once_and_for_all(bob: SentQueue) -> None:
    await save(bob, [letter(9, prev=8), letter(10), letter(11)])
    assert await results(bob, [letter(7, prev=6)]) == [FULL]
    await ack(bob, "phone", 3)
    assert await results(bob, [letter(7), letter(8), letter(6)]) == [FULL, 4, 5]


async def test_gaps_are_bounded_and_the_oldest_closes(bob: SentQueue) -> None:
    last = GAPS_MAX + 2
    await save(bob, [letter(2 * n, prev=2 * n - 1) for n in range(1, last + 1)])
    assert await results(bob, [letter(1), letter(3), letter(5)]) == [REPEAT, REPEAT, last + 1]


async def test_origins_are_numbered_apart(bob: SentQueue) -> None:
    assert await results(bob, [letter(5), letter(5, origin=CAT), letter(4, origin=CAT)]) == [1, 2, REPEAT]


async def test_numbers_may_be_as_large_as_the_wire_allows(bob: SentQueue) -> None:
    top = 2**53 - 1
    assert await results(bob, [letter(top - 1), letter(top)]) == [1, 2]
    assert await results(bob, [letter(top - 1), letter(top)]) == [REPEAT, REPEAT]


async def test_an_exact_key_is_taken_once_in_any_order(bob: SentQueue) -> None:
    keyed = [letter(0, origin=key * 16) for key in (b"z", b"a", b"m")]
    assert await results(bob, keyed) == [1, 2, 3]
    assert await results(bob, [keyed[1], letter(0, origin=b"b" * 16), keyed[0]]) == [REPEAT, 4, REPEAT]


async def test_a_repeat_is_known_after_it_was_trimmed_and_after_a_month_turned(bob: SentQueue) -> None:
    await save(bob, [*letters(1, 2), letter(0, origin=b"k" * 16)])
    await ack(bob, "phone", 3)
    later = NOW + 29 * DAY
    assert await results(bob, [letter(2), letter(0, origin=b"k" * 16), letter(3)], now_ms=later) == [REPEAT, REPEAT, 4]
    assert await results(bob, [letter(3)], now_ms=later + 29 * DAY) == [REPEAT]


async def test_a_repeat_is_known_though_the_clock_stepped_back_over_the_end_of_a_month(bob: SentQueue) -> None:
    end = (NOW // (30 * DAY) + 1) * 30 * DAY
    assert await results(bob, [letter(1)], now_ms=end - DAY) == [1]
    assert await results(bob, [letter(2), letter(4, prev=2)], now_ms=end + 1) == [2, 3]
    assert await results(bob, [letter(2), letter(4), letter(5)], now_ms=end - 1) == [REPEAT, REPEAT, 4]
    assert await results(bob, [letter(2), letter(5)], now_ms=end + 1) == [REPEAT, REPEAT]
    assert await results(bob, [letter(5)], now_ms=end + 29 * DAY) == [REPEAT]


async def test_nothing_is_kept_for_a_ghost(sent_queue: SentQueue) -> None:
    answer = await save(sent_queue, letters(1, 2), "ghost")
    assert (list(answer.results), answer.head) == ([NO_USER, NO_USER], 0)
    assert not await sent_queue.has_user("ghost")
    assert await sent_queue.status("ghost") is None


@pytest.mark.parametrize("bounds", [Bounds(count_max=3)])
async def test_what_finds_the_queue_full_is_refused_and_so_is_its_repeat(bob: SentQueue) -> None:
    assert await results(bob, letters(1, 5)) == [1, 2, 3, FULL, FULL]
    await ack(bob, "phone", 3)
    assert await results(bob, letters(2, 6)) == [REPEAT, REPEAT, FULL, FULL, 4], (
        "there is room now, but they were refused"
    )
    assert await bodies(bob, 3) == [b"letter 6"]


@pytest.mark.parametrize("bounds", [Bounds(count_max=1)])
async def test_an_exact_key_that_was_refused_stays_refused(bob: SentQueue) -> None:
    keyed = [letter(0, origin=b"k" * 16), letter(0, origin=b"l" * 16)]
    assert await results(bob, [*keyed, keyed[1]]) == [1, FULL, FULL]
    await ack(bob, "phone", 1)
    assert await results(bob, keyed) == [REPEAT, FULL]


@pytest.mark.parametrize("bounds", [Bounds(bytes_max=1000)])
async def test_a_queue_is_bounded_in_bytes(bob: SentQueue) -> None:
    assert await results(bob, [letter(cid, bytes(400)) for cid in (1, 2, 3)]) == [1, 2, FULL]
    await ack(bob, "phone", 2)
    assert await results(bob, [letter(4, bytes(900))]) == [3]


@pytest.mark.parametrize("bounds", [Bounds(count_max=2)])
async def test_receipts_find_room_up_to_twice_the_bound(bob: SentQueue) -> None:
    receipts = [letter(0, origin=b"%16d" % n, type=Type.RECEIPT) for n in range(3)]
    assert await results(bob, [*letters(1, 2), *receipts]) == [1, 2, 3, 4, FULL]


@pytest.mark.parametrize("type_", [Type.SENT, Type.READ_SYNC])
async def test_copies_are_kept_only_for_a_user_with_other_devices(bob: SentQueue, type_: Type) -> None:
    assert await results(bob, [letter(1, type=type_)]) == [REPEAT]
    await bob.open("bob", "tablet", GEN, NOW)
    assert await results(bob, [letter(2, type=type_)]) == [1]


# --- devices and generations


async def test_a_device_stands_where_it_acknowledged_and_the_generation_stays(bob: SentQueue) -> None:
    await bob.open("bob", "tablet", b"2" * 8, NOW)
    await save(bob, letters(1, 4))
    await ack(bob, "phone", 3)
    opened = await bob.open("bob", "phone", b"3" * 8, NOW)
    assert opened == (3, 4, GEN, 2)


async def test_a_queue_that_was_made_anew_has_another_generation(bob: SentQueue) -> None:
    await save(bob, letters(1, 2))
    assert await bob.delete_user("bob")
    assert not await bob.delete_user("bob")
    assert await bob.open("bob", "phone", b"2" * 8, NOW) == (0, 0, b"2" * 8, 1)
    assert await results(bob, letters(1, 1)) == [1], "the dedupe was forgotten with the user"


async def test_a_user_is_made_once_and_keeps_what_comes_before_the_first_login(sent_queue: SentQueue) -> None:
    assert await sent_queue.create_user("bob", GEN, NOW)
    assert not await sent_queue.create_user("bob", b"2" * 8, NOW)
    assert await sent_queue.has_user("bob")
    await save(sent_queue, letters(1, 2))
    assert await sent_queue.open("bob", "phone", b"3" * 8, NOW) == (0, 2, GEN, 1)


# --- acknowledge


async def test_an_entry_leaves_only_when_every_known_device_has_processed_it(bob: SentQueue) -> None:
    await bob.open("bob", "tablet", GEN, NOW)
    await save(bob, letters(1, 3))
    await ack(bob, "phone", 3)
    assert await floor(bob) == 0
    await ack(bob, "tablet", 2)
    assert await floor(bob) == 2
    assert await bodies(bob) == [b"letter 3"]


async def test_a_cursor_never_goes_back_nor_over_the_head(bob: SentQueue) -> None:
    await save(bob, letters(1, 4))
    await bob.open("bob", "tablet", GEN, NOW)
    await ack(bob, "phone", 3)
    await ack(bob, "phone", 1)
    await ack(bob, "tablet", 999)
    status = await bob.status("bob")
    assert status is not None
    assert status.cursors == {"phone": 3, "tablet": 4}
    assert (status.floor, status.head) == (3, 4)


async def test_an_ack_of_a_device_that_nobody_knows_changes_nothing(bob: SentQueue) -> None:
    await save(bob, letters(1, 2, flags=Flag.RECEIPT))
    assert await ack(bob, "stranger", 2) == []
    assert await ack(bob, "phone", 1, user="ghost") == []
    assert await bodies(bob) == [b"letter 1", b"letter 2"]


async def test_a_device_that_stayed_away_for_the_retention_holds_nothing_back(bob: SentQueue) -> None:
    away_ms = int(RETENTION_S * 1000) + 1
    await bob.open("bob", "tablet", GEN, NOW + away_ms // 2)
    await save(bob, letters(1, 2))
    await ack(bob, "tablet", 2)
    assert await floor(bob) == 0
    opened = await bob.open("bob", "tablet", GEN, NOW + away_ms)
    assert (opened.cursor, opened.devices) == (2, 1)
    assert await floor(bob) == 2
    assert await ack(bob, "phone", 2) == [], "it is unknown now"


async def test_a_device_that_comes_back_after_the_retention_goes_on_where_it_was(bob: SentQueue) -> None:
    away_ms = int(RETENTION_S * 1000) + 1
    await bob.open("bob", "tablet", GEN, NOW + away_ms // 2)
    await save(bob, letters(1, 3))
    await ack(bob, "phone", 2)
    assert await bob.open("bob", "phone", GEN, NOW + away_ms) == (2, 3, GEN, 2)
    assert await floor(bob) == 0


# --- receipts


async def test_a_receipt_is_owed_until_it_is_settled_and_nothing_leaves_before(bob: SentQueue) -> None:
    await save(bob, [letter(1, b"a", flags=Flag.RECEIPT), letter(2, b"b"), letter(3, b"c", flags=Flag.RECEIPT)])
    owed = [Owed(1, Flag.RECEIPT, b"a"), Owed(3, Flag.RECEIPT, b"c")]
    assert await ack(bob, "phone", 3) == owed
    assert await ack(bob, "phone", 3) == owed, "the broker died before it was settled: it is still owed"
    assert await bodies(bob) == [b"a", b"b", b"c"]
    assert await ack(bob, "phone", 3, settled=3) == []
    assert await bodies(bob) == []
    assert await ack(bob, "phone", 3) == []


async def test_what_is_owed_names_the_generation_that_its_seqs_count_in(bob: SentQueue) -> None:
    await save(bob, letters(1, 1, flags=Flag.RECEIPT))
    [answer] = await bob.acknowledge([Ack("bob", "phone", 1, 0)], NOW)
    assert (len(answer.owed), answer.generation) == (1, GEN)


async def test_an_ack_that_waited_while_the_queue_was_made_anew_moves_nothing(bob: SentQueue) -> None:
    await bob.delete_user("bob")
    anew = b"2" * GENERATION_BYTES
    await bob.open("bob", "phone", anew, NOW)
    await save(bob, letters(1, 3, flags=Flag.RECEIPT))
    old = [Ack("bob", "phone", 3, 3, GEN), Ack("bob", "", 0, 3, GEN)]
    assert [list(answer.owed) for answer in await bob.acknowledge(old, NOW)] == [[], []]
    assert (await bob.open("bob", "phone", GEN, NOW)).cursor == 0
    assert await bodies(bob) == [b"letter 1", b"letter 2", b"letter 3"]
    [answer] = await bob.acknowledge([Ack("bob", "phone", 2, 0, anew)], NOW)
    assert [item.seq for item in answer.owed] == [1, 2]
    [answer] = await bob.acknowledge([Ack("bob", "phone", 3, 2)], NOW)
    assert [item.seq for item in answer.owed] == [3], "an older daemon says no generation"


async def test_what_was_settled_in_part_is_owed_from_there_on(bob: SentQueue) -> None:
    await save(bob, letters(1, 4, flags=Flag.RECEIPT))
    assert [item.seq for item in await ack(bob, "phone", 4, settled=0)] == [1, 2, 3, 4]
    assert [item.seq for item in await ack(bob, "phone", 4, settled=2)] == [3, 4]
    assert [item.seq for item in await ack(bob, "phone", 2)] in ([], [3, 4])
    assert await ack(bob, "phone", 4, settled=4) == []
    assert await floor(bob) == 4


async def test_only_the_first_device_to_have_a_message_makes_its_receipt_due(bob: SentQueue) -> None:
    await bob.open("bob", "tablet", GEN, NOW)
    await save(bob, letters(1, 3, flags=Flag.RECEIPT))
    assert [item.seq for item in await ack(bob, "phone", 2)] == [1, 2]
    assert await ack(bob, "phone", 2, settled=2) == []
    assert [item.seq for item in await ack(bob, "tablet", 3)] == [3]
    assert await ack(bob, "tablet", 3, settled=3) == []
    assert await floor(bob) == 2


async def test_only_messages_that_ask_for_a_receipt_are_owed_one(bob: SentQueue) -> None:
    await save(bob, [letter(1), letter(2, type=Type.RECEIPT, flags=Flag.RECEIPT), letter(3, flags=Flag.READ_RECEIPT)])
    assert await ack(bob, "phone", 3) == []
    assert await floor(bob) == 3


async def test_many_receipts_are_owed_in_pieces_until_none_is_left(bob: SentQueue) -> None:
    await save(bob, letters(1, 600, flags=Flag.RECEIPT))
    told: list[int] = []
    owed = await ack(bob, "phone", 600)
    while owed:
        told += [item.seq for item in owed]
        owed = await ack(bob, "phone", 600, settled=told[-1])
    assert told == list(range(1, 601))
    assert await floor(bob) == 600


async def test_acks_of_a_batch_are_answered_in_their_order(bob: SentQueue) -> None:
    await bob.open("cat", "phone", GEN, NOW)
    await save(bob, letters(1, 1, flags=Flag.RECEIPT))
    await save(bob, letters(1, 2, flags=Flag.RECEIPT), "cat")
    acks = [Ack("cat", "phone", 2, 0), Ack("ghost", "phone", 1, 0), Ack("bob", "phone", 1, 0)]
    assert [[item.seq for item in answer.owed] for answer in await bob.acknowledge(acks, NOW)] == [[1, 2], [], [1]]


# --- read


async def test_a_page_is_bounded_in_count_and_bytes_but_never_empty_when_there_is_something(bob: SentQueue) -> None:
    await save(bob, [letter(cid, bytes(100)) for cid in range(1, 201)])
    page = await bob.read("bob", 10, 150, 10**6)
    assert (page.first, len(page.entries), page.head) == (11, 150, 200)
    page = await bob.read("bob", 0, 150, 1_000)
    assert (page.first, len(page.entries)) == (1, 10)
    page = await bob.read("bob", 199, 150, 1)
    assert (page.first, len(page.entries)) == (200, 1)
    page = await bob.read("bob", 200, 150, 1)
    assert (page.first, page.entries, page.head) == (201, [], 200) or not page.entries


async def test_an_entry_is_read_back_as_it_was_written(bob: SentQueue) -> None:
    body = bytes(range(256))
    await save(bob, [letter(1, body, flags=Flag.RECEIPT | Flag.READ_RECEIPT, expires_ms=NOW + 1)])
    assert list((await bob.read("bob", 0, 10, 10)).entries) == [Stored(Type.DELIVER, 3, NOW + 1, body)]


async def test_a_page_behind_a_trimmed_place_says_where_it_begins(bob: SentQueue) -> None:
    await save(bob, letters(1, 3))
    await ack(bob, "phone", 2)
    page = await bob.read("bob", 0, 10, 1000)
    assert (page.first, len(page.entries), page.head) == (3, 1, 3)


# --- what people see


async def test_trouble_is_kept_with_its_attempts(bob: SentQueue) -> None:
    await bob.note_trouble("bob", "phone", 402, NOW)
    await bob.note_trouble("bob", "phone", 403, NOW + 1)
    status = await bob.status("bob")
    assert status is not None
    assert status.troubles == {"phone": f"403 {NOW + 1} 2"}


async def test_status_shows_the_queue(bob: SentQueue) -> None:
    await save(bob, [letter(cid, bytes(100)) for cid in (1, 2, 3, 4)])
    await ack(bob, "phone", 2)
    status = await bob.status("bob")
    assert status is not None
    assert (status.floor, status.head, status.bytes, status.cursors, status.troubles) == (2, 4, 200, {"phone": 2}, {})
    opened = await bob.open("bob", "tablet", b"fresh123", NOW + 5)
    status = await bob.status("bob")
    assert status is not None
    assert (status.seen_ms, status.generation) == ({"phone": NOW, "tablet": NOW + 5}, opened.generation.hex())
