"""What every SentQueue promises about expiry (brokerd/ports.py), on each adapter of store_factories."""

from __future__ import annotations

from brokerd.ports import EXPIRING, Owed, SentQueue
from protocol.wire import Flag, Type
from tests.contracts.letters import GEN, GONE, NOW, ack, floor, letter, letters, save


async def test_what_expired_is_told_then_buried_and_its_seq_stays(bob: SentQueue) -> None:
    await save(bob, [letter(1, b"a"), letter(2, b"b", expires_ms=NOW + 5, flags=Flag.RECEIPT), letter(3, b"c")])
    assert await bob.due(NOW + 4, 10) == []
    assert await bob.due(NOW + 5, 10) == ["bob"]
    assert await bob.expired("bob", NOW + 4, 10) == []
    assert await bob.expired("bob", NOW + 5, 10) == [Owed(2, Flag.RECEIPT, b"b")]
    await bob.bury("bob", [2], GONE, NOW + 5)
    page = await bob.read("bob", 0, 10, 1000)
    assert [(entry.type, entry.flags, entry.body) for entry in page.entries] == [
        (Type.DELIVER, 0, b"a"), (0, 0, b"417"), (Type.DELIVER, 0, b"c"),
    ]  # fmt: skip
    assert await bob.due(NOW + 10**9, 10) == []
    assert await bob.expired("bob", NOW + 10**9, 10) == []


async def test_tombstones_at_the_front_are_trimmed_and_a_late_device_is_told(bob: SentQueue) -> None:
    await save(bob, [*letters(1, 2, expires_ms=NOW + 1, flags=Flag.RECEIPT), *letters(3, 3, flags=Flag.RECEIPT)])
    await bob.bury("bob", [1, 2], GONE, NOW + 1)
    page = await bob.read("bob", 0, 10, 1000)
    assert (page.first, len(page.entries), page.head) == (3, 1, 3)
    assert [item.seq for item in await ack(bob, "phone", 3)] == [3], "what expired is not DELIVERED as well"
    assert await ack(bob, "phone", 3, settled=3) == []
    assert await floor(bob) == 3


async def test_burying_twice_or_what_is_gone_changes_nothing(bob: SentQueue) -> None:
    await save(bob, letters(1, 3))
    for _ in range(2):
        await bob.bury("bob", [2, 99], GONE, NOW)
    await bob.bury("nobody", [1], GONE, NOW)
    assert [entry.type for entry in (await bob.read("bob", 0, 10, 1000)).entries] == [Type.DELIVER, 0, Type.DELIVER]
    assert not await bob.has_user("nobody")


async def test_bodies_of_tombstones_are_freed(bob: SentQueue) -> None:
    await save(bob, [letter(1, b"a"), letter(2, bytes(5_000))])
    await bob.bury("bob", [2], GONE, NOW)
    status = await bob.status("bob")
    assert status is not None
    assert status.bytes < 1_000


async def test_expired_entries_come_oldest_first_and_bounded(bob: SentQueue) -> None:
    await save(bob, letters(1, 6, expires_ms=NOW + 1))
    assert [item.seq for item in await bob.expired("bob", NOW + 1, 4)] == [1, 2, 3, 4]
    await bob.bury("bob", [1, 2, 3, 4], GONE, NOW + 1)
    assert await bob.due(NOW + 1, 10) == ["bob"], "two are left"


async def test_a_message_that_every_device_has_does_not_expire(bob: SentQueue) -> None:
    await save(bob, letters(1, 2, expires_ms=NOW + 1, flags=Flag.RECEIPT))
    assert len(await ack(bob, "phone", 1)) == 1
    assert [item.seq for item in await bob.expired("bob", NOW + 1, 10)] == [2], "1 is delivered, though not settled"


async def test_a_message_whose_receipt_is_on_its_way_does_not_expire_meanwhile(bob: SentQueue) -> None:
    await bob.open("bob", "tablet", GEN, NOW)
    await save(bob, [letter(1, expires_ms=NOW + 1), letter(2, expires_ms=NOW + 1, flags=Flag.RECEIPT)])
    assert [item.seq for item in await ack(bob, "phone", 2)] == [2]
    assert [item.seq for item in await bob.expired("bob", NOW + 1, 10)] == [1], "burying 2 would lose its receipt"


async def test_a_message_that_was_delivered_to_one_device_is_not_told_expired_as_well(bob: SentQueue) -> None:
    await bob.open("bob", "tablet", GEN, NOW)
    await save(bob, letters(1, 1, expires_ms=NOW + 1, flags=Flag.RECEIPT))
    assert len(await ack(bob, "phone", 1)) == 1
    assert await ack(bob, "phone", 1, settled=1) == []
    assert [(item.seq, item.flags) for item in await bob.expired("bob", NOW + 1, 10)] == [(1, 0)]


async def test_what_a_sweep_is_about_to_tell_expired_is_not_told_delivered_by_an_ack_that_comes_meanwhile(
    bob: SentQueue,
) -> None:
    await save(bob, [*letters(1, 2, expires_ms=NOW + 1, flags=Flag.RECEIPT), letter(3, b"c", flags=Flag.RECEIPT)])
    assert await bob.expired("bob", NOW + 1, 1) == [Owed(1, Flag.RECEIPT, b"letter 1")]
    owed = [Owed(1, Flag.RECEIPT | EXPIRING, b"letter 1"), Owed(2, Flag.RECEIPT, b"letter 2")]
    assert await ack(bob, "phone", 2) == owed
    assert await ack(bob, "", 0) == owed, "whoever tells after a crash tells the same"
    assert await floor(bob) == 0, "nothing leaves before it is told"
    await bob.bury("bob", [1], GONE, NOW + 1)
    assert await ack(bob, "", 0) == owed[1:]
    assert await ack(bob, "phone", 3, settled=2) == [Owed(3, Flag.RECEIPT, b"c")]
    assert await ack(bob, "phone", 3, settled=3) == []
    assert await floor(bob) == 3


async def test_what_an_ack_told_expired_is_buried_in_silence(bob: SentQueue) -> None:
    await bob.open("bob", "tablet", GEN, NOW)
    await save(bob, letters(1, 1, expires_ms=NOW + 1, flags=Flag.RECEIPT))
    assert len(await bob.expired("bob", NOW + 1, 9)) == 1
    assert [item.flags for item in await ack(bob, "phone", 1)] == [Flag.RECEIPT | EXPIRING]
    assert await bob.expired("bob", NOW + 1, 9) == [], "it is being told"
    assert await ack(bob, "phone", 1, settled=1) == []
    assert await bob.expired("bob", NOW + 1, 9) == [Owed(1, 0, b"letter 1")]


async def test_a_sweep_that_died_before_it_buried_tells_the_same_again_and_no_device_sees_the_mark(
    bob: SentQueue,
) -> None:
    flags = Flag.RECEIPT | Flag.READ_RECEIPT
    await save(bob, letters(1, 2, expires_ms=NOW + 1, flags=flags))
    first = await bob.expired("bob", NOW + 1, 9)
    assert first == [Owed(1, flags, b"letter 1"), Owed(2, flags, b"letter 2")]
    assert await bob.expired("bob", NOW + 1, 9) == first
    page = await bob.read("bob", 0, 9, 1000)
    assert [tuple(entry) for entry in page.entries] == [
        (Type.DELIVER, flags, NOW + 1, b"letter %d" % n) for n in (1, 2)
    ]


async def test_nobody_is_told_that_a_copy_of_what_the_user_sent_expired(bob: SentQueue) -> None:
    await bob.open("bob", "tablet", GEN, NOW)
    await save(bob, [letter(1, type=Type.SENT, flags=Flag.RECEIPT, expires_ms=NOW + 1)])
    assert [(item.seq, item.flags) for item in await bob.expired("bob", NOW + 1, 9)] == [(1, 0)]


async def test_an_ack_from_before_what_expired_at_the_front_owes_nothing_of_what_stands_behind(bob: SentQueue) -> None:
    await save(bob, [*letters(1, 3, expires_ms=NOW + 1), *letters(4, 6, flags=Flag.RECEIPT)])
    await bob.bury("bob", [1, 2, 3], GONE, NOW + 1)
    assert await ack(bob, "phone", 1) == []
    assert await floor(bob) == 3
    assert [item.seq for item in await ack(bob, "phone", 5)] == [4, 5]


async def test_a_sweep_finds_the_receipts_that_a_crash_left_owed(bob: SentQueue) -> None:
    await save(bob, letters(1, 2, flags=Flag.RECEIPT))
    assert len(await ack(bob, "phone", 2)) == 2  # and then the broker died
    assert [item.seq for item in await ack(bob, "", 0)] == [1, 2]
    assert await ack(bob, "", 0, settled=2) == []
    assert await floor(bob) == 2


async def test_due_gives_the_longest_due_first_and_moves_earlier_with_an_append(bob: SentQueue) -> None:
    for user, expires_ms in (("cat", NOW + 30), ("dan", NOW + 20), ("eve", NOW + 40)):
        await bob.create_user(user, GEN, NOW)
        await save(bob, letters(1, 1, expires_ms=expires_ms), user)
    assert await bob.due(NOW + 30, 10) == ["dan", "cat"]
    assert await bob.due(NOW + 50, 2) == ["dan", "cat"]
    await save(bob, letters(2, 2, expires_ms=NOW + 10), "eve")
    await save(bob, letters(2, 2, expires_ms=NOW + 99), "dan")
    assert await bob.due(NOW + 25, 10) == ["eve", "dan"]
    await bob.delete_user("eve")
    assert await bob.due(NOW + 25, 10) == ["dan"]


async def test_a_repeat_does_not_make_a_user_due_by_its_own_time(bob: SentQueue) -> None:
    await save(bob, letters(1, 1, expires_ms=NOW + 50))
    await save(bob, letters(1, 1, expires_ms=NOW + 10))
    assert await bob.due(NOW + 40, 10) == []
