"""What every queue promises (brokerd/ports.py: Inbound, Shards, Nodes, NodeInbox), on each adapter of queue_factories."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from brokerd.ports import Delivery
from protocol.envelope import AckPost, EntryPost, Post, PostBatch, PostKind, unpack_stamped
from tests.contracts.queue_factories import FACTORIES, Queues

WAIT_S_MAX = 20.0


@pytest.fixture(params=sorted(FACTORIES))
async def queues(request: pytest.FixtureRequest) -> AsyncIterator[Queues]:
    async with FACTORIES[request.param](request) as made:
        yield made


class Taken:
    """A consumer that keeps what it took; with `finishes` it is done with each batch at once."""

    def __init__(self, finishes: bool = True) -> None:
        self.deliveries: list[Delivery] = []
        self._finishes = finishes
        self._came = asyncio.Event()

    def __call__(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        if self._finishes:
            delivery.done()
        self._came.set()

    @property
    def bodies(self) -> list[bytes]:
        return [delivery.body for delivery in self.deliveries]

    async def wait_count(self, count: int) -> None:
        await wait_until(self._came, lambda: len(self.deliveries) >= count)


class Received:
    """A node that keeps the batches and counts the gaps."""

    def __init__(self) -> None:
        self.batches: list[bytes] = []
        self.gaps = 0
        self._came = asyncio.Event()

    def __call__(self, batch: bytes) -> None:
        self.batches.append(batch)
        self._came.set()

    def gap(self) -> None:
        self.gaps += 1

    async def wait_count(self, count: int) -> None:
        await wait_until(self._came, lambda: len(self.batches) >= count)


async def wait_until(came: asyncio.Event, holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S_MAX):
        while not holds():
            came.clear()
            await came.wait()


async def test_a_batch_that_nobody_packed_arrives_as_its_posts(queues: Queues) -> None:
    taken = Taken()
    await queues.shards.consume(0, taken)
    posts: list[Post] = [
        EntryPost(PostKind.ENTRY, "bob", b"ann-phone", 7, 5, 1, 9, b"body", 3),
        AckPost(PostKind.ACK, "bob", "phone", 4, b"genera01"),
    ]
    await queues.inbound.post(0, PostBatch("node~1", posts, 300, 5))
    await taken.wait_count(1)
    assert unpack_stamped(taken.deliveries[0].body) == ("node~1", posts, 5)


async def post_all(queues: Queues, shard: int, bodies: list[bytes]) -> None:
    async with asyncio.timeout(WAIT_S_MAX):
        await asyncio.gather(*(queues.inbound.post(shard, body) for body in bodies))


def numbered(count: int) -> list[bytes]:
    return [b"batch %d" % number for number in range(count)]


async def test_batches_of_a_shard_are_taken_in_the_order_of_the_posts(queues: Queues) -> None:
    taken = Taken()
    await queues.shards.consume(0, taken)
    await post_all(queues, 0, numbered(200))
    await taken.wait_count(200)
    assert taken.bodies == numbered(200)
    assert {delivery.shard for delivery in taken.deliveries} == {0}
    assert not any(delivery.redelivered for delivery in taken.deliveries)


async def test_a_batch_posted_before_anyone_consumes_waits(queues: Queues) -> None:
    posts = [queues.inbound.post(1, body) for body in numbered(3)]
    taken = Taken()
    await queues.shards.consume(1, taken)
    await taken.wait_count(3)
    async with asyncio.timeout(WAIT_S_MAX):
        await asyncio.gather(*posts)
    assert taken.bodies == numbered(3)


async def test_a_batch_goes_to_its_own_shard_only(queues: Queues) -> None:
    even, odd = Taken(), Taken()
    await queues.shards.consume(0, even)
    await queues.shards.consume(1, odd)
    posts = [queues.inbound.post(number % 2, body) for number, body in enumerate(numbered(20))]
    async with asyncio.timeout(WAIT_S_MAX):
        await asyncio.gather(*posts)
    await even.wait_count(10)
    await odd.wait_count(10)
    assert even.bodies == numbered(20)[::2]
    assert odd.bodies == numbered(20)[1::2]


async def test_a_batch_of_any_bytes_comes_out_the_same(queues: Queues) -> None:
    taken = Taken()
    await queues.shards.consume(0, taken)
    bodies = [b"\0", bytes(range(256)), b"\xce" * 300_000]
    await post_all(queues, 0, bodies)
    await taken.wait_count(len(bodies))
    assert taken.bodies == bodies


async def test_nobody_is_called_inside_his_own_call(queues: Queues) -> None:
    taken, received = Taken(), Received()
    await queues.shards.consume(0, taken)
    async with queues.inbox_maker() as inbox:
        await inbox.open("here~1", received, received.gap)
        posted = queues.inbound.post(0, b"post")
        queues.nodes.hand("here~1", b"parcel")
        assert taken.deliveries == []
        assert received.batches == []
        await posted
        await received.wait_count(1)


async def test_one_consumer_is_active_and_the_next_begins_when_it_goes(queues: Queues) -> None:
    first, second, fence = Taken(), Taken(), Taken()
    async with queues.rival_maker() as leaving:
        await leaving.consume(0, first)
        await queues.shards.consume(0, second)
        await post_all(queues, 0, numbered(10))
        await first.wait_count(10)
        await queues.shards.consume(1, fence)  # on the link of `second`: what it was to get would be here by now
        await post_all(queues, 1, [b"fence"])
        await fence.wait_count(1)
        assert second.deliveries == []
    posts = [queues.inbound.post(0, body) for body in (b"eleven", b"twelve")]
    await second.wait_count(2)
    async with asyncio.timeout(WAIT_S_MAX):
        await asyncio.gather(*posts)
    assert first.bodies == numbered(10)
    assert second.bodies == [b"eleven", b"twelve"]


async def test_what_a_dead_consumer_was_not_done_with_comes_again_in_order_and_flagged(queues: Queues) -> None:
    dying, heir = Taken(finishes=False), Taken()
    async with queues.rival_maker() as leaving:
        await leaving.consume(0, dying)
        posts = [queues.inbound.post(0, body) for body in numbered(5)]
        await dying.wait_count(5)
        dying.deliveries[0].done()
        async with asyncio.timeout(WAIT_S_MAX):
            await posts[0]
        await queues.shards.consume(0, heir)
    # An acknowledgement on its way when the consumer died may be lost: the first may come again, the others must.
    async with asyncio.timeout(WAIT_S_MAX):
        await asyncio.gather(*posts)
    await heir.wait_count(4)
    last_four = heir.deliveries[-4:]
    assert [delivery.body for delivery in last_four] == numbered(5)[1:]
    assert all(delivery.redelivered for delivery in last_four)


async def test_done_after_the_link_broke_does_nothing(queues: Queues) -> None:
    dying, heir = Taken(finishes=False), Taken(finishes=False)
    async with queues.rival_maker() as leaving:
        await leaving.consume(0, dying)
        posted = queues.inbound.post(0, b"once more")
        await dying.wait_count(1)
    dying.deliveries[0].done()
    await queues.shards.consume(0, heir)
    await heir.wait_count(1)
    heir.deliveries[0].done()
    async with asyncio.timeout(WAIT_S_MAX):
        await posted
    assert heir.bodies == [b"once more"]


async def test_a_buried_batch_does_not_hold_up_those_behind_it(queues: Queues) -> None:
    taken = Taken(finishes=False)
    await queues.shards.consume(0, taken)
    posts = [queues.inbound.post(0, body) for body in (b"not a batch", b"a batch")]
    await taken.wait_count(2)
    bad, good = taken.deliveries
    async with asyncio.timeout(WAIT_S_MAX):
        await queues.shards.bury(bad, "Undecodable: not msgpack")
        bad.done()
        good.done()
        await asyncio.gather(*posts)


async def test_batches_reach_a_node_in_order(queues: Queues) -> None:
    received = Received()
    async with queues.inbox_maker() as inbox:
        await inbox.open("ann~1", received, received.gap)
        for body in numbered(100):
            queues.nodes.hand("ann~1", body)
        await received.wait_count(100)
    assert received.batches == numbered(100)
    assert received.gaps == 0


async def test_a_batch_for_one_node_reaches_no_other(queues: Queues) -> None:
    ann, bob = Received(), Received()
    async with queues.inbox_maker() as inbox_of_ann, queues.inbox_maker() as inbox_of_bob:
        await inbox_of_ann.open("ann~1", ann, ann.gap)
        await inbox_of_bob.open("bob~1", bob, bob.gap)
        queues.nodes.hand("ann~1", b"for ann")
        queues.nodes.hand("bob~1", b"for bob")
        await ann.wait_count(1)
        await bob.wait_count(1)
        assert (ann.batches, bob.batches) == ([b"for ann"], [b"for bob"])


async def test_a_node_without_an_inbox_is_told_as_absent(queues: Queues) -> None:
    absent: asyncio.Queue[str] = asyncio.Queue()
    queues.nodes.on_absent(absent.put_nowait)
    queues.nodes.hand("nobody~1", b"lost")
    async with asyncio.timeout(WAIT_S_MAX):
        assert await absent.get() == "nobody~1"


async def test_a_node_that_went_is_told_as_absent(queues: Queues) -> None:
    absent: asyncio.Queue[str] = asyncio.Queue()
    queues.nodes.on_absent(absent.put_nowait)
    received = Received()
    async with queues.inbox_maker() as inbox:
        await inbox.open("short~1", received, received.gap)
        queues.nodes.hand("short~1", b"in time")
        await received.wait_count(1)
    queues.nodes.hand("short~1", b"too late")
    async with asyncio.timeout(WAIT_S_MAX):
        assert await absent.get() == "short~1"
    assert received.batches == [b"in time"]
