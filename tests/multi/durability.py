"""`python -m tests.multi.durability`: what each setting of Redis costs, on three RabbitMQ nodes and three Redis, all on this machine."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import signal
import statistics
import sys
import tempfile
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


class Setting(NamedTuple):
    """One row. `options` are further ones of redis-server."""

    fsync: Fsync
    wait_replicas: int
    options: tuple[str, ...] = ()

    def __str__(self) -> str:
        waits = f", WAIT {self.wait_replicas}" if self.wait_replicas else ""
        return f"appendfsync {self.fsync}{waits}" + "".join(f", {word.lstrip('-')}" for word in self.options[::2])


SETTINGS: Final = (
    Setting("everysec", 0), Setting("always", 0), Setting("always", 1), Setting("always", 2),
    Setting("always", 0, ("--min-replicas-to-write", "1")),
)  # fmt: skip
HEAD: Final = (
    "| Redis | messages/s | server CPU µs/message | at 1,000/s: CPU µs/message | ACCEPTED p50 / p99 ms "
    "| delivered p50 / p99 ms | lost, doubled, misordered |\n|---|---|---|---|---|---|---|"
)


class Stand(NamedTuple):
    """One setting, up and running, and what was measured of it so far."""

    setting: Setting
    town: MultiTown
    results: list[tuple[dict[str, Any], dict[str, Any]]]

    @classmethod
    def new(cls, setting: Setting, number: int, rabbit: RabbitCluster, folder: Path) -> Stand:
        """Not started yet. The RabbitMQ nodes are everybody's: only one setting is under load at a time."""
        town = MultiTown(
            folder / f"setting{number}", fsync=setting.fsync, wait_replicas=setting.wait_replicas,
            redis_options=setting.options, rabbit=rabbit, prefix=f"d{number}",
        )  # fmt: skip
        return cls(setting, town, [])

    async def measure(self, seconds: float) -> None:
        """Throughput, then latency."""
        town, names = self.town, f"m{len(self.results)}"
        doors = [Door(node.tcp_port, node.http_port) for node in town.chatds.values()]
        target = Target(doors, town.pids, dict, town.mint.token)
        full = Scenario("t", "throughput", "cluster", pairs=PAIRS, window=32, seconds=seconds)
        paced = Scenario("l", "latency", "cluster", pairs=PAIRS, window=1, rate=RATE, seconds=seconds)
        put, slow = await throughput.run(full, target, f"{names}t"), await latency.run(paced, target, f"{names}l")
        self.results.append((put, slow))

    def row(self) -> str:
        """The medians, for people."""

        def median(at: int, *keys: str) -> float:
            values: list[Any] = [pair[at] for pair in self.results]
            for key in keys:
                values = [value[key] for value in values]
            return statistics.median(values)

        wrong = sum(one[name] for pair in self.results for one in pair for name in ("lost", "duplicates", "misordered"))
        accepted, delivered = (
            f"{median(1, name, 'p50'):.1f} / {median(1, name, 'p99'):.0f}" for name in ("accepted_ms", "delivered_ms")
        )
        return (
            f"| {self.setting} | {median(0, 'delivered_per_s'):,.0f} | {median(0, 'server_cpu_us'):.0f} "
            f"| {median(1, 'server_cpu_us'):,.0f} | {accepted} | {delivered} | {wrong} |"
        )


async def compare(rabbit: RabbitCluster, folder: Path, rounds: int, seconds: float) -> None:
    """All settings in turn, again and again, so that what else the machine does meets all of them."""
    stands = [Stand.new(setting, number, rabbit, folder) for number, setting in enumerate(SETTINGS)]
    try:
        for stand in stands:
            await stand.town.start()
        for number in range(rounds):
            for stand in stands:
                await stand.measure(seconds)
            print(
                f"\nmedians of {number + 1} rounds\n\n{HEAD}", *(stand.row() for stand in stands), sep="\n", flush=True
            )
    finally:
        for stand in stands:
            await stand.town.close()


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser("durability", description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="of which the medians are told (default: %(default)s)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # the servers must be ended either way
    folder = Path(tempfile.mkdtemp(prefix="chatd-durability-"))
    try:
        with RabbitCluster(folder / "rabbit") as rabbit, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(compare(rabbit, folder, options.rounds, options.seconds))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
