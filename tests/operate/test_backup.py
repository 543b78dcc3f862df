"""Backup and restore as docs/backup.md says it: accounts work, what waited is delivered, and no device takes a later message
for one that it has, though it knows seqs that the backup does not."""

from __future__ import annotations

import asyncio
import shutil
import stat
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bench.cluster import Cluster
from bench.processes import Chatd
from bench.tokens import Mint
from protocol.messages import Accepted, Deliver, Drained, Send
from tests.faults.mending import mend
from tests.faults.raw_client import connected, session
from tests.operate.backups import SEEN_S_MAX, People

CREDIT_MAX = 16_384

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def people(request: pytest.FixtureRequest) -> People:
    return People(f"{abs(hash(request.node.nodeid)) % 10**6}")


async def test_a_backup_of_a_running_server_is_a_folder_to_start_from(embedded_server: Chatd, people: People) -> None:
    server, saved = embedded_server, embedded_server.data_dir.with_name("saved")
    await people.move_in(server)
    await people.live_until_the_backup(server)
    await asyncio.to_thread(server.ctl, "backup", str(saved))
    await people.live_on(server)
    assert await asyncio.to_thread(server.stop) == 0
    for it in server.data_dir.iterdir():
        it.unlink()
    for it in saved.iterdir():
        shutil.copy2(it, server.data_dir)
    await server.restart()
    await people.find_all_that_there_is(server)


async def test_an_older_file_that_was_put_back_by_hand_is_accepted_first(
    embedded_server: Chatd, people: People
) -> None:
    server = embedded_server
    file = server.data_dir / "queue.sqlite"
    await people.move_in(server)
    await people.live_until_the_backup(server)
    await asyncio.to_thread(server.stop)
    older = file.read_bytes()
    await server.restart()
    await people.live_on(server)
    await asyncio.to_thread(server.stop)
    file.write_bytes(older)
    await asyncio.to_thread(server.ctl, "store", "accept")
    await server.restart()
    await people.find_all_that_there_is(server)


async def test_the_store_of_a_backup_alone_is_another_one_and_is_refused_until_it_is_accepted(
    embedded_server: Chatd, people: People
) -> None:
    server, saved = embedded_server, embedded_server.data_dir.with_name("saved")
    await people.move_in(server)
    await people.live_until_the_backup(server)
    await asyncio.to_thread(server.ctl, "backup", str(saved))
    await people.live_on(server)
    await asyncio.to_thread(server.stop)
    shutil.copy2(saved / "queue.sqlite", server.data_dir)
    server.begin()
    async with asyncio.timeout(SEEN_S_MAX):
        while server.is_running:  # noqa: ASYNC110 - it is another process
            await asyncio.sleep(0.05)
    assert server.stop() == 1
    assert "chatctl store accept" in server.log_path.read_text()
    await asyncio.to_thread(server.ctl, "store", "accept")
    await server.restart()
    await people.find_all_that_there_is(server)


async def test_a_backup_under_load_has_what_was_accepted_before_it_and_no_gap(
    embedded_server: Chatd, tmp_path: Path
) -> None:
    mint, accepted = Mint(embedded_server.data_dir), 0
    async with session(embedded_server.tcp_port, "bob", mint.token("bob")):
        pass
    async with session(embedded_server.tcp_port, "ann", mint.token("ann")) as ann:

        async def write_on() -> None:
            nonlocal accepted
            while True:
                await ann.send(Send(accepted + 1, 0, "bob", b"%d" % (accepted + 1)))
                accepted = (await ann.next(Accepted)).ref

        async with asyncio.timeout(SEEN_S_MAX), asyncio.TaskGroup() as tasks:
            writing = tasks.create_task(write_on())
            while accepted < 20:  # noqa: ASYNC110 - written by the task beside it
                await asyncio.sleep(0)
            at_least = accepted
            await asyncio.to_thread(embedded_server.ctl, "backup", str(tmp_path / "saved"))
            writing.cancel()
    copy = Chatd(tmp_path / "saved")
    copy.start()
    try:
        async with connected(copy.tcp_port) as bob:
            await bob.hello("bob", mint.token("bob"), credit=CREDIT_MAX)
            heard: list[bytes] = []
            while not isinstance(message := await bob.message(), Drained):
                assert isinstance(message, Deliver)
                heard.append(message.payload)
    finally:
        await asyncio.to_thread(copy.stop)
    assert heard == [b"%d" % number for number in range(1, len(heard) + 1)]
    assert at_least <= len(heard) <= accepted


async def test_a_backup_is_its_owners_and_goes_into_a_folder_of_its_own(tmp_path: Path) -> None:
    server, saved = Chatd(tmp_path / "chatd", env={"CHATD_TRACES_ONE_IN": "1"}), tmp_path / "saved"
    tray = server.data_dir / "dead-letters.return"
    server.start()
    try:
        await asyncio.to_thread(server.add_user, "ann")
        mint = Mint(server.data_dir)
        async with session(server.tcp_port, "ann", mint.token("ann")) as ann:
            await ann.send(Send(1, 0, "ann", b"a note"))
            await ann.next(Deliver)
        async with asyncio.timeout(SEEN_S_MAX):
            while not (server.data_dir / "traces.sqlite").exists():  # noqa: ASYNC110 - it is another process
                await asyncio.sleep(0.05)
        tray.mkdir(exist_ok=True)
        (tray / "1.part").write_bytes(b"half a letter")
        await asyncio.to_thread(server.ctl, "backup", str(saved))
        with pytest.raises(subprocess.CalledProcessError) as refused:
            await asyncio.to_thread(server.ctl, "backup", str(saved))
    finally:
        await asyncio.to_thread(server.stop)
    names = {it.name for it in saved.iterdir()}
    assert names == {"queue.sqlite", "queue.id", "keys.toml", "passwd", "traces.sqlite", "dead-letters.return"}
    assert list((saved / "dead-letters.return").iterdir()) == []
    open_to_others = {it.name for it in (saved, *saved.iterdir()) if stat.S_IMODE(it.stat().st_mode) & 0o077}
    assert open_to_others <= {"queue.id"}, "a number, no secret"
    assert "is there already" in refused.value.stderr
    assert not saved.with_name("saved.part").exists()


@pytest.fixture
async def whole(cluster: Cluster) -> AsyncIterator[Cluster]:
    """The shared cluster, whole before and after."""
    await mend(cluster)
    yield cluster
    await mend(cluster)


async def test_a_cluster_that_lost_redis_and_rabbitmq_comes_back_from_its_backup(
    whole: Cluster, people: People, tmp_path: Path
) -> None:
    node, redis, rabbit = whole.nodes[0], whole.redis, whole.rabbit
    definitions, snapshot = tmp_path / "definitions.json", redis.folder / "dump.rdb"
    await people.move_in(node)
    await people.live_until_the_backup(node)
    await asyncio.to_thread(node.ctl, "backup", str(tmp_path / "accounts"))
    assert {it.name for it in (tmp_path / "accounts").iterdir()} >= {"passwd"}
    await asyncio.to_thread(rabbit.ctl, "export_definitions", str(definitions))
    snapshot.unlink(missing_ok=True)
    redis.command("BGSAVE")
    async with asyncio.timeout(SEEN_S_MAX):
        while not snapshot.exists():  # noqa: ASYNC110 - Redis renames it when it is whole
            await asyncio.sleep(0.05)
    saved = snapshot.rename(tmp_path / "dump.rdb")
    await people.live_on(node)

    daemons = (*whole.nodes, *whole.brokers)
    for daemon in daemons:
        await asyncio.to_thread(daemon.stop)
    redis.kill9()
    rabbit.kill9()
    shutil.rmtree(rabbit.folder / "mnesia")
    log = redis.folder / "appendonlydir"
    shutil.rmtree(log)
    log.mkdir()
    shutil.copy2(saved, log / "appendonly.aof.1.base.rdb")
    (log / "appendonly.aof.manifest").write_text("file appendonly.aof.1.base.rdb seq 1 type b\n")
    redis.start()
    await rabbit.start_soon()
    await asyncio.to_thread(rabbit.ctl, "import_definitions", str(definitions))
    shutil.copy2(tmp_path / "accounts" / "passwd", node.data_dir)
    await asyncio.to_thread(node.ctl, "store", "accept")
    for daemon in daemons:
        daemon.begin()
    for each in whole.nodes:
        await asyncio.to_thread(each.wait_serving)
    await people.find_all_that_there_is(node)
