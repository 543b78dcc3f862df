"""What users, devices and waiting messages cost in Redis and in SQLite, and a connection in the kernel: `make sizes`.

The product's own adapters fill a private Redis and a file; what it grew by, over how many there are, is a figure. Memory
does not depend on what else the machine does, so one run is enough.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import structlog

from bench.servers import RedisServer
from brokerd.links.redis import RedisStore
from brokerd.links.resp import RespLink
from brokerd.links.sqlite import SqliteSentQueue
from brokerd.links.sqlite_backup import back_up_file
from brokerd.ports import Ack, Append, Entry, Seat, SentQueue
from chatd.posts import Origin, message_post
from protocol.names import device_tag, message_id

USERS: Final = 20_000
EACH: Final = 10  # messages that wait for one user, in a step
AT_ONCE: Final = 500
SOCKETS: Final = 4_000
NOW_MS: Final = 1_795_000_000_000
GENERATION: Final = b"genera01"
Step = tuple[str, int, Callable[[], Awaitable[Any]]]


class Filler:
    """Gives a store its users, devices and messages, some hundreds at a time."""

    def __init__(self, store: SentQueue, users: int, stem: str = "user") -> None:
        self._store = store
        self._users = [f"{stem}{number:08}" for number in range(users)]

    async def each(self, act: Callable[[str], Awaitable[Any]]) -> None:
        for at in range(0, len(self._users), AT_ONCE):
            await asyncio.gather(*(act(user) for user in self._users[at : at + AT_ONCE]))

    async def users(self) -> None:
        await self.each(lambda user: self._store.create_user(user, GENERATION, NOW_MS))

    async def device(self, name: str) -> None:
        await self.each(lambda user: self._store.open(user, name, GENERATION, NOW_MS))

    async def write(self, sender: str, first: int, count: int, size: int) -> None:
        by = Origin(sender, device_tag(sender, "phone"))

        def entry(user: str, cid: int) -> Entry:
            post = message_post(by, cid, user, message_id(by.tag, cid), 0, os.urandom(size), None, NOW_MS)
            return Entry(post.origin, post.cid, post.type, post.flags, post.expires_ms, post.body)

        for at in range(0, len(self._users), AT_ONCE):
            some = self._users[at : at + AT_ONCE]
            appends = [Append(user, [entry(user, cid) for cid in range(first, first + count)]) for user in some]
            await self._store.append(appends, NOW_MS)

    async def read_all(self, devices: tuple[str, ...]) -> None:
        for at in range(0, len(self._users), AT_ONCE):
            some = self._users[at : at + AT_ONCE]
            acks = [Ack(user, device, 10**6, 0, GENERATION) for user in some for device in devices]
            await self._store.acknowledge(acks, NOW_MS)

    def steps(self) -> list[Step]:
        """What is done, and how many of what it adds."""
        n = len(self._users)
        return [
            ("a user who is known", n, self.users),
            ("the first device of a user", n, lambda: self.device("phone")),
            ("a further device", n, lambda: self.device("laptop")),
            ("the first message to a user in a month, 100 bytes", n,
             lambda: self.write("ann", 1, 1, 100)),
            ("the first message of a further sender, 100 bytes", n, lambda: self.write("bea", 1, 1, 100)),
            ("a message that waits, 100 bytes", n * EACH, lambda: self.write("ann", 2, EACH, 100)),
            ("a message that waits, 1,000 bytes", n * EACH, lambda: self.write("ann", 2 + EACH, EACH, 1000)),
        ]  # fmt: skip


@asynccontextmanager
async def redis_store(server: RedisServer) -> AsyncIterator[RedisStore]:
    link = RespLink(server.url, name="sizes")
    running = asyncio.create_task(link.run())
    try:
        await link.wait_ready()
        yield RedisStore(link, log=structlog.get_logger())
    finally:
        running.cancel()
        await asyncio.wait([running])


def info(server: RedisServer, section: str, field: str) -> int:
    told = server.command("INFO", section).decode()
    return int(next(line for line in told.splitlines() if line.startswith(field + ":")).partition(":")[2])


async def in_redis(folder: Path, users: int) -> None:
    with RedisServer(
        folder / "redis", appendfsync="everysec", options=("--auto-aof-rewrite-percentage", "0")
    ) as server:
        async with redis_store(server) as store:
            filler = Filler(store, users)
            seat = [
                ("a seat: a session that is there", users,
                 lambda: filler.each(lambda user: store.claim(user, Seat("phone", "node1:1a20d98bf466882", "123.4567890"))))
            ]  # fmt: skip
            await Filler(store, AT_ONCE, "warm").users()  # buffers, and what else a first call makes
            base = info(server, "memory", "used_memory")
            print(f"Redis: {users:,} users; bytes of used_memory, and of the append-only file, for each")
            for what, count, act in (*filler.steps()[:3], *seat, *filler.steps()[3:]):
                await told_redis(server, what, count, act)
            all_used, rss = info(server, "memory", "used_memory"), info(server, "memory", "used_memory_rss")
            await filler.read_all(("phone", "laptop"))
            left = (info(server, "memory", "used_memory") - base) / users
            print(f"{left:10.0f}          what is left of such a user when all is acknowledged")
            print(f"{all_used / rss:10.2f}          used_memory by resident memory, before that")
            print()


async def told_redis(server: RedisServer, what: str, count: int, act: Callable[[], Awaitable[Any]]) -> None:
    before, file = info(server, "memory", "used_memory"), info(server, "persistence", "aof_current_size")
    await act()
    grown = info(server, "memory", "used_memory") - before
    print(f"{grown / count:10.0f} {(info(server, 'persistence', 'aof_current_size') - file) / count:7.0f}  {what}")


async def in_sqlite(folder: Path, users: int) -> None:
    print(f"SQLite: {users:,} users; bytes of queue.sqlite for each")
    path = folder / "queue.sqlite"
    size = 0
    async with SqliteSentQueue(path) as store:
        for what, count, act in Filler(store, users).steps():
            await act()
            copy = folder / "copy"  # without what the write-ahead log holds twice
            back_up_file(path, copy)
            before, size = size, copy.stat().st_size
            copy.unlink()
            print(f"{(size - before) / count:10.0f}  {what}")
    print()


def slab() -> int:
    """Bytes of the kernel's own objects."""
    line = next(it for it in Path("/proc/meminfo").read_text().splitlines() if it.startswith("Slab:"))
    return int(line.split()[1]) * 1024


def in_the_kernel(sockets: int) -> None:
    """Both ends of a connection are here, so it is halved. Buffers are empty, as those of an idle session."""
    with ExitStack() as stack, socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        before = slab()
        for _ in range(sockets):
            stack.enter_context(socket.create_connection(server.getsockname()))
            stack.enter_context(server.accept()[0])
        print(
            f"Kernel: {(slab() - before) / (2 * sockets):.0f} bytes (Slab) for each end of an idle connection, {sockets:,} of them"
        )


async def main() -> None:
    parser = argparse.ArgumentParser("sizes", description=__doc__)
    parser.add_argument("--users", type=int, default=USERS)
    parser.add_argument("--sockets", type=int, default=SOCKETS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sizes-") as name:
        await in_redis(Path(name), options.users)
        await in_sqlite(Path(name), options.users)
    in_the_kernel(options.sockets)


if __name__ == "__main__":
    asyncio.run(main())
