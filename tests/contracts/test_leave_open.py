"""A cid that was not taken, though later ones are, can still be taken: once."""

from __future__ import annotations

from brokerd.ports import NO_USER, REPEAT, SentQueue
from tests.contracts.letters import ANN, CAT, NOW, letter, results


async def test_what_was_left_open_is_taken_behind_later_ones_and_once(bob: SentQueue) -> None:
    assert await results(bob, [letter(1)]) == [1]
    await bob.leave_open("bob", ANN, 2, NOW)
    assert await results(bob, [letter(3), letter(4)]) == [2, 3]
    assert await results(bob, [letter(2)]) == [4]
    assert await results(bob, [letter(2), letter(1), letter(3)]) == [REPEAT] * 3


async def test_several_are_left_open_each_for_itself(bob: SentQueue) -> None:
    for cid in (1, 2, 5):
        await bob.leave_open("bob", ANN, cid, NOW)
    assert await results(bob, [letter(6)]) == [1]
    assert await results(bob, [letter(5), letter(1), letter(2), letter(5)]) == [2, 3, 4, REPEAT]


async def test_the_first_of_all_can_be_left_open(bob: SentQueue) -> None:
    await bob.leave_open("bob", ANN, 7, NOW)
    assert await results(bob, [letter(8), letter(7), letter(7)]) == [1, 2, REPEAT]


async def test_what_was_answered_is_not_opened_again(bob: SentQueue) -> None:
    await results(bob, [letter(3)])
    for _ in range(2):
        await bob.leave_open("bob", ANN, 3, NOW)
    assert await results(bob, [letter(3), letter(4)]) == [REPEAT, 2]


async def test_to_leave_it_open_twice_is_to_leave_it_open_once(bob: SentQueue) -> None:
    for _ in range(2):
        await bob.leave_open("bob", ANN, 2, NOW)
    assert await results(bob, [letter(3), letter(2), letter(2)]) == [1, 2, REPEAT]


async def test_other_origins_users_and_keys_are_not_touched(bob: SentQueue) -> None:
    await bob.leave_open("nobody", ANN, 2, NOW)
    await bob.leave_open("bob", ANN, 0, NOW)
    await bob.leave_open("bob", ANN, 2, NOW)
    assert await results(bob, [letter(1, origin=CAT), letter(1, origin=CAT)]) == [1, REPEAT]
    assert await results(bob, [letter(1)], user="nobody") == [NO_USER]
