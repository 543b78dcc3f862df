"""What every Entrance promises (brokerd/ports.py): that of a store which is both, and the one that asks one behind the other."""

from __future__ import annotations

import pytest

from brokerd.links.redis import RedisStore
from brokerd.ports import Entered, Entrance, Opened, Seat
from chatd.entrance import InTurn
from tests.contracts.letters import GEN, NOW
from tests.contracts.store_factories import Stores

LEASE_MS = 60_000
PHONE = Seat("phone", "east~1", "s1.7.1")
AGAIN = Seat("phone", "east~1", "s1.7.2")
NEWER = Seat("phone", "west~7", "s2.8.1")
TABLET = Seat("tablet", "west~7", "s3.9.1")


@pytest.fixture(params=["in turn", "together"])
def entrance(request: pytest.FixtureRequest, stores: Stores) -> Entrance:
    """For a store that has both, also its own."""
    if request.param == "in turn":
        return InTurn(stores.register, stores.sent_queue)
    if not isinstance(stores.sent_queue, RedisStore):
        pytest.skip("its register is another object")
    return stores.sent_queue


async def test_who_enters_has_the_seat_and_an_open_queue(stores: Stores, entrance: Entrance) -> None:
    await stores.register.renew_lease("east~1", LEASE_MS)
    entered = await entrance.enter("ann", PHONE, None, GEN, NOW)
    assert entered == Entered(None, Opened(0, 0, GEN, 1), [PHONE])
    assert await stores.register.seats(["ann"]) == [[PHONE]]
    assert await stores.sent_queue.has_user("ann")


async def test_who_enters_is_told_whom_it_replaced(stores: Stores, entrance: Entrance) -> None:
    for node in ("east~1", "west~7"):
        await stores.register.renew_lease(node, LEASE_MS)
    await stores.register.claim("ann", PHONE)
    other, _, seats = await entrance.enter("ann", NEWER, None, GEN, NOW)
    assert (other, list(seats)) == (PHONE, [NEWER])


async def test_who_comes_back_takes_only_its_own_place(stores: Stores, entrance: Entrance) -> None:
    for node in ("east~1", "west~7"):
        await stores.register.renew_lease(node, LEASE_MS)
    await entrance.enter("ann", PHONE, None, GEN, NOW)
    assert (await entrance.enter("ann", AGAIN, PHONE, GEN, NOW)).other is None
    await stores.register.claim("ann", NEWER)
    other, _, seats = await entrance.enter("ann", PHONE, AGAIN, GEN, NOW)
    assert (other, list(seats)) == (NEWER, [NEWER])


async def test_who_enters_sees_others_only_on_nodes_that_live(stores: Stores, entrance: Entrance) -> None:
    await stores.register.renew_lease("east~1", LEASE_MS)
    await stores.register.claim("ann", TABLET)
    assert list((await entrance.enter("ann", PHONE, None, GEN, NOW)).seats) == [PHONE]
    await stores.register.renew_lease("west~7", LEASE_MS)
    assert sorted((await entrance.enter("ann", PHONE, None, GEN, NOW)).seats) == [PHONE, TABLET]


async def test_who_leaves_takes_only_its_own_seat(stores: Stores, entrance: Entrance) -> None:
    for node in ("east~1", "west~7"):
        await stores.register.renew_lease(node, LEASE_MS)
    await stores.register.claim("ann", NEWER)
    await stores.register.claim("bob", PHONE)
    await entrance.leave([("ann", PHONE), ("bob", PHONE), ("eve", PHONE)])
    assert await stores.register.seats(["ann", "bob"]) == [[NEWER], []]
