"""F12: a store that is full: Redis at maxmemory, SQLite's and Redis' disk."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from protocol.errors import Code
from protocol.messages import Accepted, Ack, Deliver, Error, Send
from tests.faults.raw_client import RawClient, session
from tests.overload.bounds import READY_S_MAX, REOPEN_S_MAX
from tests.overload.crowd import Child
from tests.overload.publishers import flooded
from tests.overload.site import Row, Site, embedded_site, readyz, wait_readyz, watched
from tests.overload.watch import until

_numbers = itertools.count(int(time.time()))
FILLERS = 10  # pairs that fill Redis, one message of each at a time: /readyz and the gate follow once a second
HOLD_S = 5.0
NO_ROOT = "mounting a small disk needs root"


@contextmanager
def small_disk(folder: Path, mib: int) -> Iterator[Path]:
    """A file system of so many MiB at `folder`, which needs root; it is gone afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "none", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def may_mount() -> bool:
    """Whether small_disk will work."""
    return os.geteuid() == 0


class Eater:
    """Eats a disk up, and gives it back."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "eaten"

    def eat(self) -> None:
        """Until nothing is left."""
        with self._path.open("wb", buffering=0) as file:
            for size in (1 << 16, 1 << 12, 1 << 8, 1):
                while True:
                    try:
                        if not file.write(bytes(size)):
                            break
                    except OSError:
                        break

    def give_back(self) -> None:
        """All of it."""
        self._path.unlink(missing_ok=True)


async def redis_full(site: Site, room_mib: int = 64, payload_bytes: int = 8_192, s_max: float = 60.0) -> Row:
    """maxmemory is set a little over what Redis uses; senders fill it for receivers who are away; these come and drain it."""
    assert site.cluster is not None
    redis, node, number = site.cluster.redis, site.nodes[0], next(_numbers)
    used = _info(redis.command("INFO", "memory"), b"used_memory")
    quota = 8 * room_mib * 2**20 // payload_bytes // FILLERS  # more than leaves before a node looks at Redis again
    spec = site.spec(
        "flood", f"rf{number}n", 100, senders=FILLERS, receivers=FILLERS, bytes=payload_bytes, window=1, quota=quota, late=1,
        seconds=s_max, drain_s=90.0,
    )  # fmt: skip
    async with Child(spec) as crowd, watched(site, "F12 Redis at maxmemory", served=False) as it:
        row = it.row
        await _make_known(site, [f"rf{number}nr{place}" for place in range(FILLERS)])
        await crowd.line()
        redis.command("CONFIG", "SET", "maxmemory", str(used + room_mib * 2**20))
        try:
            crowd.say("go")
            is_told, full_s = await wait_readyz(node, "redis", "nearly full", s_max)
            row.check(is_told, f"/readyz does not say that Redis is full: {readyz(node)}")
            await asyncio.sleep(HOLD_S)
            crowd.say("enough")
            during = await crowd.line()
            busy = during["codes"].get(str(int(Code.BUSY)), 0)
            row.check(busy > 0, f"senders were not told BUSY: {during['codes']}")
            row.told.append(f"SEND: BUSY ({busy}x); /readyz: redis nearly full; logins and ACKs go on")
            crowd.say("come")  # the receivers: what they acknowledge makes room, and the senders go on
            figures = await crowd.line()
            row.check(figures["missing"] == 0, f"{figures['missing']} accepted messages have no end")
            row.check(figures["duplicates"] == 0, f"{figures['duplicates']} came twice")
            peak = _info(redis.command("INFO", "memory"), b"used_memory_peak")
            row.facts |= {"full_after_s": round(full_s, 1), "drained_s": round(figures["drained_s"], 1)}
            row.facts["over_by_MiB"] = round(max(0, peak - used - room_mib * 2**20) / 2**20, 1)
            is_ready, ready_s = await wait_readyz(node, None, "", READY_S_MAX)
            row.check(is_ready, "not ready again though all was drained, and maxmemory as low as before")
            row.facts["ready_again_s"] = round(ready_s, 1)
        finally:
            redis.command("CONFIG", "SET", "maxmemory", "0")
    return row


async def _make_known(site: Site, names: list[str]) -> None:
    for name in names:
        async with session(site.nodes[-1].tcp_port, name, site.mint.token(name), "d"):
            pass


def _info(answer: bytes, field: bytes) -> int:
    [line] = [line for line in answer.splitlines() if line.startswith(field + b":")]
    return int(line.partition(b":")[2])


async def sqlite_disk_full(folder: Path, mib: int = 24) -> Row:
    """Embedded: the disk of the data folder (its log is there too) is full, and then it is not."""
    with small_disk(folder, mib) as disk, embedded_site(disk) as site:
        eater, node, number = Eater(disk), site.nodes[0], next(_numbers)
        names = {who: f"{who}{number}" for who in ("ann", "bob")}
        async with (
            watched(site, "F12 SQLite's disk is full", served=False) as it,
            session(node.tcp_port, names["bob"], site.mint.token(names["bob"])) as bob,
            session(node.tcp_port, names["ann"], site.mint.token(names["ann"])) as ann,
        ):
            row = it.row
            accepted = set(await _say(ann, names["bob"], 1))
            eater.eat()
            error, more = await _until_busy(ann, names["bob"])
            accepted |= more
            row.told.append(f"SEND: {Code(error.code).name}, retry_after {error.retry_after_ms} ms")
            is_told, _ = await wait_readyz(node, "store", "full", READY_S_MAX)
            row.check(is_told, f"/readyz does not say that the disk is full: {readyz(node)}")
            row.told.append("/readyz: store: database or disk is full")
            eater.give_back()
            is_ready, ready_s = await wait_readyz(node, None, "", REOPEN_S_MAX)
            row.check(is_ready, "not ready again though there is room")
            row.facts["ready_again_s"] = round(ready_s, 1)
            accepted |= set(await _resend(ann, names["bob"], error.ref))
            heard = await _hear(bob, accepted)
            row.check(heard == sorted(set(heard)), "something came twice or out of order")
            row.check(accepted <= set(heard), f"{len(accepted - set(heard))} accepted messages were lost")
    return row


async def _say(ann: RawClient, to: str, cid: int) -> tuple[int, ...]:
    await ann.send(Send(cid, 0, to, b"%d" % cid))
    return (await ann.next(Accepted)).cids


async def _until_busy(ann: RawClient, to: str) -> tuple[Error, set[int]]:
    """Send until it is refused; what was accepted before (or has no answer yet) is told apart later."""
    accepted: set[int] = set()
    for cid in itertools.count(2):
        await ann.send(Send(cid, 0, to, b"%d" % cid + bytes(20_000)))
        try:
            async with asyncio.timeout(0.2):
                message = await ann.message()
        except TimeoutError:
            continue
        if isinstance(message, Error):
            return message, accepted
        if isinstance(message, Accepted):
            accepted |= set(message.cids)
    raise AssertionError("never")


async def _resend(ann: RawClient, to: str, cid: int) -> list[int]:
    """The refused one, until it is accepted; all that is told accepted by then."""
    accepted: list[int] = []
    while cid not in accepted:
        await ann.send(Send(cid, 0, to, b"%d" % cid))
        while not isinstance(message := await ann.message(), Accepted | Error):
            assert message is not None
        if isinstance(message, Accepted):
            accepted += message.cids
        else:
            await asyncio.sleep(0.2)
    return accepted


async def _hear(bob: RawClient, accepted: set[int]) -> list[int]:
    heard: list[int] = []
    while not accepted <= set(heard):
        message = await bob.next(Deliver)
        heard.append(int(message.payload.rstrip(b"\0")))
        await bob.send(Ack(message.ref, 0))
    await bob.still_works()
    return heard


async def redis_disk_full(site: Site, eater: Eater, senders: int = 10, s_max: float = 15.0) -> Row:
    """Redis' own disk is full: with appendfsync always it ends. What was accepted waits in RabbitMQ until it is back."""
    assert site.cluster is not None
    redis, node, number = site.cluster.redis, site.nodes[0], next(_numbers)
    spec = site.spec(
        "flood",
        f"rd{number}n",
        110,
        senders=senders,
        receivers=senders,
        bytes=1_000,
        window=32,
        seconds=s_max,
        drain_s=90.0,
    )
    async with Child(spec) as crowd, watched(site, "F12 Redis' disk is full", served=False) as it:
        row = it.row
        await crowd.line()
        flooding = asyncio.create_task(flooded(crowd, it))
        eater.eat()
        is_told, _ = await wait_readyz(node, "redis", "onnect", READY_S_MAX)
        row.check(is_told, f"/readyz does not say that Redis is away: {readyz(node)}")
        row.told.append("ACCEPTED goes on (RabbitMQ has it), logins STORE_DOWN; /readyz: redis, Connection refused")
        await until(lambda: not _lives(redis.pid), 10.0)
        eater.give_back()
        await asyncio.to_thread(redis.restart)
        it.sampler.moved(site.pids)
        row.check((await wait_readyz(node, None, "", READY_S_MAX))[0], "not ready again though Redis is back")
        await flooding
    return row


def _lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return stat.read().rsplit(b")", 1)[1].split()[0] != b"Z"
    except OSError:
        return False
