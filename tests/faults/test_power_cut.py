"""F05: the power goes. What was accepted is there afterwards, where the servers fsync before they answer; and only there."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest

from bench.processes import Chatd
from bench.rabbit_server import RabbitServer
from bench.servers import RedisServer, ServerFailed
from tests.faults.own_town import OwnTown, Speaker
from tests.faults.power import Disk, cut_power, why_no_power

LINES_MIN = 200
SPOKEN_S_MAX = 60.0
# Redis' everysec fsyncs just behind each full second of the clock; so late in a second the most is at stake.
WORST_MOMENT = (0.75, 0.95)


@pytest.fixture(scope="module", autouse=True)
def _power() -> None:
    if reason := why_no_power():
        pytest.skip(reason)


async def until_worst_moment(*speakers: Speaker) -> None:
    """Until everybody has said a good deal, and the second is nearly over."""
    async with asyncio.timeout(SPOKEN_S_MAX):
        while True:
            has_said = min(len(speaker.accepted) for speaker in speakers) >= LINES_MIN
            if has_said and WORST_MOMENT[0] < time.time() % 1 < WORST_MOMENT[1]:
                return
            await asyncio.sleep(0.01)


@asynccontextmanager
async def talking(*speakers: Speaker) -> AsyncIterator[None]:
    """They speak meanwhile; afterwards everything that they began is accepted."""
    async with asyncio.timeout(SPOKEN_S_MAX), asyncio.TaskGroup() as tasks:
        for speaker in speakers:
            tasks.create_task(speaker.talk())
        yield
        for speaker in speakers:
            speaker.end()


async def started(*starts: Callable[[], None]) -> None:
    """All of them, beside each other; a failure is told when none is on its way any more."""
    done = await asyncio.gather(*(asyncio.to_thread(start) for start in starts), return_exceptions=True)
    for fault in done:
        if fault is not None:
            raise fault


def start_after_a_cut(redis: RedisServer) -> None:
    """Start it; what an fsync in the background left half written at the end of the file, Redis tells an operator to cut
    off. With `always` there is no such end."""
    try:
        redis.start()
    except ServerFailed:
        [manifest] = redis.folder.glob("appendonlydir/*.manifest")
        subprocess.run(["redis-check-aof", "--fix", manifest], input=b"y\n", check=True, capture_output=True)
        redis.start()


async def test_f05_a_power_cut_of_redis_and_rabbitmq_takes_nothing_that_was_accepted_unless_redis_fsyncs_only_every_second(
    tmp_path: Path,
) -> None:
    with ExitStack() as stack:
        disks = [
            stack.enter_context(Disk(tmp_path / name, mib=mib)) for name, mib in (("a", 100), ("e", 100), ("r", 600))
        ]
        always = RedisServer(disks[0].path / "redis", appendfsync="always")
        everysec = RedisServer(disks[1].path / "redis", appendfsync="everysec")
        rabbit = RabbitServer(disks[2].path / "rabbit")
        servers = (always, everysec, rabbit)
        towns = [OwnTown(tmp_path, name, redis, rabbit) for name, redis in (("always", always), ("everysec", everysec))]
        for end in (*(server.stop for server in servers), *(town.stop for town in towns)):
            stack.callback(end)
        await started(*(server.start for server in servers))
        await asyncio.gather(*(town.start() for town in towns))
        speakers = [Speaker(town.nodes[0]) for town in towns]
        await asyncio.gather(*(speaker.introduce() for speaker in speakers))
        for disk in disks:
            disk.settle()
        async with talking(*speakers):
            await until_worst_moment(*speakers)
            cut_power(disks, lambda: [server.kill9() for server in (everysec, always, rabbit)])
            await started(always.start, rabbit.start, lambda: start_after_a_cut(everysec))
        kept, lost = [await speaker.heard() for speaker in speakers]
        assert kept == speakers[0].accepted
        assert len(lost) < len(speakers[1].accepted), "nothing is lost under everysec: this test does not bite"


async def test_f05_a_power_cut_takes_nothing_that_the_embedded_server_accepted(tmp_path: Path) -> None:
    with Disk(tmp_path / "s") as disk:
        server = Chatd(disk.path / "chatd")
        await server.restart()
        try:
            speaker = Speaker(server)
            await speaker.introduce()
            async with talking(speaker):
                await until_worst_moment(speaker)
                cut_power([disk], server.kill9)
                await server.restart()
            assert await speaker.heard() == speaker.accepted
        finally:
            server.stop()
