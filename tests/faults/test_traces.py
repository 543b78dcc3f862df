"""Support's question, where is this message, answered by chatctl beside the running servers, embedded and in a cluster."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import NamedTuple

import pytest

from bench.processes import Chatd
from brokerd.ports import Append, Entry
from chatd.stores import open_store
from protocol.messages import Ack, Deliver
from protocol.wire import Type
from tests.faults.support_desk import Desk, cids, id_of, kinds, logged_in, send

pytestmark = pytest.mark.timeout(120)
WAY_IN = ["TAKEN", "CONFIRMED", "SAVED"]


class People(NamedTuple):
    """ann writes; bob is there; carl was never seen; to dave, who never comes, a message was sent at the beginning that
    expires (whoever logs in before the sweep has seen it would still be given it)."""

    desk: Desk
    ann: tuple[str, str]
    bob: tuple[str, str]
    carl: tuple[str, str]
    dave: tuple[str, str]
    sampled: list[int]
    others: list[int]

    def id(self, cid: int) -> str:
        return id_of(self.ann[0], cid)


_people: dict[str, People] = {}


@pytest.fixture
async def people(desk: Desk) -> People:
    """The same ones for all tests of this file, on each system; their cids only grow."""
    key = desk.near.env["CHATD_DATA_DIR"]
    if key not in _people:
        ann, bob, carl, dave = await asyncio.gather(
            *(asyncio.to_thread(desk.new_user, name) for name in ("ann", "bob", "carl", "dave"))
        )
        every = People(desk, ann, bob, carl, dave, cids(ann[0], sampled=True), cids(ann[0], sampled=False))
        _people[key] = every
        async with logged_in(desk.near, *ann) as client:
            await send(client, every.others[0], dave[0], ttl_s=1)
    return _people[key]


async def test_a_message_that_arrived_is_told_hop_by_hop(people: People) -> None:
    desk, cid = people.desk, people.sampled[0]
    async with logged_in(desk.near, *people.ann) as ann, logged_in(desk.far, *people.bob) as bob:
        await send(ann, cid, people.bob[0])
        heard = await bob.next(Deliver)
        await bob.send(Ack(heard.ref, 0))
        way = [*WAY_IN, "HANDED", "WRITTEN", "ACKED", "RECEIPT"]  # each process notes its own hops when it is at it
        told = await desk.wait_trace(people.id(cid), lambda it: sorted(kinds(it)) == sorted(way))
    assert told["now"]["state"] == "delivered"
    assert told["to"] == people.bob[0]
    hops = {hop["kind"]: hop for hop in told["hops"]}
    assert hops["TAKEN"]["by"].startswith(desk.near.env["CHATD_NODE"] + ":")
    assert hops["HANDED"]["detail"] == hops["WRITTEN"]["by"] == hops["ACKED"]["by"]
    assert hops["SAVED"]["seq"] == heard.ref
    assert hops["ACKED"]["device"] == "raw"
    assert [hop["at_ms"] for hop in told["hops"]] == sorted(hop["at_ms"] for hop in told["hops"])
    text = desk.out("trace", people.id(cid).upper())
    assert f"acknowledged by {people.bob[0]}/raw" in text
    assert text.splitlines()[-1].startswith("delivered: ")
    assert "tea" not in text


async def test_a_message_for_somebody_who_is_away_waits_and_the_queue_shows_it(people: People) -> None:
    desk, traced, plain = people.desk, people.sampled[1], people.others[1]
    async with logged_in(desk.near, *people.ann) as ann:
        await send(ann, plain, people.carl[0])
        await send(ann, traced, people.carl[0])
    told = await desk.wait_trace(people.id(traced), lambda it: len(it["hops"]) == len(WAY_IN))
    assert sorted(kinds(told)) == sorted(WAY_IN)  # in one process the save is the confirm
    assert told["now"]["state"] == "waiting"
    assert told["now"]["says"].endswith("has ever logged in")
    told = desk.trace(people.id(plain), "--to", people.carl[0])  # it is not in the sample: the store knows
    assert (told["hops"], told["now"]["state"], told["dedupe"]) == ([], "waiting", "taken")
    assert told["now"]["peer"] == people.ann[0]
    assert "not in the sample (1 in 1024)" in told["notes"][0]
    queue = desk.out("queue", people.carl[0])
    assert "no device has ever logged in" in queue
    assert f"from {people.ann[0]}" in queue
    assert people.id(plain) in queue
    async with logged_in(desk.far, *people.carl) as carl:  # and now carl comes
        while (heard := await carl.next(Deliver)).id.hex() != people.id(traced):
            pass
        told = await desk.wait_trace(people.id(traced), lambda it: "WRITTEN" in kinds(it))
        assert told["now"]["devices"]["raw"]["acknowledged"] is False
        await carl.send(Ack(heard.ref, 0))
        told = await desk.wait_trace(people.id(traced), lambda it: {"ACKED", "RECEIPT"} <= set(kinds(it)))
    assert told["now"]["state"] == "delivered"
    told = desk.trace(people.id(plain), "--to", people.carl[0])
    assert (told["hops"], told["now"]["state"]) == ([], "delivered")


async def test_a_message_to_nobody_bounced_also_when_it_is_not_in_the_sample(people: People) -> None:
    desk, cid = people.desk, people.others[2]
    async with logged_in(desk.near, *people.ann) as ann:
        await send(ann, cid, "nobody-at-all")
    told = await desk.wait_trace(people.id(cid), lambda it: bool(it["hops"]))
    assert [(hop["kind"], hop["code"]) for hop in told["hops"]] == [("BOUNCED", "NO_SUCH_USER")]
    assert (told["now"]["state"], told["to"]) == ("bounced", "nobody-at-all")


async def test_a_message_for_a_full_queue_bounced_and_the_store_knows_it_too(people: People) -> None:
    desk, cid = people.desk, people.others[3]
    dora, _ = await asyncio.to_thread(desk.new_user, "dora")
    config = desk.config
    filling = [
        Entry(b"filling", number, Type.DELIVER, 0, 2**50, b"x") for number in range(1, config.queue.count_max + 1)
    ]
    async with open_store(config) as store:
        await store.append([Append(dora, filling)], 0)
    async with logged_in(desk.near, *people.ann) as ann:
        await send(ann, cid, dora)
    told = await desk.wait_trace(people.id(cid), lambda it: bool(it["hops"]))
    assert [(hop["kind"], hop["code"]) for hop in told["hops"]] == [("BOUNCED", "QUEUE_FULL")]
    assert (told["now"]["state"], told["dedupe"]) == ("bounced", "refused")
    assert f"and {config.queue.count_max - 1} more" in desk.out("queue", dora, "--entries", "1")


async def test_a_message_that_comes_again_is_a_repeat(people: People) -> None:
    desk, cid = people.desk, people.sampled[2]
    for _ in range(2):
        async with logged_in(desk.near, *people.ann) as ann:
            await send(ann, cid, people.carl[0])
    told = await desk.wait_trace(people.id(cid), lambda it: len(it["hops"]) == len(WAY_IN) + 3)
    assert sorted(kinds(told)) == sorted([*WAY_IN, "TAKEN", "CONFIRMED", "REPEAT"])
    assert told["now"]["state"] == "waiting"


async def test_a_session_that_goes_before_it_acknowledges_is_noted_and_the_message_waits_on(people: People) -> None:
    desk, cid = people.desk, people.sampled[3]
    async with logged_in(desk.near, *people.ann) as ann, logged_in(desk.far, *people.bob) as bob:
        await send(ann, cid, people.bob[0])
        await bob.next(Deliver)
    told = await desk.wait_trace(people.id(cid), lambda it: {"SAVED", "TROUBLE"} <= set(kinds(it)))
    assert told["now"]["state"] == "waiting"
    assert told["now"]["devices"]["raw"]["acknowledged"] is False


async def test_a_message_whose_time_was_over_is_told_so(people: People) -> None:
    told = await people.desk.wait_trace(people.id(people.others[0]), lambda it: "EXPIRED" in kinds(it))
    assert (told["now"]["state"], told["to"]) == ("expired", people.dave[0])
    assert told["hops"][0]["code"] == "TTL_PASSED"


async def test_of_what_was_never_sent_it_says_that_nothing_is_known_and_why(embedded_desk: Desk) -> None:
    desk, never = embedded_desk, id_of("ann", 10**6 + 7)
    bob, _ = await asyncio.to_thread(desk.new_user, "bob")
    told = desk.trace(never)
    assert (told["hops"], told["now"]["state"]) == ([], "unknown")
    assert "--to USER" in told["now"]["says"]
    assert desk.trace(never, "--to", bob)["now"]["says"] == f"{bob}'s queue has never seen it"
    assert "no user" in desk.trace(never, "--to", "nobody-at-all")["now"]["says"]


@pytest.mark.parametrize("word", ["", "xyz", "0" * 34])
async def test_what_is_no_id_is_refused_with_one_sentence(word: str, embedded_desk: Desk) -> None:
    told = embedded_desk.run("trace", word)
    assert (told.code, told.out, told.err.count("\n")) == (1, "", 1)
    assert "32 hexadecimal digits" in told.err


async def test_a_trace_beside_no_server_reads_what_it_left(tmp_path: Path) -> None:
    server = Chatd(tmp_path)
    desk = Desk(server, server)
    server.start()
    ann = await asyncio.to_thread(desk.new_user, "ann")
    async with logged_in(server, *ann) as client:
        cid = cids(ann[0], sampled=True)[0]
        await send(client, cid, "nobody")
    assert await asyncio.to_thread(server.stop) == 0
    told = desk.trace(id_of(ann[0], cid))
    assert sorted(kinds(told)) == ["BOUNCED", "CONFIRMED", "TAKEN"]  # written at the end at the latest
