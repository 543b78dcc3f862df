"""Messages to users who are not there: how fast they are taken and stored, then everybody logs in and drains."""

from __future__ import annotations

import itertools
import time
from dataclasses import asdict, replace
from typing import Any, Final, NamedTuple

from bench import throughput
from bench.crowd import Crowd, Target, join_all
from bench.meter import Meter, own_cpu_us, server_cpu_us
from bench.pace import wait_until
from bench.plan import Scenario
from bench.swarm import Peer, Receiver, Sender
from protocol.names import shard_of

EACH_WAITING: Final = 5000  # messages, for one absent user: half of what a queue takes
WINDOW_FILLING: Final = 256
SHARDS: Final = 8  # the servers' default
WAIT_S_MAX: Final = 180.0


class Stored(NamedTuple):
    """What was sent to users who are absent, and how long it took until it was accepted and stored."""

    senders: list[Sender]
    absent: list[Receiver]
    accepted_s: float
    stored_s: float
    processes: dict[str, dict[str, float]]


async def fill(plan: Scenario, target: Target, names: str) -> Stored:
    """`plan.count` messages in all. Stored means: a fence that was sent behind them came through each shard."""
    senders, absent = _crowd(plan, target, names)
    visits = [Peer(receiver.user, target.token(receiver.user)) for receiver in absent]
    await join_all(visits, target.doors[-1], plan.transport)  # a user who was never there has no queue
    for visit in visits:
        visit.close()
    fences = _fences(plan, target, names)
    guards = [guard for _, guard in fences]
    await join_all(guards, target.doors[-1], plan.transport)
    await join_all([*senders, *(fence for fence, _ in fences)], target.doors[0], plan.transport)
    meter, start_s = Meter(target.pids), time.monotonic()
    meter.start()
    for sender in senders:
        sender.begin()
    accepted_s = await wait_until(lambda: sum(sender.accepted for sender in senders) >= plan.count, WAIT_S_MAX)
    for fence, _ in fences:
        fence.send(1)
    await wait_until(lambda: all(guard.delivered for guard in guards), WAIT_S_MAX)
    stored_s = time.monotonic() - start_s
    processes = meter.stop(plan.count)
    for peer in (*guards, *(fence for fence, _ in fences)):
        peer.close()
    return Stored(senders, absent, accepted_s, stored_s, processes)


async def run(plan: Scenario, target: Target, names: str) -> dict[str, Any]:
    """Fill, then everybody logs in and drains."""
    senders, absent, accepted_s, stored_s, storing = await fill(plan, target, names)
    meter, start_s = Meter(target.pids), time.monotonic()
    meter.start()
    await join_all(absent, target.doors[-1], plan.transport)
    joined_s = time.monotonic() - start_s
    crowd = Crowd(senders, [[receiver] for receiver in absent])
    await crowd.drain()
    drained_s = time.monotonic() - start_s
    draining = meter.stop(plan.count)
    verdict = crowd.judge()
    crowd.close()
    return {
        "count": plan.count,
        "accepted_per_s": round(plan.count / accepted_s, 1),
        "stored_per_s": round(plan.count / stored_s, 1),
        "drained_per_s": round(plan.count / drained_s, 1),
        "logins_s": round(joined_s, 3),
        "storing": storing,
        "processes": draining,
        "storing_cpu_us": round(server_cpu_us(storing), 3),
        "server_cpu_us": round(server_cpu_us(draining), 3),
        "own_cpu_us": round(own_cpu_us(draining), 3),
        **asdict(verdict),
    }


def _crowd(plan: Scenario, target: Target, names: str) -> tuple[list[Sender], list[Receiver]]:
    cid, each = int(time.time() * 1e6), plan.count // plan.pairs
    senders, absent = [], []
    for number in range(plan.pairs):
        to, user = f"{names}r{number}", f"{names}s{number}"
        senders.append(Sender(user, target.token(user), to, plan.payload_bytes, plan.window, cid, each))
        absent.append(Receiver(to, target.token(to), plan.payload_bytes))
    return senders, absent


def _fences(plan: Scenario, target: Target, names: str) -> list[tuple[Sender, Receiver]]:
    """For each shard a pair whose receiver is there: a shard is worked off in order."""
    found: dict[int, str] = {}
    for number in itertools.count():
        name = f"{names}g{number}"
        found.setdefault(shard_of(name, SHARDS), name)
        if len(found) == SHARDS:
            break
    made = []
    for shard, to in found.items():
        user = f"{names}f{shard}"
        fence = Sender(user, target.token(user), to, plan.payload_bytes, 1, int(time.time() * 1e6))
        made.append((fence, Receiver(to, target.token(to), plan.payload_bytes)))
    return made


async def laden(plan: Scenario, target: Target, names: str) -> dict[str, Any]:
    """Throughput on servers where `plan.count` messages wait for others: what others have must not cost those who are here."""
    others = replace(plan, pairs=max(1, plan.count // EACH_WAITING), window=WINDOW_FILLING)
    filled = await fill(others, target, f"{names}o")
    for sender in filled.senders:
        sender.close()
    result = await throughput.run(plan, target, names)
    return {"waiting": plan.count, "stored_per_s": round(plan.count / filled.stored_s, 1), **result}
