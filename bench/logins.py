"""Logins: how many a second, and what a session costs that does nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final

from bench.crowd import ERRORS_TOLD_MAX, Target, join_all
from bench.meter import Meter, own_cpu_us, rss_bytes, server_cpu_us
from bench.plan import Scenario
from bench.swarm import Peer
from bench.transports import connect
from protocol.wire import KEEPALIVE_S_DEFAULT

AT_ONCE: Final = 64
SETTLE_S: Final = 1.0  # what a crowd of logins left behind (buffers, garbage) is given back


async def storm(plan: Scenario, target: Target, names: str) -> dict[str, Any]:
    """`plan.count` logins by token, AT_ONCE at a time, each of a user of its own: proved, the register claimed, the
    backlog read (DRAINED), closed. Half of them at each door where there are two."""
    peers = [Peer(f"{names}u{number}", target.token(f"{names}u{number}")) for number in range(plan.count)]
    turns = asyncio.Semaphore(AT_ONCE)
    errors: list[str] = []

    async def login(number: int, peer: Peer) -> None:
        async with turns:
            try:
                await connect(peer, target.doors[number % len(target.doors)], plan.transport)
                await peer.drained
            except OSError as fault:
                errors.append(str(fault))
            else:
                peer.close()

    meter, start_s = Meter(target.pids), time.monotonic()
    meter.start()
    await asyncio.gather(*(login(number, peer) for number, peer in enumerate(peers)))
    elapsed_s = time.monotonic() - start_s
    processes = meter.stop(plan.count)
    return {
        "logins_per_s": round((plan.count - len(errors)) / elapsed_s, 1),
        "processes": processes,
        "server_cpu_us": round(server_cpu_us(processes), 3),
        "own_cpu_us": round(own_cpu_us(processes), 3),
        "errors": errors[:ERRORS_TOLD_MAX],
        **_NOTHING_SENT,
    }


async def idle(plan: Scenario, target: Target, names: str) -> dict[str, Any]:
    """`plan.count` sessions that are logged in and silent: resident memory of the chatd that has them, for each."""
    pids = {name: pid for name, pid in target.pids.items() if name.startswith("chatd")}
    first = Peer(f"{names}first", target.token(f"{names}first"))
    await join_all([first], target.doors[-1], plan.transport)  # what the first one causes to be loaded is not its own
    before = {name: rss_bytes(pid) for name, pid in pids.items()}
    peers = [Peer(f"{names}i{number}", target.token(f"{names}i{number}")) for number in range(plan.count)]
    async with asyncio.TaskGroup() as tasks:
        alive = tasks.create_task(_keep_alive(peers))
        await join_all(peers, target.doors[-1], plan.transport)
        alive.cancel()
    await asyncio.sleep(SETTLE_S)
    grown = {name: rss_bytes(pid) - before[name] for name, pid in pids.items()}
    meter = Meter(target.pids)
    meter.start()
    await asyncio.sleep(plan.seconds)
    processes = meter.stop(plan.count)
    errors = [error for peer in peers for error in peer.errors]
    for peer in (first, *peers):
        peer.close()
    return {
        "sessions": plan.count,
        "bytes_per_session": round(sum(grown.values()) / plan.count),
        "grown_bytes": grown,
        "cpu_share_of_a_core": round(server_cpu_us(processes) * plan.count / 1e6 / plan.seconds, 4),
        "processes": processes,
        "errors": errors[:ERRORS_TOLD_MAX],
        **_NOTHING_SENT,
    }


async def _keep_alive(peers: Sequence[Peer]) -> None:
    """Where logins are slow the first sessions must not be taken for dead before the last have come."""
    while True:
        await asyncio.sleep(KEEPALIVE_S_DEFAULT / 2)
        for peer in peers:
            if peer.ready.done():
                peer.ping()


_NOTHING_SENT: Final = {"lost": 0, "duplicates": 0, "misordered": 0}
