"""`python -m tests.multi`: a system on many machines, all of them on this one, and the loss of each in turn under load."""

from __future__ import annotations

import argparse
import asyncio
import logging
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import uvloop

from tests.chaos.crowd import Habits
from tests.multi.losses import Losses, Verdict


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser("multi", description=__doc__)
    parser.add_argument("--users", type=int, default=40, help="(default: %(default)s)")
    parser.add_argument("--rate", type=float, default=100.0, help="messages a second (default: %(default)s)")
    parser.add_argument("--fsync", choices=("always", "everysec"), default="always", help="Redis (%(default)s)")
    parser.add_argument("--wait-replicas", type=int, default=1, help="redis.wait_replicas (default: %(default)s)")
    parser.add_argument("--keep", action="store_true", help="keep logs and data also after a good run")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # the servers must be ended either way
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    folder = Path(tempfile.mkdtemp(prefix="chatd-multi-"))
    begun_s = time.monotonic()

    def tell(text: str) -> None:
        print(f"{time.monotonic() - begun_s:6.1f} s  {text}", flush=True)

    habits = Habits(users=options.users, messages_per_s=options.rate)
    losses = Losses(folder, habits, tell=tell, fsync=options.fsync, wait_replicas=options.wait_replicas)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        verdict = runner.run(lose_each(losses))
    print(f"\n{verdict.table}\n")
    if not verdict.is_good:
        print(f"{verdict.story}\nLogs and data are kept in {folder}")
    elif not options.keep:
        shutil.rmtree(folder, ignore_errors=True)
    setting = f"appendfsync {options.fsync}, wait_replicas {options.wait_replicas}"
    print(f"{setting}: {verdict.line} (took {time.monotonic() - begun_s:.0f} s)")
    return 0 if verdict.is_good else 1


async def lose_each(losses: Losses) -> Verdict:
    """Every machine once, and the Redis primary twice: it is another one by then. Then what looks dead and is not."""
    async with losses:
        await losses.calm()
        for number in range(len(losses.town.rabbit.nodes)):
            await losses.lose_rabbit(number)
        primary = losses.town.redis.servers.index(await asyncio.to_thread(losses.town.redis.wait_primary))
        for number in range(len(losses.town.redis.servers)):
            if number != primary:
                await losses.lose_redis(number)
        await losses.lose_primary()
        await losses.lose_primary()
        await losses.lose_sentinel(0)
        await losses.lose_two_rabbits()
        await losses.freeze_primary()
        await losses.freeze_rabbit(0)
        return await losses.end()


if __name__ == "__main__":
    sys.exit(main())
