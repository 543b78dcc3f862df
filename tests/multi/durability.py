"""`python -m tests.multi.durability`: what each setting of Redis costs, on three RabbitMQ nodes and three Redis, all on this machine."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import uvloop

from bench import latency, throughput
from bench.crowd import Door, Target
from bench.plan import Scenario
from bench.rabbit_cluster import RabbitCluster
from bench.servers import Fsync
from tests.multi.town import MultiTown

PAIRS: Final = 50
RATE: Final = 1000.0
_Measure = Callable[[Scenario, Target, str], Awaitable[dict[str, Any]]]


class Setting(NamedTuple):
    """One row. `options` are further ones of redis-server."""

    fsync: Fsync
    wait_replicas: int
    options: tuple[str, ...] = ()

    def __str__(self) -> str:
        waits = f", WAIT {self.wait_replicas}" if self.wait_replicas else ""
        return f"appendfsync {self.fsync}{waits}" + "".join(f", {word.lstrip('-')}" for word in self.options[::2])


SETTINGS: Final = (
    Setting("everysec", 0), Setting("always", 0), Setting("everysec", 1), Setting("always", 1), Setting("always", 2),
    Setting("always", 0, ("--min-replicas-to-write", "1")),
)  # fmt: skip


async def measure(
    setting: Setting, number: int, rabbit: RabbitCluster, folder: Path, seconds: float
) -> list[dict[str, Any]]:
    """Throughput, then latency."""
    town = MultiTown(
        folder, fsync=setting.fsync, wait_replicas=setting.wait_replicas, redis_options=setting.options, rabbit=rabbit,
        prefix=f"d{number}",
    )  # fmt: skip
    try:
        await town.start()
        nodes = list(town.chatds.values())
        target = Target([Door(node.tcp_port, node.http_port) for node in nodes], town.pids, dict, town.mint.token)
        plans: tuple[tuple[_Measure, Scenario], ...] = (
            (throughput.run, Scenario("t", "throughput", "cluster", pairs=PAIRS, window=32, seconds=seconds)),
            (latency.run, Scenario("l", "latency", "cluster", pairs=PAIRS, window=1, rate=RATE, seconds=seconds)),
        )
        return [await run(plan, target, f"d{number}{plan.name}") for run, plan in plans]
    finally:
        await town.close()


def row(setting: Setting, full: dict[str, Any], paced: dict[str, Any]) -> str:
    """For people."""
    wrong = sum(one[name] for one in (full, paced) for name in ("lost", "duplicates", "misordered"))
    accepted, delivered = paced["accepted_ms"], paced["delivered_ms"]
    return (
        f"| {setting} | {full['delivered_per_s']:,.0f} | {full['server_cpu_us']:.0f} | {paced['server_cpu_us']:,.0f} "
        f"| {accepted['p50']:.1f} / {accepted['p99']:.0f} | {delivered['p50']:.1f} / {delivered['p99']:.0f} | {wrong} |"
    )


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser("durability", description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement (default: %(default)s)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # the servers must be ended either way
    folder = Path(tempfile.mkdtemp(prefix="chatd-durability-"))
    print(
        "| Redis | messages/s | server CPU µs/message | at 1,000/s: CPU µs/message | ACCEPTED p50 / p99 ms "
        "| delivered p50 / p99 ms | lost, doubled, misordered |\n|---|---|---|---|---|---|---|",
        flush=True,
    )
    try:
        with RabbitCluster(folder / "rabbit") as rabbit, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            for number, setting in enumerate(SETTINGS):
                home = folder / f"setting{number}"
                full, paced = runner.run(measure(setting, number, rabbit, home, options.seconds))
                print(row(setting, full, paced), flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
