"""What tracing costs a message that is not traced, that it is bounded, and that no fault of it touches a message."""

from __future__ import annotations

import timeit
from pathlib import Path
from typing import Any

import pytest
import structlog

import chatd.tracer
from brokerd.metrics import Metrics
from brokerd.ports import Appended, Page, Seat, Stored
from brokerd.route import plan, route
from brokerd.support_ports import Hop, HopKind
from brokerd.tracer import BrokerTracer
from brokerd.tracing import HopBuffer, Sample
from chatd.office import Office
from chatd.ports import Refusal, SendRequest
from chatd.tracer import NodeTracer
from protocol.envelope import EntryPost, ParcelKind, TraceParcel
from protocol.errors import Code
from protocol.messages import Ack
from protocol.names import device_tag, keyed_message_id, message_id
from protocol.wire import Processed, Type
from tests.core.back_room import entry, until
from tests.core.node_room import framed, node_room
from tests.core.peers import NOW_MS

LIMITS_US = {
    "taken": 0.2,
    "saved": 0.2,
    "read": 0.4,
}  # of CPU, a message that is not in the sample; read: backlogs only
REPEATS = 30
ENTRIES = 500
TAG = device_tag("ann", "laptop")


class Shelf:
    """Traces that keep everything."""

    def __init__(self) -> None:
        self.hops: list[Hop] = []

    async def add(self, hops: list[Hop]) -> None:
        self.hops += hops

    async def find(self, id_: bytes) -> list[Hop]:
        return [hop for hop in self.hops if hop.id == id_]


def buffer() -> HopBuffer:
    return HopBuffer(Shelf(), structlog.get_logger())  # type: ignore[arg-type]


def waiting(hops: HopBuffer) -> list[tuple[HopKind, int]]:
    return [(HopKind(hop.kind), hop.seq) for hop in hops._waiting]


def broker_tracer(hops: HopBuffer, one_in: int = 1024) -> BrokerTracer:
    return BrokerTracer("b1", Sample(one_in), hops, lambda: NOW_MS, structlog.get_logger())


def unsampled() -> list[EntryPost]:
    """Posts whose byte says at once that they are not in the sample."""
    sample = Sample(1024)
    cids = [cid for cid in range(1, 5 * ENTRIES) if (TAG[0] ^ cid) & sample.mask != sample.want]
    return [entry(cid) for cid in cids[:ENTRIES]]


def best_us(what: Any, **names: Any) -> float:
    """The least time of many, for one message: what others do on this machine only ever adds."""
    return min(timeit.repeat(what, globals=names, number=20, repeat=REPEATS)) / 20 / ENTRIES * 1e6


def test_a_message_that_is_not_traced_costs_a_comparison() -> None:
    posts, sample = unsampled(), Sample(1024)
    work = plan(posts)
    appended = [Appended(range(1, ENTRIES + 1), ENTRIES, ())]
    out = route(work, appended, NOW_MS)
    tracer = broker_tracer(hops := buffer())
    page = Page(1, [Stored(post.type, 0, post.expires_ms, post.body) for post in posts], ENTRIES)
    node = NodeTracer("n1", sample, hops, lambda: NOW_MS)
    loop = "\nfor post in posts:\n    "
    compare = "(post.origin[0] ^ (post.cid or post.origin[-1])) & mask == want"
    names = {"posts": posts, "mask": sample.mask, "want": sample.want}
    costs = {
        "taken": best_us(loop + compare, **names) - best_us(loop + "pass", **names),
        "saved": best_us("tracer.routed(work, appended, out, 0)", tracer=tracer, work=work, appended=appended, out=out),
        "read": best_us("node.paged(None, page, 1)", node=node, page=page),
    }
    print({name: f"{cost:.3f} µs" for name, cost in costs.items()})
    assert all(cost < LIMITS_US[name] for name, cost in costs.items()), costs
    assert waiting(hops) == []


def test_of_a_sampled_message_saved_and_handed_are_noted_and_its_node_is_told_to_look_out() -> None:
    work = plan([entry(1), entry(2)])
    appended = [Appended([7, 0], 7, [Seat("phone", "n1", "s"), Seat("tablet", "n1", "s")])]
    out = route(work, appended, NOW_MS)
    broker_tracer(hops := buffer(), 1).routed(work, appended, out, NOW_MS)
    assert waiting(hops) == [(HopKind.SAVED, 7), (HopKind.HANDED, 7), (HopKind.HANDED, 7), (HopKind.REPEAT, 0)]
    assert out.parcels["n1"][-1] == TraceParcel(ParcelKind.TRACE, "bob", 7, message_id(TAG, 1))
    assert len([parcel for parcel in out.parcels["n1"] if isinstance(parcel, TraceParcel)]) == 1


@pytest.mark.parametrize("one_in", [0, 1024])
def test_what_failed_is_noted_though_it_is_not_in_the_sample(one_in: int) -> None:
    work = plan(unsampled()[:3])
    appended = [Appended([-1, 5, -2], 5, ())]
    out = route(work, appended, NOW_MS)
    broker_tracer(hops := buffer(), one_in).routed(work, appended, out, NOW_MS)
    assert waiting(hops) == [(HopKind.BOUNCED, 0)] * 2


def test_a_fault_of_the_tracer_touches_no_message() -> None:
    odd = entry(1)._replace(origin=b"", cid=0)
    work = plan([odd])
    appended = [Appended([1], 1, [Seat("phone", "n1", "s")])]
    out = route(work, appended, NOW_MS)
    before = {node: list(parcels) for node, parcels in out.parcels.items()}
    broker_tracer(buffer(), 1).routed(work, appended, out, NOW_MS)
    assert out.parcels == before


def test_an_entry_without_a_message_id_expires_without_a_trace() -> None:
    tracer = broker_tracer(hops := buffer())
    tracer.buried([entry(1)._replace(body=b"\xc1"), entry(2)._replace(type=Type.RECEIPT)], "why")
    assert waiting(hops) == []


async def test_what_is_written_and_not_acknowledged_is_watched_up_to_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chatd.tracer, "WATCHED_MAX", 2)
    async with node_room(tmp_path) as room:
        hops = buffer()
        tracer = room.board.tracer = NodeTracer("n1", Sample(1), hops, lambda: NOW_MS)
        ann = await room.log_in()
        room.hand(framed(1, 3), *(TraceParcel(ParcelKind.TRACE, "ann", seq, message_id(TAG, seq)) for seq in (1, 2, 3)))
        assert waiting(hops) == [(HopKind.WRITTEN, seq) for seq in (1, 2, 3)]
        assert [seq for seq, _ in tracer.watched[ann.line]] == [1, 2]
        ann.say(Ack(1, 0))
        assert waiting(hops)[3:] == [(HopKind.ACKED, 1)]
        ann.hang_up()
        assert waiting(hops)[4:] == [(HopKind.TROUBLE, 2)]
        assert tracer.watched == {}
        await until(lambda: not room.board.lines)


@pytest.mark.pure
async def test_what_was_refused_is_noted_though_it_is_not_in_the_sample(tmp_path: Path) -> None:
    async with node_room(tmp_path) as room:
        hops = buffer()
        room.board.tracer = NodeTracer("n1", Sample(0), hops, lambda: NOW_MS)
        ann = await room.log_in()
        ann.line.refused(5, Code.BUSY, Processed.NO, 1000)
        office = Office(room.board, Metrics({}), dict)
        room.board.postbox.post = lambda by, effect: by.refused(0, Code.BUSY, Processed.NO, 1000)  # type: ignore[method-assign]
        with pytest.raises(Refusal):
            await office.send(SendRequest("shop", "bob", b"hush", "order 7", 0, None))
        assert waiting(hops) == [(HopKind.REFUSED, 0)] * 2
        assert [hop.id for hop in hops._waiting] == [message_id(TAG, 5), keyed_message_id("shop", "order 7")]


async def test_what_is_read_from_the_backlog_is_noted_and_what_was_handed_too_early_is_not(tmp_path: Path) -> None:
    async with node_room(tmp_path) as room:
        hops = buffer()
        room.board.tracer = NodeTracer("n1", Sample(1), hops, lambda: NOW_MS)
        await room.real_store.open("ann", "laptop", b"g" * 8, NOW_MS)
        await room.save(1, 2)
        await room.log_in()
        await until(lambda: len(waiting(hops)) >= 2)
        assert waiting(hops) == [(HopKind.WRITTEN, 1), (HopKind.WRITTEN, 2)]
        room.hand(TraceParcel(ParcelKind.TRACE, "ann", 5, message_id(TAG, 5)))  # its frames were lost on the way
        assert len(waiting(hops)) == 2
