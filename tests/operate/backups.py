"""People around a backup: what is read before it, what waits at it, what comes behind it, and what a device then knows."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from bench.processes import Chatd
from protocol.connection import OUR_PREFACE
from protocol.messages import Accepted, Ack, Deliver, Drained, Send, Welcome
from protocol.wire import Scheme
from tests.faults.raw_client import RawClient, connected, hello

SEEN_S_MAX = 30.0


@dataclass
class People:
    """ann writes to bob's phone. Her cids, and his position and generation, go on over sessions and over a restore."""

    tag: str
    passwords: dict[str, str] = field(default_factory=dict)
    cid: int = 0
    head: int = 0
    seq: int = 0
    generation: bytes = b""

    @property
    def ann(self) -> str:
        return f"ann{self.tag}"

    @property
    def bob(self) -> str:
        return f"bob{self.tag}"

    async def move_in(self, node: Chatd) -> None:
        """Both get an account."""
        for name in (self.ann, self.bob):
            self.passwords[name] = await asyncio.to_thread(node.add_user, name)

    async def write(self, node: Chatd, *texts: bytes) -> None:
        """Until they lie in his queue."""
        async with connected(node.tcp_port) as ann:
            answer = await ann.hello(self.ann, self.passwords[self.ann], scheme=Scheme.PASSWORD)
            assert isinstance(answer, Welcome), answer
            for text in texts:
                self.cid += 1
                await ann.send(Send(self.cid, 0, self.bob, text))
                await ann.next(Accepted)
        self.head += len(texts)
        async with asyncio.timeout(SEEN_S_MAX):
            while (await asyncio.to_thread(queue_of, node, self.bob))["head"] < self.head:
                continue

    async def read(self, node: Chatd, count: int) -> list[bytes]:
        """What waits for the phone, which says where it stands; `count` of it is acknowledged and kept as its position."""
        async with connected(node.tcp_port) as bob:
            welcome = await self._log_in(bob)
            if welcome.generation != self.generation:
                self.generation, self.seq = welcome.generation, welcome.cursor
            heard: list[bytes] = []
            while not isinstance(message := await bob.message(), Drained):
                assert isinstance(message, Deliver), message
                heard.append(message.payload)
                assert message.ref == welcome.cursor + len(heard)
            assert len(heard) == count, heard
            self.seq = welcome.cursor + len(heard)
            await bob.send(Ack(self.seq, 0))
            await self._wait_acknowledged(node)
        return heard

    async def _log_in(self, bob: RawClient) -> Welcome:
        words = self.bob, self.passwords[self.bob]
        said = hello(*words, device="phone", scheme=Scheme.PASSWORD)._replace(ref=self.seq, generation=self.generation)
        await bob.send(OUR_PREFACE, said)
        return await bob.next(Welcome)

    async def _wait_acknowledged(self, node: Chatd) -> None:
        async with asyncio.timeout(SEEN_S_MAX):
            while (await asyncio.to_thread(queue_of, node, self.bob))["devices"]["phone"]["cursor"] < self.seq:
                continue

    async def live_until_the_backup(self, node: Chatd) -> None:
        """Two are read, three wait."""
        await self.read(node, 0)
        await self.write(node, b"1", b"2")
        assert await self.read(node, 2) == [b"1", b"2"]
        await self.write(node, b"3", b"4", b"5")

    async def live_on(self, node: Chatd) -> None:
        """Two more come, all is read: the device now knows seqs that no backup has."""
        await self.write(node, b"lost 6", b"lost 7")
        assert await self.read(node, 5) == [b"3", b"4", b"5", b"lost 6", b"lost 7"]

    async def find_all_that_there_is(self, node: Chatd) -> None:
        """On what was restored: what waited at the backup comes (again), and so do new ones under the seqs that the phone
        believes to have: more of them than were lost, or it would notice by itself."""
        self.head = 5
        await self.write(node, b"new 6", b"new 7", b"new 8")
        assert await self.read(node, 6) == [b"3", b"4", b"5", b"new 6", b"new 7", b"new 8"]


def queue_of(node: Chatd, user: str) -> dict[str, Any]:
    """chatctl queue --json."""
    told: dict[str, Any] = json.loads(node.ctl("queue", user, "--json"))
    return told
