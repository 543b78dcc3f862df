"""What chatctl top makes of two looks, and what a look at the sessions finds."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from brokerd.metrics import Buckets, ByLabel
from chatd.ctl.rates import RATES, between, lines, quantile, size
from chatd.overview import SESSIONS_A_TURN, UserQueue, counted, look_at

BOUNDS = (0.001, 0.01, 0.1)


def look(at_s: float, lag: list[int], **counts: float | None) -> dict[str, Any]:
    return {
        "at_s": at_s, "at_ms": 1_795_535_980_556, "node": "east:1", "uptime_s": 9.7, "ready": True, "parts": {"queue": "up"},
        "sessions": 2, "users": 2, "connections": {"open": 4, "strangers": 0}, "waiting": 0, "waiting_bytes": 0, "in_flight": 1,
        "unanswered": 3, "paused": 0, "brake": {"is_on": False, "shards_behind": 0, "held": 0}, "slowest": [], "queues": [],
        "counts": {**dict.fromkeys(RATES, 0), **counts},
        "histograms": {
            "loop": {"bounds": BOUNDS, "counts": lag, "total": sum(lag) * 0.004}, "accepted": None, "delivered": None,
        },
    }  # fmt: skip


def test_rates_are_those_of_the_time_between_and_what_is_counted_elsewhere_is_none() -> None:
    before = look(10.0, [5, 0, 0, 0], accepted=100, bytes_in=0, failed=None, expired=None)
    now = look(12.0, [5, 4, 0, 0], accepted=2100, bytes_in=5_000_000, failed=None, expired=None)
    frame = between(before, now)
    assert (frame["rates"]["accepted"], frame["rates"]["failed"], frame["rates"]["acks"]) == (1000, None, 0)
    assert frame["times_ms"] == {"loop": {"count": 4, "mean": 4.0, "p50": 5.5, "p99": 9.91}}
    text = "\n".join(lines(frame))
    assert "1,000 accepted" in text
    assert "2.5 MB in" in text
    assert "failed, expired: brokerd counts them" in text
    assert "no canary runs" in text
    assert between(now, now)["times_ms"] == {"loop": None}


def test_a_node_that_is_not_well_says_why() -> None:
    now = look(12.0, [1, 0, 0, 0])
    now |= {"ready": False, "parts": {"redis": "not connected", "queue": "up"}}
    now["brake"] = {"is_on": True, "shards_behind": 2, "held": 7}
    text = "\n".join(lines(between(look(11.0, [0] * 4), now)))
    assert "not ready: redis: not connected" in text
    assert "on: brokerd is behind with 2 shards, 7 sessions are not read on" in text


@pytest.mark.parametrize(
    ("counts", "share", "at_most"),
    [
        ([10, 0, 0, 0], 0.5, 0.0005),
        ([10, 0, 0, 0], 1.0, 0.001),
        ([5, 5, 0, 0], 0.75, 0.0055),
        ([99, 0, 0, 1], 0.99, 0.001),
        ([9, 0, 0, 1], 0.99, None),
    ],
)
def test_a_share_of_values_is_found_in_its_bucket(counts: list[int], share: float, at_most: float | None) -> None:
    assert quantile(BOUNDS, counts, share) == (None if at_most is None else pytest.approx(at_most))


def test_sizes_are_told_in_the_unit_that_fits() -> None:
    assert [size(count) for count in (0, 850, 12_345, 2_500_000, 7e9)] == [
        "0 B",
        "850 B",
        "12.3 kB",
        "2.5 MB",
        "7.0 GB",
    ]


def session(user: str, unread: int, *, pending: int = 0, paused_s: float | None = None, lost: bool = False) -> Any:
    def pending_bytes() -> int:
        assert not lost, "a transport that is gone is not asked"
        return pending

    return SimpleNamespace(
        is_lost=lost, paused_s=paused_s, wire=SimpleNamespace(pending_bytes=pending_bytes),
        session=SimpleNamespace(user=user, feed=SimpleNamespace(unread=unread), is_holding=user == "loud"),
    )  # fmt: skip


async def test_who_is_paused_comes_first_then_who_has_most_unread_then_for_whom_bytes_wait() -> None:
    paused, much, some, bytes_only = (
        session("ann", 1, pending=200_000, paused_s=3.0), session("bob", 900), session("bob", 20), session("cat", 0, pending=9),
    )  # fmt: skip
    others = [session("loud", 0), session("gone", 5000, lost=True)]
    seen = await look_at([bytes_only, some, *others, much, paused], 10)
    assert seen.slowest == [paused, much, some, bytes_only]
    assert seen.queues == [UserQueue("bob", 900, 2), UserQueue("ann", 1, 1)]
    assert (seen.paused, seen.held) == (1, 1)
    assert (await look_at([bytes_only, some, much, paused], 1)).slowest == [paused]


async def test_many_sessions_are_looked_at_in_several_turns_of_the_loop_and_none_is_left_out() -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    count = 3 * SESSIONS_A_TURN + 1
    sessions = [session(f"u{n}", n + 1) for n in range(count)]
    first, last = session("first", 2 * count), session("last", 3 * count)
    seen = await look_at([first, *sessions, last], 2)
    beside.cancel()
    assert seen.slowest == [last, first]
    assert [queue.user for queue in seen.queues] == ["last", "first"]
    assert turns >= 3


def test_what_only_a_broker_counts_is_none_where_there_is_no_broker() -> None:
    failed = {"QUEUE_FULL": 3.0, "TTL_PASSED": 2.0}
    board: Any = SimpleNamespace(
        counts=_counts(), gate=SimpleNamespace(refused={"BUSY": 4}), logins=SimpleNamespace(refused={"RATE_LIMITED": 5})
    )
    sources = {
        "broker": {"failed": ByLabel("reason", failed)},
        "loop": {"lag_seconds": Buckets(BOUNDS, (1, 0, 0, 0), 0.5)},
    }
    told = counted(lambda source: sources.get(source, {}), board)
    counts = told["counts"]
    assert (counts["failed"], counts["expired"], counts["refused"], counts["logins_refused"]) == (3, 2, 4, 5)
    assert told["histograms"]["loop"] == {"bounds": BOUNDS, "counts": (1, 0, 0, 0), "total": 0.5}
    assert told["histograms"]["accepted"] is None
    assert counted(lambda _: {}, board)["counts"]["failed"] is None


def _counts() -> Any:
    from chatd.switchboard import Counts

    return Counts(accepted=1)
