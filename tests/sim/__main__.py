"""The simulated world: `make sim`, `make sim SEEDS=5000`, `make sim SEED=n`."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import time

from tests.sim.clock import Deadlock
from tests.sim.ledger import Broken
from tests.sim.world import World


def live(seed: int) -> tuple[World, str]:
    """Run one world; what was wrong with it, "" = nothing."""
    world = World(seed)
    try:
        world.run()
    except Broken as broken:
        trace = world.ledger.history(broken.id)
        said = world.ledger.said.get(broken.id)
        what = f" [{said.text.decode() or 'READ'}]" if said is not None else ""
        return world, f"{broken.why}{what}\n{trace}\n{world.storm_odds}\n{world.shape}\nmake sim SEED={seed}"
    except Deadlock:
        return world, f"deadlock: nothing is ready, nothing is timed\nmake sim SEED={seed}"
    return world, ""


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser("sim", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="this one only")
    parser.add_argument("--seeds", type=int, default=500, help="how many (default: %(default)s)")
    parser.add_argument("--first", type=int, default=None, help="the first of them (default: a random one)")
    options = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":  # sets of names are walked in the same order in every run
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.sim", *sys.argv[1:]])
    first = secrets.randbelow(10**9) if options.first is None else options.first
    seeds = [options.seed] if options.seed is not None else range(first, first + options.seeds)
    begun_s, messages, faults = time.monotonic(), 0, 0
    for count, seed in enumerate(seeds, 1):
        world, wrong = live(seed)
        messages, faults = messages + len(world.ledger.said), faults + world.faults
        if wrong:
            print(f"{wrong}\nred at seed {count} of {len(seeds)}")
            return 1
    took_s = time.monotonic() - begun_s
    print(f"sim: {len(seeds)} seeds from {seeds[0]}, {messages} messages, {faults} faults, none lost, none twice, "
          f"none out of order; {len(seeds) / took_s * 60:.0f} seeds a minute")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
