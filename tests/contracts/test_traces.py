"""Traces: what is kept of a message's way, for how long, and of how many. On Redis and on SQLite."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import structlog

from bench.servers import RedisServer
from brokerd.links.redis_traces import RedisTraces
from brokerd.links.sqlite_traces import SqliteTraces
from brokerd.ports import LinkDown
from brokerd.support_ports import HOPS_MAX, Hop, HopKind, Traces
from brokerd.tracing import WRITE_HOPS_MAX, HopBuffer, Sample
from protocol.names import device_tag, message_id
from tests.contracts.store_factories import linked_redis

NOW = 1_700_000_000_000
KEEP_S = 3600
MESSAGES_MAX = 20
Maker = Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[Traces]]


@asynccontextmanager
async def redis_traces(request: pytest.FixtureRequest) -> AsyncIterator[Traces]:
    server: RedisServer = request.getfixturevalue("redis_server")
    server.command("FLUSHALL")
    async with linked_redis(server.url) as link:
        yield RedisTraces(link, messages_max=MESSAGES_MAX, keep_s=KEEP_S)


@asynccontextmanager
async def sqlite_traces(request: pytest.FixtureRequest) -> AsyncIterator[Traces]:
    folder: Path = request.getfixturevalue("tmp_path")
    async with SqliteTraces(folder / "traces.sqlite", messages_max=MESSAGES_MAX, keep_s=KEEP_S) as traces:
        yield traces


MAKERS: dict[str, Maker] = {"redis": redis_traces, "sqlite": sqlite_traces}


@pytest.fixture(params=list(MAKERS))
async def traces(request: pytest.FixtureRequest) -> AsyncIterator[Traces]:
    """Empty traces of each technology."""
    async with MAKERS[request.param](request) as made:
        yield made


def hop(number: int = 1, at_ms: int = NOW, kind: HopKind = HopKind.SAVED, **more: object) -> Hop:
    """A hop of message `number`."""
    return Hop(id_of(number), at_ms, int(kind), "b1", **more)  # type: ignore[arg-type]


def id_of(number: int) -> bytes:
    return message_id(device_tag("ann", "laptop"), number)


async def test_hops_come_back_whole_and_in_the_order_of_their_time(traces: Traces) -> None:
    saved = hop(at_ms=NOW + 5, user="bob", device="phone", seq=2**40, code=303, detail="why")
    taken = hop(at_ms=NOW, kind=HopKind.TAKEN)
    await traces.add([saved, hop(2)])
    await traces.add([taken])  # of another daemon, which wrote later
    assert await traces.find(id_of(1)) == [taken, saved]


async def test_of_one_time_the_hops_stand_in_the_order_of_their_kinds(traces: Traces) -> None:
    hops = [hop(kind=HopKind.ACKED), hop(kind=HopKind.TAKEN), hop(kind=HopKind.SAVED)]
    await traces.add(hops)
    assert [it.kind for it in await traces.find(id_of(1))] == [HopKind.TAKEN, HopKind.SAVED, HopKind.ACKED]


async def test_a_hop_that_was_written_twice_is_told_once(traces: Traces) -> None:
    for _ in range(2):
        await traces.add([hop()])
    assert await traces.find(id_of(1)) == [hop()]


async def test_of_a_message_that_is_not_known_there_is_nothing(traces: Traces) -> None:
    assert await traces.find(id_of(7)) == []


async def test_of_one_message_a_bounded_number_of_hops_is_kept(traces: Traces) -> None:
    await traces.add([hop(at_ms=NOW + number) for number in range(HOPS_MAX + 20)])
    kept = await traces.find(id_of(1))
    assert [it.at_ms - NOW for it in kept] == list(range(HOPS_MAX))


async def test_when_there_are_too_many_messages_the_oldest_are_forgotten(traces: Traces) -> None:
    for number in range(MESSAGES_MAX + 5):
        await traces.add([hop(number, at_ms=NOW + number)])
    kept = [number for number in range(MESSAGES_MAX + 5) if await traces.find(id_of(number))]
    assert kept == list(range(5, MESSAGES_MAX + 5))


async def test_a_later_hop_makes_a_message_young_again(traces: Traces) -> None:
    await traces.add([hop(0, at_ms=NOW), hop(1, at_ms=NOW + 1)])
    await traces.add([hop(0, at_ms=NOW + 2, kind=HopKind.ACKED)])
    await traces.add([hop(number, at_ms=NOW + 1 + number) for number in range(2, MESSAGES_MAX + 1)])
    assert len(await traces.find(id_of(0))) == 2
    assert await traces.find(id_of(1)) == []


async def test_what_is_too_old_is_forgotten(traces: Traces) -> None:
    await traces.add([hop(1)])
    await traces.add([hop(2, at_ms=NOW + KEEP_S * 1000 + 1)])
    if isinstance(traces, SqliteTraces):  # in Redis the list itself expires, by the clock of Redis
        assert await traces.find(id_of(1)) == []
    await traces.add([hop(number, at_ms=NOW + KEEP_S * 1000 + 2) for number in range(3, MESSAGES_MAX + 2)])
    assert await traces.find(id_of(2)), "what is too old does not count among those that there may be"


async def test_in_redis_a_trace_expires_by_itself(redis_server: RedisServer) -> None:
    redis_server.command("FLUSHALL")
    async with linked_redis(redis_server.url) as link:
        await RedisTraces(link, messages_max=5, keep_s=KEEP_S).add([hop()])
    ttl_ms = int(redis_server.command("PTTL", f"t:{id_of(1).hex()}").strip()[1:])
    assert 0 < ttl_ms <= KEEP_S * 1000


async def test_a_file_that_is_no_database_is_a_link_that_is_down(tmp_path: Path) -> None:
    (tmp_path / "traces.sqlite").write_bytes(b"not a database, and longer than a header would be" * 40)
    async with SqliteTraces(tmp_path / "traces.sqlite", messages_max=5, keep_s=KEEP_S) as traces:
        with pytest.raises(LinkDown, match="not a database"):
            await traces.add([hop()])


# --- the buffer before them


class Shelf:
    """Traces that a test can take away."""

    def __init__(self) -> None:
        self.hops: list[Hop] = []
        self.is_down = False

    async def add(self, hops: list[Hop]) -> None:
        if self.is_down:
            raise LinkDown("away")
        self.hops += hops

    async def find(self, id_: bytes) -> list[Hop]:
        return [it for it in self.hops if it.id == id_]


async def test_what_the_store_does_not_take_waits_and_what_is_too_much_is_dropped_and_counted() -> None:
    shelf = Shelf()
    buffer = HopBuffer(shelf, structlog.get_logger(), waiting_max=3)  # type: ignore[arg-type]
    shelf.is_down = True
    for number in range(5):
        buffer.note(hop(number))
    await buffer.flush()
    assert buffer.statistics() == {"written": 0, "dropped": 2, "failures": 1, "waiting": 3}
    shelf.is_down = False
    await buffer.flush()
    assert shelf.hops == [hop(0), hop(1), hop(2)]
    assert buffer.statistics()["waiting"] == 0


async def test_a_round_writes_a_bounded_number_of_hops_in_batches() -> None:
    shelf = Shelf()
    buffer = HopBuffer(shelf, structlog.get_logger())  # type: ignore[arg-type]
    for _ in range(10 * WRITE_HOPS_MAX):
        buffer.note(hop())
    await buffer.flush()
    assert len(shelf.hops) == 8 * WRITE_HOPS_MAX


# --- which messages


def test_about_one_message_in_so_many_is_in_the_sample_whoever_sends_them() -> None:
    for sender in ("ann", "bob", "carl"):
        tag = device_tag(sender, "phone")
        ids = [message_id(tag, cid) for cid in range(1, 2**15)]
        for one_in in (1, 2, 64, 256, 1024):
            found = sum(map(Sample(one_in).has, ids))
            assert 0.5 < found * one_in / len(ids) < 1.6, (sender, one_in, found)
        assert not any(map(Sample(0).has, ids))


def test_a_larger_sample_holds_the_smaller_one() -> None:
    ids = [message_id(device_tag("ann", "phone"), cid) for cid in range(1, 2**14)]
    for wide, narrow in ((1, 2), (128, 256), (256, 512), (512, 1024), (1024, 4096)):
        assert all(Sample(wide).has(id_) for id_ in ids if Sample(narrow).has(id_))


@pytest.mark.parametrize("one_in", [0, 1, 2, 256, 1024])
def test_the_byte_that_the_hot_paths_compare_never_leaves_out_one_of_the_sample(one_in: int) -> None:
    sample, tag = Sample(one_in), device_tag("ann", "phone")
    for cid in range(1, 3000):
        passes = (tag[0] ^ (cid or tag[-1])) & sample.mask == sample.want
        assert passes or not sample.has(message_id(tag, cid))
