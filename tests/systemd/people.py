"""Clients of a chatd in a machine: a talk that must not lose a line, and a crowd that knocks and counts who was refused."""

from __future__ import annotations

import asyncio
import errno
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from bench.tokens import Mint
from protocol.client import Backoff, Client
from protocol.messages import Deliver
from tests.faults.talk import HOST, Talk, quick

PORT = 7400
KNOCKERS = 8
KNOCK_S = 0.005
_numbers = itertools.count()


def client(mint: Mint, name: str, device: str = "phone", backoff: Callable[[], Backoff] = quick) -> Client:
    """A device of somebody whom the token makes known."""
    return Client(HOST, PORT, name, device, token=mint.token(name), backoff=backoff())


@asynccontextmanager
async def talking(mint: Mint) -> AsyncIterator[Talk]:
    """Two new people, connected."""
    number = next(_numbers)
    names = (f"ann{number}", f"bob{number}")
    async with client(mint, names[0]) as ann, client(mint, names[1]) as bob, asyncio.TaskGroup() as tasks:
        talk = Talk(ann, bob, names)
        loops = [tasks.create_task(talk.listen()), tasks.create_task(talk.take_receipts())]
        await ann.wait_connected()
        await bob.wait_connected()
        yield talk
        for task in loops:
            task.cancel()


class Knocking:
    """Connects again and again, and counts how it went: "taken", "refused", or another error's name."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.longest_s = 0.0

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(KNOCKERS):
                tasks.create_task(self._knock())

    async def _knock(self) -> None:
        while True:
            begin_s = time.monotonic()
            try:
                _, writer = await asyncio.open_connection(HOST, PORT)
            except OSError as fault:
                self.counts["refused" if fault.errno == errno.ECONNREFUSED else type(fault).__name__] += 1
            else:
                self.counts["taken"] += 1
                writer.close()
            self.longest_s = max(self.longest_s, time.monotonic() - begin_s)
            await asyncio.sleep(KNOCK_S)


@asynccontextmanager
async def knocking() -> AsyncIterator[Knocking]:
    """While it is open somebody knocks."""
    crowd = Knocking()
    task = asyncio.get_running_loop().create_task(crowd.run())
    try:
        yield crowd
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def next_text(device: Client) -> bytes:
    """The next message that comes."""
    async with asyncio.timeout(30):
        while not isinstance(message := await anext(device), Deliver):
            pass
    return message.payload
