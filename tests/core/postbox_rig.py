"""A postbox with an inbound queue that the test opens, shuts and answers for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from brokerd.ports import LinkDown
from chatd.effects import Gate, PostEntry
from chatd.postbox import REFUSED_RETRY_MS, Postbox
from protocol.envelope import (
    EntryPost,
    Post,
    PostKind,
    unpack_posts,
)
from protocol.errors import Code
from protocol.names import shard_of
from protocol.wire import Processed, Type

SHARDS = 4
ANN, BOB = "ann", "bob"  # on two shards
assert shard_of(ANN, SHARDS) != shard_of(BOB, SHARDS)


class Window:
    """An inbound queue whose window the test opens and shuts, and whose confirms it gives."""

    def __init__(self) -> None:
        self.is_ready = True
        self.room = 1 << 30  # batches until it shuts by itself
        self.posted: list[tuple[int, bytes, asyncio.Future[None]]] = []

    def post(self, shard: int, batch: bytes) -> asyncio.Future[None]:
        if not self.is_ready:
            raise LinkDown("shut")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.posted.append((shard, batch, done))
        self.room -= 1
        self.is_ready = self.room > 0
        return done

    def batches(self) -> list[tuple[int, list[Post]]]:
        """What was posted, by shard."""
        return [(shard, unpack_posts(batch)[1]) for shard, batch, _ in self.posted]


@dataclass(eq=False)
class Poster:
    """Hears the answers."""

    heard: list[object] = field(default_factory=list)

    def accepted(self, cids: Sequence[int]) -> None:
        self.heard.append(list(cids))

    def refused(self, cid: int, code: Code, processed: Processed, retry_after_ms: int) -> None:
        self.heard.append((cid, code, processed, retry_after_ms))


class Rig:
    def __init__(self) -> None:
        self.window = Window()
        self.gate = Gate(SHARDS)
        self.wakes = 0
        self.box = Postbox("n1", SHARDS, self.window, self.gate, self.wake)
        self.poster = Poster()

    def wake(self) -> None:
        self.wakes += 1

    def wait_out_acks(self) -> None:
        """The time that acknowledgements wait for a message passes."""
        self.box.age_acks()
        self.box.age_acks()
        self.box.flush()

    async def confirm(self, at: int = 0, fault: Exception | None = None) -> None:
        """The queue answers the batch at `at` of those posted."""
        done = self.window.posted[at][2]
        if fault is None:
            done.set_result(None)
        else:
            done.set_exception(fault)
        await asyncio.sleep(0)


def entry(to: str, cid: int, body: bytes = b"x") -> EntryPost:
    return EntryPost(PostKind.ENTRY, to, b"t" * 9, cid, Type.DELIVER, 0, 1, body)


def single(cid: int, to: str = BOB, body: bytes = b"x") -> PostEntry:
    return PostEntry(cid, entry(to, cid, body), None)


def copied(cid: int) -> PostEntry:
    return PostEntry(cid, entry(BOB, cid), entry(ANN, cid))


def refused(cid: int, processed: Processed) -> tuple[object, ...]:
    return (cid, Code.BUSY, processed, REFUSED_RETRY_MS)
