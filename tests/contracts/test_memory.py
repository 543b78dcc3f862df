"""What a store can still say of a message that is gone from its queue: taken, refused, or never seen. On both stores."""

from __future__ import annotations

import pytest

from brokerd.links.redis import RedisStore
from brokerd.links.redis_memory import RedisMemory
from brokerd.links.sqlite_memory import SqliteMemory
from brokerd.ports import Ack, Append, Entry, SentQueue
from brokerd.support_ports import Memory, Standing
from protocol.names import device_tag, keyed_message_id, message_id
from protocol.wire import Type
from tests.contracts.letters import NOW
from tests.contracts.store_factories import Bounds
from tests.sim.process import StoreLink

TAG = device_tag("ann", "laptop")
FAR = NOW + 3_600_000


@pytest.fixture
def bounds() -> Bounds:
    return Bounds(count_max=3)


@pytest.fixture
def memory(bob: SentQueue, request: pytest.FixtureRequest) -> Memory:
    """Of the store that `bob` is in."""
    if isinstance(bob, RedisStore):
        return RedisMemory(bob._link)
    if isinstance(bob, StoreLink):
        pytest.skip("the simulated store is never asked this: only people at a terminal do")
    return SqliteMemory(request.getfixturevalue("tmp_path") / "store")


def entry(cid: int, origin: bytes = TAG, prev: int = 0) -> Entry:
    return Entry(origin, cid, Type.DELIVER, 0, FAR, b"hush", prev)


async def standing(memory: Memory, cid: int, user: str = "bob") -> Standing:
    return await memory.standing(user, message_id(TAG, cid), NOW)


async def test_what_was_taken_is_known_also_when_it_is_delivered_and_gone(bob: SentQueue, memory: Memory) -> None:
    await bob.append([Append("bob", [entry(5)])], NOW)
    assert await standing(memory, 5) is Standing.TAKEN
    await bob.acknowledge([Ack("bob", "phone", 1, 0)], NOW)
    assert (await bob.read("bob", 0, 10, 1000)).entries == []
    assert await standing(memory, 5) is Standing.TAKEN


async def test_what_never_came_is_told_apart(bob: SentQueue, memory: Memory) -> None:
    assert await standing(memory, 1) is Standing.NEVER
    await bob.append([Append("bob", [entry(5)])], NOW)
    assert await standing(memory, 6) is Standing.NEVER
    assert await standing(memory, 5, "carl") is Standing.NEVER


async def test_what_found_the_queue_full_is_told_apart(bob: SentQueue, memory: Memory) -> None:
    await bob.append([Append("bob", [entry(cid) for cid in (1, 2, 3, 4)])], NOW)
    assert [await standing(memory, cid) for cid in (3, 4)] == [Standing.TAKEN, Standing.REFUSED]


async def test_what_lies_in_a_gap_never_came(bob: SentQueue, memory: Memory) -> None:
    await bob.append([Append("bob", [entry(1)])], NOW)
    await bob.append([Append("bob", [entry(7, prev=5)])], NOW)
    found = [await standing(memory, cid) for cid in (1, 2, 5, 7)]
    assert found == [Standing.TAKEN, Standing.NEVER, Standing.NEVER, Standing.TAKEN]


async def test_the_id_of_a_key_is_known_as_well(bob: SentQueue, memory: Memory) -> None:
    id_ = keyed_message_id("shop", "order 7")
    assert await memory.standing("bob", id_, NOW) is Standing.NEVER
    await bob.append([Append("bob", [entry(0, id_)])], NOW)
    assert await memory.standing("bob", id_, NOW) is Standing.TAKEN
