"""What a client keeps, and that it goes on with it after its own death."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

import protocol.client_store
from protocol.client import Client, Connected, FileStore, MemoryStore, Refused, StoreBusy
from protocol.client_store import Change, Kept
from protocol.messages import Deliver, Read, Send
from tests.client.manual_clock import ManualClock
from tests.client.small_server import SmallServer

MakeClient = Callable[..., Client]
SENDS = [Send(cid, 1, "bob", b"text %d" % cid, None) for cid in (5, 6, 7)]
READ = Read(8, 0, "bob", (bytes(16),))


def reopened(path: Path) -> Kept:
    store = FileStore(path)
    kept = store.load()
    store.close()
    return kept


def filled(path: Path) -> None:
    store = FileStore(path)
    store.load()
    store.save(Change([*SENDS, READ], [], None))
    store.save(Change([], [6], (b"g" * 8, 41)))
    store.close()


@pytest.mark.parametrize("make", [lambda path: MemoryStore(), FileStore], ids=["memory", "file"])
def test_a_store_gives_back_what_was_not_answered_the_place_and_the_next_cid(
    tmp_path: Path, make: Callable[[Path], MemoryStore]
) -> None:
    store = make(tmp_path / "store")
    assert store.load() == Kept(0, b"", 0, ())
    store.save(Change([*SENDS, READ], [], None))
    store.save(Change([], [6], (b"g" * 8, 41)))
    store.close()
    if isinstance(store, FileStore):
        store = make(tmp_path / "store")
    assert store.load() == Kept(9, b"g" * 8, 41, (SENDS[0], SENDS[2], READ))
    store.close()


def test_the_next_cid_outlives_the_last_answer(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "store")
    store.load()
    store.save(Change(SENDS, [5, 6, 7], None))
    store.close()
    assert reopened(tmp_path / "store").next_cid == 8
    assert reopened(tmp_path / "store").next_cid == 8, "also after the journal was written anew"


def test_a_journal_torn_at_any_byte_gives_back_what_was_whole(tmp_path: Path) -> None:
    filled(tmp_path / "whole")
    data = (tmp_path / "whole").read_bytes()
    counts = set()
    for end in range(len(data) + 1):
        path = tmp_path / "torn"
        path.write_bytes(data[:end])
        kept = reopened(path)
        assert set(kept.unanswered) <= {*SENDS, READ}
        counts.add(len(kept.unanswered))
        assert reopened(path) == kept, "and is whole from then on"
    assert counts == {0, 1, 2, 3, 4}


def test_what_is_kept_behind_a_torn_end_is_found_again(tmp_path: Path) -> None:
    filled(tmp_path / "store")
    with (tmp_path / "store").open("r+b") as file:
        file.truncate((tmp_path / "store").stat().st_size - 3)
    store = FileStore(tmp_path / "store")
    store.load()
    store.save(Change([Send(50, 0, "bob", b"later", None)], [], None))
    store.close()
    assert reopened(tmp_path / "store").unanswered[-1].ref == 50


def test_zeroes_behind_the_end_are_cut_off(tmp_path: Path) -> None:
    filled(tmp_path / "store")
    with (tmp_path / "store").open("ab") as file:
        file.write(bytes(4096))
    assert len(reopened(tmp_path / "store").unanswered) == 3


def test_a_journal_is_written_anew_before_it_grows_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol.client_store, "JOURNAL_BYTES_MAX", 1000)
    store = FileStore(tmp_path / "store")
    store.load()
    for cid in range(1, 1000):
        store.save(Change([Send(cid, 0, "bob", b"x", None)], [cid], (b"g" * 8, cid)))
        assert (tmp_path / "store").stat().st_size < 1200
    store.close()
    assert reopened(tmp_path / "store") == Kept(1000, b"g" * 8, 999, ())


def test_a_store_is_for_its_owners_eyes_and_for_one_client_at_a_time(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "store", fsync=True)
    store.load()
    store.save(Change(SENDS, [], None))
    assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == 0o600
    with pytest.raises(StoreBusy):
        FileStore(tmp_path / "store").load()
    store.close()
    store.close()
    assert len(reopened(tmp_path / "store").unanswered) == 3


@pytest.mark.parametrize("is_reachable", [True, False], ids=["while it logs in", "while nobody is there"])
async def test_what_is_posted_offline_is_on_the_disk_after_the_turn_that_posted_it(
    make_client: MakeClient, server: SmallServer, tmp_path: Path, clock: ManualClock, is_reachable: bool
) -> None:
    waits = asyncio.Event()
    if not is_reachable:
        await server.stop_tcp()
    async with make_client(store=FileStore(tmp_path / "store")) as ann:
        if not is_reachable:
            clock.on_sleep = waits.set
            await waits.wait()
        await asyncio.sleep(0)  # it begins to connect
        ann.post("bob", b"written offline")
        for _ in range(2):
            await asyncio.sleep(0)
            if b"written offline" in (tmp_path / "store").read_bytes():
                break
        else:
            pytest.fail("two turns later it is not kept")
        assert not isinstance(ann.state, Connected)


async def test_nothing_leaves_before_it_is_on_the_disk(
    make_client: MakeClient, server: SmallServer, tmp_path: Path
) -> None:
    seen: list[bool] = []
    async with make_client(store=FileStore(tmp_path / "store")) as ann:
        await ann.wait_connected()
        session = server.live[0]
        receive = session.receive

        def look(data: bytes) -> None:
            seen.append(b"precious" in (tmp_path / "store").read_bytes())
            receive(data)

        session.receive = look  # type: ignore[method-assign]
        await ann.send("bob", b"precious")
    assert seen[0] is True


async def test_what_was_posted_offline_leaves_in_the_next_run(
    make_client: MakeClient, server: SmallServer, tmp_path: Path
) -> None:
    await server.stop_tcp()
    async with make_client(store=FileStore(tmp_path / "store")) as ann:
        ann.post("bob", b"written offline")
    await server.start_tcp(server.tcp_port)
    async with make_client(store=FileStore(tmp_path / "store")) as ann:
        ((request, future),) = ann.recovered
        assert isinstance(request, Send)
        assert request.payload == b"written offline"
        id_ = await future
        later = await ann.send("bob", b"later")
        assert ann.is_own(id_)
        assert id_ < later
    assert server.payloads("bob") == [b"written offline", b"later"]


async def test_a_run_that_died_before_it_heard_the_answer_sends_again_and_nothing_is_stored_twice(
    make_client: MakeClient, server: SmallServer, tmp_path: Path
) -> None:
    server.trouble.silent_accepts = True
    async with make_client(store=FileStore(tmp_path / "store")) as ann:
        ann.post("bob", b"once")
        await server.until(lambda: server.payloads("bob"))
    server.trouble.silent_accepts = False
    async with make_client(store=FileStore(tmp_path / "store")) as ann:
        await ann.wait_answered()
        assert ann.unanswered == 0
    assert server.payloads("bob") == [b"once"]


async def test_a_message_of_an_earlier_run_that_is_refused_is_found_in_recovered(
    make_client: MakeClient, server: SmallServer, tmp_path: Path
) -> None:
    await server.stop_tcp()
    async with make_client(store=FileStore(tmp_path / "store")) as ann:
        ann.post("nobody", b"x")
    await server.start_tcp(server.tcp_port)
    async with make_client(store=FileStore(tmp_path / "store")) as ann:
        ((_, future),) = ann.recovered
        with pytest.raises(Refused, match="NO_SUCH_USER"):
            await future
    assert reopened(tmp_path / "store").unanswered == ()


async def test_a_second_run_goes_on_behind_what_the_first_processed(
    make_client: MakeClient, server: SmallServer, tmp_path: Path
) -> None:
    for index in range(4):
        server.deliver("ann", b"%d" % index)
    async with make_client(store=FileStore(tmp_path / "store")) as ann:
        for _ in range(2):
            await anext(ann)
    server.queue("ann").cursors.clear()  # the server forgot the device: only the client knows
    async with make_client(store=FileStore(tmp_path / "store")) as ann:
        message = await anext(ann)
    assert isinstance(message, Deliver)
    assert message.payload == b"2"


async def test_a_refused_message_stays_in_the_store(
    make_client: MakeClient, server: SmallServer, tmp_path: Path
) -> None:
    from protocol.errors import Code
    from protocol.wire import Processed

    server.trouble.refuse.append((Code.BUSY, Processed.NO, 60_000))
    async with make_client(store=FileStore(tmp_path / "store")) as ann:
        ann.post("bob", b"busy")
        await server.until(lambda: server.of(Send))
        await asyncio.sleep(0)
    async with make_client(store=FileStore(tmp_path / "store")) as ann:
        await ann.wait_answered()
    assert server.payloads("bob") == [b"busy"]
