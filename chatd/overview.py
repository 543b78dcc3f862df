"""What `chatctl top` is told of a node at one moment: counters, histograms, who reads slowly and for whom most waits.

Nothing is kept for it: counters are those of /metrics, and the sessions are looked at when somebody asks, some in each turn of
the loop.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from typing import Any, Final, NamedTuple

from brokerd.metrics import Buckets, ByLabel, Value
from chatd.line import Line
from chatd.switchboard import Switchboard
from protocol.errors import Code

ROWS_MAX: Final = 100
SESSIONS_A_TURN: Final = 1000  # looked at before the loop goes on with its work: about a millisecond
HISTOGRAMS: Final = {
    "loop": ("loop", "lag_seconds"),
    "accepted": ("canary", "accepted_seconds"),
    "delivered": ("canary", "delivered_seconds"),
}

Sample = Callable[[str], Mapping[str, Value]]


class UserQueue(NamedTuple):
    """What a user's sessions here have not acknowledged, as far as anybody told them: the most of one, and how many sessions
    there are. What waits for devices that are away is not known here."""

    user: str
    unread: int
    sessions: int


class Seen(NamedTuple):
    """What the sessions show; the first of a list is the worst."""

    slowest: list[Line]
    queues: list[UserQueue]
    paused: int  # read too slowly: nothing live is written to them
    held: int  # are not read on for now: too much of theirs is not answered, or the brake is on for them


async def look_at(lines: Sequence[Line], rows: int) -> Seen:
    """Look at these sessions, and show `rows` of them and of their users."""
    slowest: list[tuple[tuple[bool, int, int], Line]] = []
    unread_of: dict[str, tuple[int, int]] = {}
    paused = held = 0
    for at in range(0, len(lines), SESSIONS_A_TURN):
        if at:
            await asyncio.sleep(0)
        ranked = []
        for line in lines[at : at + SESSIONS_A_TURN]:
            if line.is_lost:
                continue
            session, is_paused = line.session, line.paused_s is not None
            unread, waiting_bytes = session.feed.unread, line.wire.pending_bytes()
            paused += is_paused
            held += session.is_holding
            if unread or waiting_bytes:
                ranked.append(((is_paused, unread, waiting_bytes), line))
            if unread:
                most, sessions = unread_of.get(session.user, (0, 0))
                unread_of[session.user] = max(most, unread), sessions + 1
        slowest = heapq.nlargest(rows, chain(slowest, ranked), key=lambda it: it[0])
    queues = heapq.nlargest(rows, unread_of.items(), key=lambda it: it[1])
    return Seen([line for _, line in slowest], [UserQueue(user, *of) for user, of in queues], paused, held)


def counted(samples: Sample, board: Switchboard) -> dict[str, Any]:
    """Counters and histograms since the start, and when they were read. What another process counts, or nobody, is None."""
    refused_logins = sum(board.logins.refused.values())
    counts = {**asdict(board.counts), "refused": sum(board.gate.refused.values()), "logins_refused": refused_logins}
    return {
        "at_s": time.monotonic(),
        "counts": {**counts, **_ended(samples("broker"))},
        "histograms": {name: _histogram(samples(source).get(key)) for name, (source, key) in HISTOGRAMS.items()},
    }


def _ended(broker: Mapping[str, Value]) -> dict[str, float | None]:
    """What ended badly: counted by the broker, which is here only in an embedded node."""
    by_reason = broker.get("failed")
    if not isinstance(by_reason, ByLabel):
        return {"failed": None, "expired": None}
    expired = by_reason.values.get(Code.TTL_PASSED.name, 0)
    return {"failed": sum(by_reason.values.values()) - expired, "expired": expired}


def _histogram(value: Value | None) -> dict[str, Any] | None:
    return value._asdict() if isinstance(value, Buckets) else None
