"""The simulated world: the real nodes, brokers, sweepers and client cores in one process, thousands of times.

    make sim                 1,000 worlds, each from a seed of its own; then each planted bug must be found
    make sim SEEDS=10000     more of them
    make sim SEED=4711       this one, with its story when it is red

A world lives for half a minute of virtual time and some hundredths of a second of real time: 1 to 3 nodes, 1 or 2 brokers,
2 or 3 users with 1 or 2 devices each, talking while things go wrong. Then all that is wrong stops, and within 150 virtual
seconds everything that was promised must be so. A seed decides the world, the faults, their moments and every delay.

**The real thing**: chatd's Node with its switchboard, sessions, feeds, logins, postbox, postroom and drain; brokerd's Broker
and Sweeper; the client's connection, Outgoing and Incoming; every frame and batch as bytes.

**Simulated**: Redis (store.py) and RabbitMQ (rabbit.py), which tests/contracts hold to the contracts that the real ones are
held to; the links to them (process.py, rabbit.py) and the connections of the devices (pipe.py); time (clock.py).

**What goes wrong** (odds.py; about half of the kinds in any one world, and in every eighth world only what loses nothing):
calls to the store that are lost on their way there or back, outages, a store that comes back empty; parcels that are lost
or come twice; posts that RabbitMQ refuses while later ones are taken; links that break while posts are on their way, nodes
that lose their inbox; crashes of either daemon at any moment, and just at a hand-over, an acknowledgement or a post; nodes
that are told to stop; brokers that freeze, lose their shards and go on; connections that are cut, also in the middle of a
write, half-open for a while; readers that take nothing. Beside it queues run full, messages expire, devices come and go.

**What must hold** (ledger.py at once, promises.py at the end): every request is answered; what was accepted is seen by every
device of its receiver, once, in order, at the same seq, unless it expired or its sender was told FAILED; nobody sees what
was not sent to him; DELIVERED is told only of what a device acknowledged, EXPIRED not before its time, FAILED not of what
was seen, and each who asked is told one of them; READ and copies arrive; positions go neither back nor ahead; no session is
told REPLACED that was not replaced; all queues run empty, no batch is buried, and the register has the live sessions only.
When only connections were lost, a message is on the screen within 2 s.

**Not modelled**: TLS, WebSocket, HTTP, accounts; memory and bounds but those of a user's queue; partitions between the
members of RabbitMQ or Redis; clocks that differ; bytes that are damaged; a store that lost its newest seconds (one that
came back empty is). For those there are tests/faults and `make chaos`. Of a store that came back empty nothing is asked of
what was said before everybody was in again, nor are the copies of that world.

**Bugs that must be found** are in planted.py: two of each of five kinds.
"""

from __future__ import annotations

import argparse
import gc
import os
import secrets
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

from tests.sim.clock import Deadlock
from tests.sim.ledger import Broken
from tests.sim.odds import GENTLE_EVERY
from tests.sim.planted import BUGS, GENTLE, PLANTED
from tests.sim.world import World

PLANTED_SEEDS_MAX = 400
GC_WORLDS = 25  # a world is one large cycle of references


def live(seed: int) -> tuple[World, str]:
    """Run one world; what was wrong with it, "" = nothing."""
    world = World(seed)
    try:
        world.run()
    except Broken as broken:
        said = world.ledger.said.get(broken.id)
        what = f" [{said.text.decode() or 'READ'}]" if said is not None else ""
        trace = world.ledger.history(broken.id)
        return world, f"{broken.why}{what}\n{trace}\n{world.storm_odds}\n{world.shape}\nmake sim SEED={seed}"
    except Deadlock:
        return world, f"deadlock: nothing is ready, nothing is timed\nmake sim SEED={seed}"
    return world, ""


class Lived(NamedTuple):
    """What came of some worlds; `wrong` is of the last one, "" = nothing."""

    worlds: int
    messages: int
    faults: int
    cpu_s: float
    wrong: str


def live_some(seeds: range) -> Lived:
    """World after world; stops at the first red one."""
    begun_s, worlds, messages, faults, wrong = time.process_time(), 0, 0, 0, ""
    gc.disable()
    for seed in seeds:
        world, wrong = live(seed)
        worlds, messages, faults = worlds + 1, messages + len(world.ledger.said), faults + world.faults
        if wrong:
            break
    del world
    gc.collect()
    return Lived(worlds, messages, faults, time.process_time() - begun_s, wrong)


def run(seeds: range, jobs: int) -> int:
    """All worlds, in so many processes; stops at the first red one."""
    begun_s = time.monotonic()
    some = [seeds[at : at + GC_WORLDS] for at in range(0, len(seeds), GC_WORLDS)]
    lived: list[Lived] = []
    jobs = min(jobs, len(some))
    with ProcessPoolExecutor(jobs) as pool:
        for one in pool.map(live_some, some):
            lived.append(one)
            if one.wrong:
                pool.shutdown(wait=False, cancel_futures=True)
                print(f"{one.wrong}\nred at seed {sum(it.worlds for it in lived)} of {len(seeds)}")
                return 1
    minutes, cpu_minutes = (time.monotonic() - begun_s) / 60, sum(it.cpu_s for it in lived) / 60
    print(
        f"sim: {len(seeds)} seeds from {seeds[0]}, {sum(it.messages for it in lived)} messages, {sum(it.faults for it in lived)} "
        f"faults, none lost, none twice, none out of order; {len(seeds) / minutes:.0f} seeds a minute in {jobs} processes, "
        f"{len(seeds) / cpu_minutes:.0f} a minute of CPU"
    )
    return 0


def hunt(name: str, seeds: range) -> int:
    """Plant a bug and look for it; 0 when it is found."""
    PLANTED[name]()
    if PLANTED[name] in BUGS[GENTLE]:
        seeds = range(0, len(seeds) * GENTLE_EVERY, GENTLE_EVERY)
    for count, seed in enumerate(seeds, 1):
        _, wrong = live(seed)
        if wrong:
            print(f"{name}: found at seed {count}: {wrong.partition(chr(10))[0]}")
            return 0
    print(f"{name}: not found in {len(seeds)} seeds")
    return 1


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser("sim", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=None, help="this one only")
    parser.add_argument("--seeds", type=int, default=500, help="how many (default: %(default)s)")
    parser.add_argument("--first", type=int, default=None, help="the first of them (default: a random one)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: %(default)s)")
    parser.add_argument("--planted", choices=sorted(PLANTED), help="with this bug, which must be found")
    options = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":  # sets of names are walked in the same order in every run
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.sim", *sys.argv[1:]])
    first = secrets.randbelow(10**9) if options.first is None else options.first
    seeds = range(options.seed, options.seed + 1) if options.seed is not None else range(first, first + options.seeds)
    return hunt(options.planted, seeds) if options.planted else run(seeds, options.jobs)


if __name__ == "__main__":
    sys.exit(main())
