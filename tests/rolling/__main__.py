"""`make rolling`: three chatd and two brokerd are restarted one by one under load, and what was noticed of it is a table."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
from pathlib import Path

from bench.cluster import Cluster
from tests.chaos.crowd import Habits
from tests.rolling.run import roll


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser("rolling", description=__doc__)
    parser.add_argument("--users", type=int, default=450, help="one in three has two devices (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=300.0, help="messages a second (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="rolling-"))
    try:
        with Cluster(folder, nodes=3, brokers=2) as cluster:
            outcome = asyncio.run(roll(cluster, Habits(users=options.users, messages_per_s=options.rate), options.seed))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(outcome.table())
    is_good = not outcome.breaches and not outcome.unfinished and all(step.exit_code == 0 for step in outcome.steps)
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
