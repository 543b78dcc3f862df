"""A post that nobody can work off goes to the dead letters alone: not with its batch, and not for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from brokerd.ports import LinkDown
from brokerd.salvage import Salvage
from protocol.envelope import EntryPost, FramesParcel, unpack_posts
from protocol.messages import Receipt
from protocol.names import shard_of
from protocol.wire import Status
from tests.core.back_room import BackRoom, back_room, entry, payloads, until
from tests.core.peers import messages_of


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[BackRoom]:
    async with back_room(tmp_path) as running:
        yield running


def rotten(number: int = 9, **fields: Any) -> EntryPost:
    """A post that can be decoded, and that the store cannot take."""
    return entry(number, payload=b"bad")._replace(**(fields or {"flags": [1]}))


def said(number: int) -> bytes:
    return b"%d" % number


async def test_the_rest_of_its_batch_is_saved_and_handed_over_in_order(room: BackRoom) -> None:
    await room.seat("bob")
    posts = [entry(cid, payload=said(cid)) for cid in range(1, 8)]
    await room.post(*posts[:3], rotten(4), *posts[4:])
    assert payloads(await room.read("bob")) == [said(cid) for cid in (1, 2, 3, 5, 6, 7)]
    await until(lambda: bool(room.parcels))
    frames = [parcel.frames for parcel in room.parcels if isinstance(parcel, FramesParcel)]
    assert payloads([message for part in frames for message in messages_of(part)]) == payloads(await room.read("bob"))
    [dead] = room.queue.dead_letters
    assert [post.cid for post in unpack_posts(dead.body)[1] if isinstance(post, EntryPost)] == [4]
    assert dead.shard == shard_of("bob", room.shards)


@pytest.mark.parametrize("is_one_batch", [True, False])
async def test_later_ones_pass_it_and_put_back_it_is_saved_once(room: BackRoom, is_one_batch: bool) -> None:
    await room.open("bob")
    if is_one_batch:
        await room.post(entry(1, payload=said(1)), rotten(2), entry(3, payload=said(3)))
    else:
        await asyncio.gather(
            room.post(entry(1, payload=said(1))), room.post(rotten(2)), room.post(entry(3, payload=said(3)))
        )
    assert payloads(await room.read("bob")) == [said(1), said(3)]
    for _ in range(2):
        await room.post(entry(2, payload=said(2)))  # as a broker sees it that can work it off
    assert payloads(await room.read("bob")) == [said(1), said(3), said(2)]


async def test_of_a_batch_that_was_saved_before_it_failed_nothing_is_saved_twice(room: BackRoom) -> None:
    await room.open("bob")
    await room.post(entry(1, payload=said(1)))
    await room.post(entry(1, payload=said(1)), rotten(2), entry(1, payload=said(1)))
    assert payloads(await room.read("bob")) == [said(1)]


async def test_senders_of_what_bounced_beside_it_are_told(room: BackRoom) -> None:
    for user in ("ann", "bob"):
        await room.open(user)
    nobody = next(f"x{number}" for number in range(99) if shard_of(f"x{number}", 4) == shard_of("bob", 4))
    await room.post(rotten(2), entry(1, nobody))
    [receipt] = await room.read("ann")
    assert isinstance(receipt, Receipt)
    assert receipt.status == Status.FAILED
    assert len(room.queue.dead_letters) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"flags": [1]},
        {"expires_ms": None},
        {"body": "text"},
        {"body": None},
        {"origin": [1]},
        {"type": 2**63},
        {"cid": "x"},
    ],
    ids=str,
)
async def test_what_the_store_cannot_keep_is_no_store_that_is_down(room: BackRoom, fields: dict[str, Any]) -> None:
    await room.open("bob")
    await room.post(rotten(**fields))
    await room.post(entry(1))
    assert payloads(await room.read("bob")) == [b"tea?"]
    assert len(room.queue.dead_letters) == 1


async def test_a_link_that_goes_down_in_the_middle_is_no_reason_to_bury_anything(room: BackRoom) -> None:
    await room.open("bob")
    room.store.down = {"leave_open"}
    posted = room.post(rotten(1), entry(2))
    await until(lambda: "leave_open" in room.store.calls)
    assert not posted.done()
    assert not room.queue.dead_letters
    room.store.down = set()
    await posted
    assert payloads(await room.read("bob")) == [b"tea?"]
    assert len(room.queue.dead_letters) == 1


class Kept:
    """A store that is told what stays open."""

    async def leave_open(self, user: str, origin: bytes, cid: int, now_ms: int) -> None:
        """Nothing comes of it here."""


async def test_halving_finds_every_bad_one_in_order_and_asks_no_more_than_it_must() -> None:
    posts = [entry(cid) for cid in range(1, 65)]
    worked: list[int] = []
    rounds = 0

    async def work(some: Any) -> list[EntryPost]:
        nonlocal rounds
        rounds += 1
        cids = [post.cid for post in some]
        if set(cids) & {5, 40}:
            raise ValueError("poison")
        worked.extend(cids)
        return []

    _, bad = await Salvage(work, Kept(), lambda: 0, None).run(posts)  # type: ignore[arg-type]
    assert [post.cid for post, _ in bad if isinstance(post, EntryPost)] == [5, 40]
    assert worked == [cid for cid in range(1, 65) if cid not in (5, 40)]
    assert rounds <= 2 * 2 * 7


async def test_a_link_that_is_down_ends_the_search() -> None:
    async def work(some: Any) -> list[EntryPost]:
        raise LinkDown("away")

    with pytest.raises(LinkDown):
        await Salvage(work, Kept(), lambda: 0, None).run([entry(1), entry(2)])  # type: ignore[arg-type]
