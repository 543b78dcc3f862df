"""`python -m tests.chaos [--seed N] [--seconds N]`: a cluster under load and under a seeded schedule of faults."""

from __future__ import annotations

import argparse
import asyncio
import logging
import secrets
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import uvloop
from tqdm import tqdm

from tests.chaos.crowd import Habits
from tests.chaos.run import Run
from tests.faults.power import why_no_power


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser("chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="repeats a run's faults (default: a new one)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of faults under load (default: %(default)s)")
    parser.add_argument("--users", type=int, default=Habits().users, help="(default: %(default)s)")
    parser.add_argument("--rate", type=float, default=Habits().messages_per_s, help="messages a second (%(default)s)")
    parser.add_argument("--nodes", type=int, default=3, help="chatd (default: %(default)s)")
    parser.add_argument("--brokers", type=int, default=2, help="brokerd (default: %(default)s)")
    parser.add_argument(
        "--power", action="store_true", help="cut the power of Redis and RabbitMQ too (root, and 30 s or more)"
    )
    parser.add_argument("--keep", action="store_true", help="keep the servers' logs and data also after a good run")
    options = parser.parse_args()
    if options.power and (reason := why_no_power()):
        parser.error(reason)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # the servers must be ended either way
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    seed = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    print(f"chaos: seed {seed}, {options.seconds:.0f} s", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="chatd-chaos-"))
    begun_s = time.monotonic()
    with tqdm(total=int(options.seconds), unit="s", disable=not sys.stderr.isatty(), leave=False) as bar:

        def tell(at_s: float, text: str) -> None:
            bar.update(max(0, min(int(at_s), int(options.seconds)) - bar.n))
            bar.set_postfix_str(text)

        habits = Habits(users=options.users, messages_per_s=options.rate)
        run = Run(
            folder, seed, options.seconds, nodes=options.nodes, brokers=options.brokers, habits=habits, tell=tell,
            has_power_cuts=options.power,
        )  # fmt: skip
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            outcome = runner.run(run.run())
    print(outcome.figures)
    if not outcome.is_good:
        (folder / "story.txt").write_text(outcome.story)
        print(outcome.story)
        print(f"The servers' logs, their data and story.txt are kept in {folder}")
    elif not options.keep:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{outcome.line} (took {time.monotonic() - begun_s:.0f} s in all)")
    return 0 if outcome.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
