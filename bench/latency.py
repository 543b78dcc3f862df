"""How long it takes at a fixed rate: an open loop, counted from when a message *should* have left.

A stalled server delays its next messages as well; a closed loop would not see that (coordinated omission). Every sender
sends at its own even pace; both times, of ACCEPTED and of the delivery, count from the intended time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, Final

import msgpack

from bench.book import Book, percentiles
from bench.crowd import Crowd, Receives, Sends, Target
from bench.meter import Meter, own_cpu_us, server_cpu_us
from bench.pace import Pace
from bench.plan import Scenario
from bench.swarm import Receiver, Sender
from bench.throughput import difference, per_message
from protocol.wire import Type

_ACCEPTED: Final = int(Type.ACCEPTED)
_DELIVER: Final = int(Type.DELIVER)


class PacedSender(Sender):
    """Sends one message at each of its times."""

    def pace(self, book: Book, meant_s: list[float], first_cid: int) -> None:
        """`meant_s` grows with every message: the receiver of the pair reads it too."""
        self.book, self.meant_s, self.first_cid = book, meant_s, first_cid

    def send_at(self, meant_s: float) -> None:
        """One message that should have left at `meant_s`."""
        self.meant_s.append(meant_s)
        self.send(1)

    def frame(self, type_: int, ref: int, data: bytes, at: int, stop: int) -> None:
        if type_ != _ACCEPTED:
            return super().frame(type_, ref, data, at, stop)
        now_s = time.monotonic()
        cids = msgpack.unpackb(data[at:stop])[0]
        self.accepted += len(cids)
        for cid in cids:
            meant_s = self.meant_s[cid - self.first_cid]
            if meant_s >= self.book.from_s:
                self.book.accepted.record_value(max(1, int((now_s - meant_s) * 1e6)))
        return None


class TimedReceiver(Receiver):
    """Notes how long each delivery took."""

    def pace(self, book: Book, meant_s: list[float]) -> None:
        """The same list as the sender's."""
        self.book, self.meant_s = book, meant_s

    def frame(self, type_: int, ref: int, data: bytes, at: int, stop: int) -> None:
        before = self.delivered
        super().frame(type_, ref, data, at, stop)
        if type_ == _DELIVER and self.delivered > before:
            meant_s = self.meant_s[self.delivered - 1]
            if meant_s >= self.book.from_s:
                self.book.delivered.record_value(max(1, int((time.monotonic() - meant_s) * 1e6)))


async def run(plan: Scenario, target: Target, names: str) -> dict[str, Any]:
    """`plan.rate` messages a second over all pairs, for `plan.seconds` behind the warm-up."""
    book = Book()
    crowd = _crowd(plan, target, names, book)
    await crowd.join(target, plan.transport)
    delivered_before, counters_before = 0, target.counters()
    pace, meter = Pace(plan.rate, plan.warmup_s + plan.seconds), Meter(target.pids)
    book.from_s = pace.start_s + plan.warmup_s
    async for number, meant_s in pace.times():
        if not meter.is_running and meant_s >= book.from_s:
            delivered_before = crowd.delivered
            meter.start()
        crowd.senders[number % plan.pairs].send_at(meant_s)
    drain_s = await crowd.drain()
    delivered = crowd.delivered - delivered_before
    processes = meter.stop(delivered)
    counters = difference(target.counters(), counters_before)
    verdict = crowd.judge()
    crowd.close()
    return {
        "rate": plan.rate,
        "accepted_ms": percentiles(book.accepted),
        "delivered_ms": percentiles(book.delivered),
        "late_ms": percentiles(pace.late),
        "server_cpu_us": round(server_cpu_us(processes), 3),
        "own_cpu_us": round(own_cpu_us(processes), 3),
        "drain_s": round(drain_s, 3),
        "per_message": per_message(counters, verdict.delivered),
        "processes": processes,
        **asdict(verdict),
    }


def _crowd(plan: Scenario, target: Target, names: str, book: Book) -> Crowd:
    make = target.pairs or partial(_pair, target, int(time.time() * 1e6))
    return Crowd.of(plan, names, make, book)


def _pair(
    target: Target, cid: int, names: str, number: int, plan: Scenario, book: Book | None
) -> tuple[Sends, Sequence[Receives]]:
    assert book is not None
    to, user = f"{names}r{number}", f"{names}s{number}"
    receiver = TimedReceiver(to, target.token(to), plan.payload_bytes)
    sender = PacedSender(user, target.token(user), to, plan.payload_bytes, 1, cid)
    meant_s: list[float] = []
    sender.pace(book, meant_s, cid)
    receiver.pace(book, meant_s)
    return sender, [receiver]
