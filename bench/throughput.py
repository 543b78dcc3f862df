"""How much goes through: pairs of senders and receivers, a window of unaccepted messages each, everything acknowledged."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Final, Protocol

from bench.swarm import Receiver, Sender
from bench.tokens import Mint

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
DRAIN_S_MAX: Final = 20.0
LOGINS_AT_ONCE: Final = 50


@dataclass(slots=True)
class Plan:
    """What is asked for."""

    pairs: int = 100
    window: int = 32
    payload_bytes: int = 100
    warmup_s: float = 2.0
    seconds: float = 8.0


@dataclass(slots=True)
class Result:
    """What came of it. `cpu_us` is per delivered message, by process; the swarm's own is among them."""

    delivered_per_s: float = 0.0
    accepted: int = 0
    delivered: int = 0
    lost: int = 0
    duplicates: int = 0
    misordered: int = 0
    errors: list[str] = field(default_factory=list)
    drain_s: float = 0.0
    frames_per_read: float = 0.0
    cpu_us: dict[str, float] = field(default_factory=dict)
    rss_mib: dict[str, float] = field(default_factory=dict)

    @property
    def server_cpu_us(self) -> float:
        """All but the swarm."""
        return sum(us for name, us in self.cpu_us.items() if name != "swarm")


def cpu_s(pid: int) -> float:
    """User and system seconds of a process so far."""
    with open(f"/proc/{pid}/stat", "rb") as stat:
        fields = stat.read().rsplit(b")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def rss_mib(pid: int) -> float:
    """Resident memory."""
    with open(f"/proc/{pid}/statm", "rb") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


async def run(
    plan: Plan, ports: list[int], mint: Mint, pids: Mapping[str, int], names: str = "b", receivers_at: int = -1
) -> Result:
    """Load the chatd at `ports` (senders at the first, receivers at `receivers_at`)."""
    loop = asyncio.get_running_loop()
    everybody = {**pids, "swarm": os.getpid()}
    stamp = int(time.time() * 1000)
    receivers, senders = [], []
    for number in range(plan.pairs):
        receivers.append(Receiver(f"{names}r{number}", mint.token(f"{names}r{number}"), plan.payload_bytes))
        user, to = f"{names}s{number}", f"{names}r{number}"
        senders.append(Sender(user, mint.token(user), to, plan.payload_bytes, plan.window, stamp * 1000))
    await join_all(receivers, ports[receivers_at])
    await join_all(senders, ports[0])

    for sender in senders:
        sender.begin()
    await asyncio.sleep(plan.warmup_s)
    cpu_before = {name: cpu_s(pid) for name, pid in everybody.items()}
    delivered_before, start_s = sum(peer.delivered for peer in receivers), loop.time()
    await asyncio.sleep(plan.seconds)
    delivered, elapsed_s = sum(peer.delivered for peer in receivers) - delivered_before, loop.time() - start_s
    cpu = {name: cpu_s(pid) - cpu_before[name] for name, pid in everybody.items()}
    result = Result(delivered_per_s=delivered / elapsed_s)
    result.cpu_us = {name: used / max(1, delivered) * 1e6 for name, used in cpu.items()}
    result.rss_mib = {name: rss_mib(pid) for name, pid in everybody.items()}
    for sender in senders:
        sender.is_sending = False
    result.drain_s = await drain(senders, receivers)
    judge(result, senders, receivers)
    result.accepted = sum(peer.accepted for peer in senders)
    result.frames_per_read = result.delivered / max(1, sum(peer.reads for peer in receivers))
    for peer in (*senders, *receivers):
        peer.close()
    return result


async def join_all(peers: Sequence[Sender | Receiver], port: int) -> None:
    """Connect and log in, some at a time."""
    loop = asyncio.get_running_loop()
    turns = asyncio.Semaphore(LOGINS_AT_ONCE)

    async def join(peer: Sender | Receiver) -> None:
        async with turns:
            await loop.create_connection(lambda: peer, "127.0.0.1", port)
            await peer.ready

    await asyncio.gather(*map(join, peers))


async def drain(senders: Sequence[Sender], receivers: Sequence[Receiver]) -> float:
    """Wait until all that was sent was delivered; a message on its way is not a lost one."""
    loop = asyncio.get_running_loop()
    start_s = loop.time()
    while sum(peer.delivered for peer in receivers) < sum(peer.sent for peer in senders):
        if loop.time() - start_s > DRAIN_S_MAX:
            break
        await asyncio.sleep(0.02)
    return loop.time() - start_s


class Judged(Protocol):
    """A result with the counts that matter more than its speed."""

    delivered: int
    lost: int
    duplicates: int
    misordered: int
    errors: list[str]


def judge(result: Judged, senders: Sequence[Sender], receivers: Sequence[Receiver]) -> None:
    """Count what was accepted and did not come, came twice, or came out of order."""
    result.delivered = sum(peer.delivered for peer in receivers)
    result.lost = sum(max(0, s.accepted - r.delivered) for s, r in zip(senders, receivers, strict=True))
    result.duplicates = sum(peer.duplicates for peer in receivers)
    result.misordered = sum(peer.misordered for peer in receivers)
    result.errors = [error for peer in (*senders, *receivers) for error in peer.errors][:10]


def is_good(result: Judged) -> bool:
    """Whether nothing was lost, doubled, misordered or refused."""
    return not (result.lost or result.duplicates or result.misordered or result.errors)


def told(title: str, result: Result) -> str:
    """For people."""
    lines = [f"{title}: {result.delivered_per_s:,.0f} messages a second delivered and acknowledged"]
    cpu = ", ".join(f"{name} {us:.1f}" for name, us in result.cpu_us.items())
    lines.append(f"  CPU µs a message: {cpu}; all server processes {result.server_cpu_us:.1f}")
    lines.append("  RSS MiB: " + ", ".join(f"{name} {mib:.0f}" for name, mib in result.rss_mib.items()))
    lines.append(f"  drained in {result.drain_s:.2f} s, {result.frames_per_read:.1f} deliveries a read")
    lines.append(f"  lost {result.lost}, duplicates {result.duplicates}, misordered {result.misordered}")
    lines += [f"  error: {error}" for error in result.errors]
    return "\n".join(lines)


def as_dict(result: Result) -> dict[str, object]:
    """For machines."""
    return {**asdict(result), "server_cpu_us": result.server_cpu_us}
