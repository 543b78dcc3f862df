"""What every Register promises (brokerd/ports.py), on each adapter of store_factories."""

from __future__ import annotations

import asyncio

from brokerd.ports import Append, Register, Row, Seat, SentQueue
from tests.contracts.store_factories import Stores

LEASE_MS = 60_000
PHONE = Seat("phone", "east~1", "s1")
NEWER = Seat("phone", "west~7", "s2")
TABLET = Seat("tablet", "east~1", "s3")


async def lease(register: Register, *nodes: str) -> None:
    for node in nodes:
        await register.renew_lease(node, LEASE_MS)


async def test_a_seat_that_was_claimed_is_seen(register: Register) -> None:
    await lease(register, "east~1")
    assert await register.claim("ann", PHONE) is None
    assert await register.seats(["ann"]) == [[PHONE]]


async def test_the_newest_claim_of_a_device_wins_and_is_given_the_one_it_replaced(register: Register) -> None:
    await lease(register, "east~1", "west~7")
    await register.claim("ann", PHONE)
    assert await register.claim("ann", NEWER) == PHONE
    assert await register.seats(["ann"]) == [[NEWER]]


async def test_a_session_that_claims_its_own_seat_again_replaced_nobody(register: Register) -> None:
    await register.claim("ann", PHONE)
    assert await register.claim("ann", PHONE) is None


async def test_devices_of_one_user_sit_beside_each_other(register: Register) -> None:
    await lease(register, "east~1")
    await register.claim("ann", PHONE)
    assert await register.claim("ann", TABLET) is None
    [seats] = await register.seats(["ann"])
    assert sorted(seats) == [PHONE, TABLET]


async def test_a_session_that_leaves_takes_only_its_own_seat(register: Register) -> None:
    await lease(register, "east~1", "west~7")
    await register.claim("ann", PHONE)
    await register.claim("ann", NEWER)
    assert not await register.release("ann", PHONE)
    assert await register.seats(["ann"]) == [[NEWER]]
    assert await register.release("ann", NEWER)
    assert not await register.release("ann", NEWER)
    assert await register.seats(["ann"]) == [[]]


async def test_seats_come_in_the_order_of_the_users_asked_for(register: Register) -> None:
    await lease(register, "east~1", "west~7")
    await register.claim("ann", PHONE)
    await register.claim("bob", NEWER)
    assert await register.seats(["bob", "nobody", "ann", "bob"]) == [[NEWER], [], [PHONE], [NEWER]]
    assert await register.seats([]) == []


async def test_a_seat_on_a_node_without_a_lease_is_not_seen(register: Register) -> None:
    await lease(register, "west~7")
    await register.claim("ann", TABLET)
    await register.claim("ann", NEWER)
    assert await register.seats(["ann"]) == [[NEWER]]


async def test_the_seats_of_a_node_that_left_are_gone_and_come_back_with_it(register: Register) -> None:
    await lease(register, "east~1")
    await register.claim("ann", PHONE)
    await register.drop_lease("east~1")
    assert await register.seats(["ann"]) == [[]]
    await lease(register, "east~1")
    assert await register.seats(["ann"]) == [[PHONE]]


async def test_rows_show_a_seat_also_when_its_node_is_gone_and_how_long_the_other_leases_live(
    register: Register,
) -> None:
    assert await register.rows("ann") == []
    await lease(register, "east~1")
    await register.claim("ann", TABLET)
    await register.claim("ann", NEWER)
    gone, here = await register.rows("ann")
    assert gone == Row(*NEWER, 0)
    assert here == Row(*TABLET, here.lease_ms)
    assert 0 < here.lease_ms <= LEASE_MS
    await register.drop_lease("east~1")
    assert await register.rows("ann") == [Row(*NEWER, 0), Row(*TABLET, 0)]
    assert await register.release("ann", NEWER)
    assert await register.rows("ann") == [Row(*TABLET, 0)]


async def test_a_lease_that_is_not_renewed_ends_by_itself(register: Register) -> None:
    await register.renew_lease("east~1", 30)
    await register.claim("ann", PHONE)
    async with asyncio.timeout(10):
        while await register.seats(["ann"]) != [[]]:  # noqa: ASYNC110 - nothing tells: time alone ends a lease
            await asyncio.sleep(0.005)


async def test_of_many_claims_of_one_device_at_once_each_but_the_last_is_replaced_once(register: Register) -> None:
    await lease(register, "east~1")
    claims = [Seat("phone", "east~1", f"s{n}") for n in range(50)]
    replaced = await asyncio.gather(*(register.claim("ann", seat) for seat in claims))
    [[last]] = await register.seats(["ann"])
    assert replaced.count(None) == 1
    assert {last, *filter(None, replaced)} == set(claims)


async def test_a_save_sees_the_claim_that_was_made_before_it(stores: Stores) -> None:
    sent_queue, register = stores
    await lease(register, "east~1")
    await sent_queue.create_user("ann", b"g" * 8, 0)
    await register.claim("ann", PHONE)
    [answer] = await sent_queue.append([Append("ann", ())], 0)
    assert list(answer.seats) == [PHONE]
    await register.release("ann", PHONE)
    [answer] = await sent_queue.append([Append("ann", ())], 0)
    assert list(answer.seats) == []


async def test_withdrawing_a_user_leaves_the_seats_to_the_register(stores: Stores) -> None:
    sent_queue, register = stores
    await lease(register, "east~1")
    await sent_queue.create_user("ann", b"g" * 8, 0)
    await register.claim("ann", PHONE)
    await delete(sent_queue)
    assert await register.seats(["ann"]) == [[PHONE]], "its sessions must still be found, to be told"


async def delete(sent_queue: SentQueue) -> None:
    assert await sent_queue.delete_user("ann")


async def test_a_session_takes_its_own_place_back_or_an_empty_one_and_no_other(register: Register) -> None:
    await lease(register, "east~1", "west~7")
    again = PHONE._replace(session="s1.2")
    assert await register.claim("ann", PHONE, again) is None, "nobody sits there"
    assert await register.claim("ann", again, PHONE) is None
    assert await register.seats(["ann"]) == [[again]]
    await register.claim("ann", NEWER)
    assert await register.claim("ann", PHONE, again) == NEWER
    assert await register.seats(["ann"]) == [[NEWER]], "the newest login stays"


async def test_a_node_is_told_whether_its_lease_still_stood(register: Register) -> None:
    assert not await register.renew_lease("east~1", LEASE_MS)
    assert await register.renew_lease("east~1", LEASE_MS)
    await register.drop_lease("east~1")
    assert not await register.renew_lease("east~1", LEASE_MS)
