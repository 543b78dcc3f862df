"""Two people who talk while things break: everything said must be heard once, in order, and its sender told."""

from __future__ import annotations

import asyncio
import itertools
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from json import loads

from bench.processes import Chatd
from protocol.client import Backoff, Client
from protocol.messages import Deliver, Receipt
from protocol.wire import Status

HOST = "127.0.0.1"
HEARD_S_MAX = 40.0
_numbers = itertools.count()


def quick() -> Backoff:
    """Tries again at once: a test does not wait out a back-off."""
    return Backoff(lambda low, high: 0.05)


class Talk:
    """ann says, bob hears."""

    def __init__(self, ann: Client, bob: Client, names: tuple[str, str]) -> None:
        self.ann, self.bob = ann, bob
        self.ann_name, self.bob_name = names
        self.said: list[tuple[bytes, bytes]] = []
        self.heard: list[tuple[bytes, bytes]] = []
        self.delivered: set[bytes] = set()
        self.ended_otherwise = 0  # receipts that say EXPIRED or FAILED
        self.s_max = HEARD_S_MAX
        self._news = asyncio.Event()
        self._count = 0

    async def say(self, count: int) -> None:
        """Post, and wait until all of it is accepted."""
        texts = [b"line %d" % number for number in range(self._count, self._count + count)]
        self._count += count
        async with asyncio.timeout(self.s_max):
            answers = []
            for text in texts:
                await self.ann.wait_room()
                answers.append(self.ann.post(self.bob_name, text, receipt=True))
            ids = await asyncio.gather(*answers)
        self.said += zip(ids, texts, strict=True)

    async def listen(self) -> None:
        """bob's loop."""
        async for message in self.bob:
            if isinstance(message, Deliver):
                self.heard.append((message.id, message.payload))
                self._news.set()

    async def take_receipts(self) -> None:
        """ann's loop."""
        async for message in self.ann:
            if isinstance(message, Receipt) and message.status == Status.DELIVERED:
                self.delivered |= set(message.ids)
                self._news.set()
            elif isinstance(message, Receipt) and message.status in (Status.EXPIRED, Status.FAILED):
                self.ended_otherwise += len(message.ids)

    async def wait_all_heard(self, *before: tuple[bytes, bytes]) -> None:
        """Until bob has every line and ann every receipt; then they are compared. `before`: id and text of what ann posted from
        elsewhere, before all that she said."""
        count = len(before) + len(self.said)
        try:
            async with asyncio.timeout(self.s_max):
                while len(self.heard) < count or len(self.delivered) < count:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(
                f"of {count} lines {len(self.heard)} were heard, {len(self.delivered)} told as delivered and"
                f" {self.ended_otherwise} as expired or failed within {self.s_max:g} s; ann: {self.ann.state}, bob: {self.bob.state}"
            ) from None
        # all of it, once, with the ids that the sender knows, in the order in which it was posted: ids end with the cid
        assert self.heard == [*before, *sorted(self.said)]
        assert self.delivered == {id_ for id_, _ in (*before, *self.said)}


@asynccontextmanager
async def talking(ann_node: Chatd, bob_node: Chatd) -> AsyncIterator[Talk]:
    """New people for each talk, on these nodes."""
    number = next(_numbers)
    names = (f"ann{number}", f"bob{number}")
    words = [await asyncio.to_thread(ann_node.add_user, name) for name in names]
    async with (
        Client(HOST, ann_node.tcp_port, names[0], "laptop", password=words[0], backoff=quick()) as ann,
        Client(HOST, bob_node.tcp_port, names[1], "phone", password=words[1], backoff=quick()) as bob,
        asyncio.TaskGroup() as tasks,
    ):
        talk = Talk(ann, bob, names)
        loops = [tasks.create_task(talk.listen()), tasks.create_task(talk.take_receipts())]
        await ann.wait_connected()
        await bob.wait_connected()
        yield talk
        for task in loops:
            task.cancel()


async def wait_ready(node: Chatd, *, not_up: str | None = None, s_max: float = 30.0) -> None:
    """Until /readyz says 200, or 503 because of the part `not_up`."""
    async with asyncio.timeout(s_max):
        while True:
            status, parts = await asyncio.to_thread(_readyz, node)
            if (status == 200) if not_up is None else (status == 503 and parts.get(not_up, "up") != "up"):
                return
            await asyncio.sleep(0.05)


def _readyz(node: Chatd) -> tuple[int, dict[str, str]]:
    try:
        with urllib.request.urlopen(f"http://{HOST}:{node.http_port}/readyz", timeout=5) as answer:
            return answer.status, loads(answer.read())["parts"]
    except urllib.error.HTTPError as refused:
        return refused.code, loads(refused.read())["parts"]
    except OSError:
        return 0, {}
