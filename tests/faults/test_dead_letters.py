"""F16: poison. A batch that cannot be decoded, or whose handling raises, goes to the dead letters with its reason; others
pass; an operator sees what is in it and puts it back, and nobody sees anything twice."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import aiormq
import pytest

from brokerd.links.amqp import Topology
from brokerd.links.dead_letters import append_dead_letter
from brokerd.support_ports import DeadLetter
from protocol.codec import pack_fields
from protocol.envelope import EntryPost, Post, PostKind, pack_batch
from protocol.messages import Ack, Deliver
from protocol.names import device_tag, message_id, shard_of
from protocol.wire import Type
from tests.faults.raw_client import RawClient
from tests.faults.support_desk import DEVICE, Desk, cids, id_of, kinds, logged_in, send

pytestmark = pytest.mark.timeout(120)
JUNK = b"\xc1 of no version"
FAR_MS = 2**50
LATE = 10**6


class Ward(NamedTuple):
    """A system and its shards, with a way in that no client has."""

    desk: Desk
    ann: tuple[str, str]
    bob: tuple[str, str]

    @property
    def shard(self) -> int:
        """bob's."""
        return shard_of(self.bob[0], self.desk.config.shards) if self.desk.config.mode == "cluster" else 0

    async def inject(self, body: bytes) -> None:
        """Into bob's shard: what a daemon of another version might post."""
        config = self.desk.config
        if config.mode == "cluster":
            await _publish(config.rabbit.url, Topology(config.prefix).shard_queue(self.shard), body)
        else:  # nobody else posts there: by way of the operator's tray
            before = {letter["letter"] for letter in await self.desk.wait_letters(lambda _: True)}
            await self.bury(body, "injected")
            [name] = {letter["letter"] for letter in await self.desk.wait_letters(lambda _: True)} - before
            await asyncio.to_thread(self.desk.out, "dead", "requeue", name)

    async def bury(self, body: bytes, reason: str) -> None:
        """Among the dead letters of bob's shard, as a broker does."""
        config = self.desk.config
        if config.mode == "cluster":
            headers: dict[str, Any] = {"shard": self.shard, "reason": reason}
            await _publish(config.rabbit.url, Topology(config.prefix).dead, body, headers)
        else:
            former = shard_of(
                self.bob[0], config.shards
            )  # of a version that had as many as a cluster: it goes to the one there is
            append_dead_letter(config.dead_letters_file, DeadLetter(former, reason, 1_700_000_000_000, body))

    async def wait_dead(self, body_bytes: int, reason: str = "") -> dict[str, Any]:
        """The newest letter of this size, once it is there."""
        found = await self.desk.wait_letters(lambda all_: bool(_fitting(all_, body_bytes, reason)))
        return _fitting(found, body_bytes, reason)[-1]

    def post(self, cid: int, payload: bytes, **fields: Any) -> EntryPost:
        """What ann's node would post for her message to bob."""
        ann, bob = self.ann[0], self.bob[0]
        tag = device_tag(ann, DEVICE)
        body = pack_fields((ann, message_id(tag, cid), 1_700_000_000_000, payload))
        return EntryPost(PostKind.ENTRY, bob, tag, cid, Type.DELIVER, 0, FAR_MS, body)._replace(**fields)


def _fitting(letters: list[dict[str, Any]], body_bytes: int, reason: str) -> list[dict[str, Any]]:
    return [letter for letter in letters if letter["bytes"] == body_bytes and reason in letter["reason"]]


async def _publish(url: str, queue: str, body: bytes, headers: dict[str, Any] | None = None) -> None:
    async with aiormq.connect(url) as connection:
        kept = aiormq.spec.Basic.Properties(delivery_mode=2, headers=headers or {})
        await (await connection.channel()).basic_publish(body, routing_key=queue, properties=kept, mandatory=True)


def batch(*posts: Post) -> bytes:
    return pack_batch("a-node", posts)


_wards: dict[str, Ward] = {}


@pytest.fixture
async def ward(desk: Desk) -> Ward:
    """With the same people for all tests of this file: each uses larger cids than the one before."""
    key = desk.near.env["CHATD_DATA_DIR"]
    if key not in _wards:
        ann, bob = await asyncio.gather(*(asyncio.to_thread(desk.new_user, name) for name in ("ann", "bob")))
        _wards[key] = Ward(desk, ann, bob)
    return _wards[key]


async def hear(bob: RawClient, count: int) -> list[bytes]:
    """So many messages, acknowledged."""
    heard = [await bob.next(Deliver) for _ in range(count)]
    await bob.send(Ack(heard[-1].ref, 0))
    return [message.payload for message in heard]


async def test_f16_what_cannot_be_decoded_is_put_aside_and_others_pass(ward: Ward) -> None:
    desk = ward.desk
    async with logged_in(desk.near, *ward.ann) as ann, logged_in(desk.far, *ward.bob) as bob:
        await send(ann, 1, ward.bob[0], b"before")
        junk = JUNK + ward.bob[0].encode()
        await ward.inject(junk)
        await send(ann, 2, ward.bob[0], b"behind")
        assert await hear(bob, 2) == [b"before", b"behind"]
        letter = await ward.wait_dead(len(junk))
        assert (letter["shard"], letter["posts"]) == (ward.shard, None)
        shown = desk.out("dead", "show", letter["letter"])
        assert letter["reason"] in shown
        assert "c1 20 6f 66 20 6e 6f 20" in shown
        assert f"{letter['letter']} was put back" in desk.out("dead", "requeue", letter["letter"])
        again = await ward.wait_dead(len(junk))  # nobody can read it now either
        await send(ann, 3, ward.bob[0], b"last")
        assert await hear(bob, 1) == [b"last"]
    desk.out("dead", "drop", again["letter"])
    assert not [it for it in desk.letters() if it["bytes"] == len(junk)]
    refused = desk.run("dead", "show", again["letter"])
    assert (refused.code, refused.err) == (1, f"chatctl: there is no dead letter {again['letter']}\n")


async def test_f16_what_raises_takes_nobody_with_it_and_is_saved_once_when_it_can_be(ward: Ward) -> None:
    desk, cid = ward.desk, cids(ward.ann[0], sampled=True)[-1]
    first, last = (ward.post(number, b"%d" % number) for number in (cid - 1, cid + 1))
    sound = ward.post(cid, b"the one that died")
    async with logged_in(desk.near, *ward.ann) as ann, logged_in(desk.far, *ward.bob) as bob:
        await ward.inject(batch(first, sound._replace(flags=[1]), last))
        assert await hear(bob, 2) == [b"%d" % (cid - 1), b"%d" % (cid + 1)]  # of the very same batch
        letter = await ward.wait_dead(len(batch(sound._replace(flags=[1]))) - len("a-node") + len(_broker(desk)))
        assert letter["posts"] == 1
        told = await desk.wait_trace(id_of(ward.ann[0], cid), lambda it: "DEAD" in kinds(it))
        assert told["now"]["state"] == "dead"
        returned = kinds(told).count("REQUEUED")
        assert told["dead_letters"] == [letter["letter"]]
        shown = desk.out("dead", "show", letter["letter"])
        assert f"to {ward.bob[0]}" in shown
        assert id_of(ward.ann[0], cid) in shown
        assert "died" not in shown  # of the payload nobody is told
        desk.out("dead", "drop", letter["letter"])

        await send(ann, cid + 2, ward.bob[0], b"later")  # passes it: but its cid was kept open
        await ward.bury(batch(sound), "as a repaired daemon sees it")
        for _ in range(2):  # twice: the second time it is a repeat
            letter = await ward.wait_dead(len(batch(sound)))
            desk.out("dead", "requeue", letter["letter"])
            await ward.bury(batch(sound), "once more")
        told = await desk.wait_trace(id_of(ward.ann[0], cid), lambda it: {"SAVED", "REPEAT"} <= set(kinds(it)))
        assert kinds(told).count("REQUEUED") == returned + 2
        await send(ann, cid + 3, ward.bob[0], b"fence")
        assert await hear(bob, 3) == [b"later", b"the one that died", b"fence"]
    told = await desk.wait_trace(id_of(ward.ann[0], cid), lambda it: "ACKED" in kinds(it))
    desk.out("dead", "drop", (await ward.wait_dead(len(batch(sound))))["letter"])


async def test_f16_what_was_delivered_before_is_put_back_and_nobody_sees_it_again(ward: Ward) -> None:
    desk = ward.desk
    async with logged_in(desk.near, *ward.ann) as ann, logged_in(desk.far, *ward.bob) as bob:
        for number in (1, 2):
            await send(ann, LATE + number, ward.bob[0], b"%d" % number)
        assert await hear(bob, 2) == [b"1", b"2"]
        again = batch(ward.post(LATE + 1, b"1"), ward.post(LATE + 2, b"2"))
        await ward.bury(again, "a copy of what was delivered")
        letter = await ward.wait_dead(len(again))
        desk.out("dead", "requeue", letter["letter"])
        await send(ann, LATE + 3, ward.bob[0], b"fence")
        assert await hear(bob, 1) == [b"fence"]

        passed = batch(ward.post(LATE - 5, b"passed"))  # never seen by the store; but its sender's later ones were
        for _ in range(2):
            await ward.bury(passed, "of a newer version")
            letter = await ward.wait_dead(len(passed))
            desk.out("dead", "requeue", "--as-new", letter["letter"])
        await send(ann, LATE + 4, ward.bob[0], b"fence")
        assert await hear(bob, 2) == [b"passed", b"fence"]
    assert not [it for it in desk.letters() if it["bytes"] == len(again)]


async def test_what_an_operator_names_wrongly_is_told_and_nothing_is_done(embedded_desk: Desk) -> None:
    desk = embedded_desk
    append_dead_letter(desk.config.dead_letters_file, DeadLetter(1, "why", 1_700_000_000_000, b"it stays"))
    [letter] = [letter for letter in desk.letters() if letter["reason"] == "why"]
    for words in (("requeue", "abcdefabcdef"), ("drop",), ("requeue", "--all", "abc")):
        told = desk.run("dead", *words)
        assert (told.code, told.out, told.err.count("\n")) == (1, "", 1), words
    assert letter in desk.letters()
    desk.out("dead", "drop", letter["letter"])


async def test_without_rabbitmq_the_dead_letters_can_not_be_reached_and_it_is_said(embedded_desk: Desk) -> None:
    env = dict(embedded_desk.near.env)
    try:
        embedded_desk.near.env |= {"CHATD_MODE": "cluster", "CHATD_RABBIT_URL": "amqp://guest:hush@127.0.0.1:1/"}
        told = embedded_desk.run("dead", "list")
    finally:
        embedded_desk.near.env = env
    assert (told.code, told.out, told.err.count("\n")) == (1, "", 1)
    assert "RabbitMQ" in told.err
    assert "hush" not in told.err


def _broker(desk: Desk) -> str:
    """Whose name stands in a batch that a broker packed."""
    return "brokerd1" if desk.config.mode == "cluster" else "embedded"
