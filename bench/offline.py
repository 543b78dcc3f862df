"""Messages to users who are not there: how fast they are taken and stored, then everybody logs in and drains."""

from __future__ import annotations

import itertools
import time
from dataclasses import asdict
from typing import Any, Final

from bench.crowd import Crowd, Target, join_all
from bench.meter import Meter, own_cpu_us, server_cpu_us
from bench.pace import wait_until
from bench.plan import Scenario
from bench.swarm import Peer, Receiver, Sender
from protocol.names import shard_of

SHARDS: Final = 8  # the servers' default
WAIT_S_MAX: Final = 60.0


async def run(plan: Scenario, target: Target, names: str) -> dict[str, Any]:
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
    storing = meter.stop(plan.count)

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
    for peer in (*guards, *(fence for fence, _ in fences)):
        peer.close()
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
