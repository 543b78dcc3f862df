"""How long it takes at a fixed rate: an open loop, counted from when a message *should* have left.

A stalled server delays its next messages as well; a closed loop would not see that (coordinated omission). Every sender
sends at its own even pace; both times, of ACCEPTED and of the delivery, count from the intended time.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Final

import msgpack
from hdrh.histogram import HdrHistogram

from bench.swarm import Receiver, Sender
from bench.throughput import cpu_s, drain, join_all, judge
from bench.tokens import Mint
from protocol.wire import Type

LATENCY_US_MAX: Final = 60_000_000
PERCENTILES: Final = {"p50": 50.0, "p99": 99.0, "p99_9": 99.9}
_ACCEPTED: Final = int(Type.ACCEPTED)
_DELIVER: Final = int(Type.DELIVER)


@dataclass(slots=True)
class Result:
    """Milliseconds by percentile; `late_ms_max`: how far the swarm itself fell behind its plan."""

    rate: float = 0.0
    sent: int = 0
    delivered: int = 0
    lost: int = 0
    duplicates: int = 0
    misordered: int = 0
    errors: list[str] = field(default_factory=list)
    accepted_ms: dict[str, float] = field(default_factory=dict)
    delivered_ms: dict[str, float] = field(default_factory=dict)
    late_ms_max: float = 0.0
    cpu_us: dict[str, float] = field(default_factory=dict)

    @property
    def server_cpu_us(self) -> float:
        """All but the swarm."""
        return sum(us for name, us in self.cpu_us.items() if name != "swarm")


class Book:
    """When each message of a pair was meant to leave; the histograms of all pairs."""

    def __init__(self) -> None:
        self.accepted = HdrHistogram(1, LATENCY_US_MAX, 3)
        self.delivered = HdrHistogram(1, LATENCY_US_MAX, 3)
        self.from_s = 0.0  # what was meant to leave before is warm-up


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


async def run(
    rate: float, pairs: int, payload_bytes: int, warmup_s: float, seconds: float,
    ports: list[int], mint: Mint, pids: Mapping[str, int],
) -> Result:  # fmt: skip
    """`rate` messages a second over all pairs, for `seconds` behind the warm-up."""
    everybody = {**pids, "swarm": os.getpid()}
    cid, book, names = int(time.time() * 1e6), Book(), f"l{int(time.time())}x"
    senders, receivers = [], []
    for number in range(pairs):
        to, user = f"{names}r{number}", f"{names}s{number}"
        receiver = TimedReceiver(to, mint.token(to), payload_bytes)
        sender = PacedSender(user, mint.token(user), to, payload_bytes, 1, cid)
        meant_s: list[float] = []
        sender.pace(book, meant_s, cid)
        receiver.pace(book, meant_s)
        senders.append(sender)
        receivers.append(receiver)
    await join_all(receivers, ports[-1])
    await join_all(senders, ports[0])
    start_s = time.monotonic() + 0.1
    book.from_s = start_s + warmup_s
    result = Result(rate=rate)
    cpu_before: dict[str, float] = {}
    measured_before = 0
    total, step_s = int(rate * (warmup_s + seconds)), 1 / rate
    for number in range(total):
        meant_at_s = start_s + number * step_s
        wait_s = meant_at_s - time.monotonic()
        if wait_s > 0.0002:  # finer than the loop's timer: send what is due together
            await asyncio.sleep(wait_s)
        elif number % 16 == 0:
            await asyncio.sleep(0)
        if not cpu_before and meant_at_s >= book.from_s:
            cpu_before = {name: cpu_s(pid) for name, pid in everybody.items()}
            measured_before = sum(peer.delivered for peer in receivers)
        result.late_ms_max = max(result.late_ms_max, (time.monotonic() - meant_at_s) * 1e3)
        senders[number % pairs].send_at(meant_at_s)
    await drain(senders, receivers)
    delivered = sum(peer.delivered for peer in receivers) - measured_before
    result.cpu_us = {name: (cpu_s(pid) - cpu_before[name]) / max(1, delivered) * 1e6 for name, pid in everybody.items()}
    result.sent = total
    judge(result, senders, receivers)
    result.accepted_ms, result.delivered_ms = _percentiles(book.accepted), _percentiles(book.delivered)
    for peer in (*senders, *receivers):
        peer.close()
    return result


def _percentiles(histogram: HdrHistogram) -> dict[str, float]:
    values = {name: histogram.get_value_at_percentile(at) / 1000 for name, at in PERCENTILES.items()}
    return {**values, "max": histogram.get_max_value() / 1000}


def told(title: str, result: Result) -> str:
    """For people."""

    def row(name: str, values: dict[str, float]) -> str:
        return f"  {name}: " + ", ".join(f"{at} {ms:.2f}" for at, ms in values.items()) + " ms"

    cpu = ", ".join(f"{name} {us:.0f}" for name, us in result.cpu_us.items())
    lines = [
        f"{title}: {result.rate:,.0f} messages a second, open loop, from the intended time",
        row("accepted", result.accepted_ms),
        row("delivered", result.delivered_ms),
        f"  CPU µs a message: {cpu}; all server processes {result.server_cpu_us:.0f}",
        f"  the swarm itself was at most {result.late_ms_max:.1f} ms behind its plan",
        f"  lost {result.lost}, duplicates {result.duplicates}, misordered {result.misordered}",
    ]
    lines += [f"  error: {error}" for error in result.errors]
    return "\n".join(lines)


def as_dict(result: Result) -> dict[str, object]:
    """For machines."""
    return {**asdict(result), "server_cpu_us": result.server_cpu_us}
