"""What the PINGs of idle sessions cost each process of a cluster: `python -m tests.operate.pings`. Each asks Redis for the
newest seq and the seats of its user, so their number bounds how many sessions one Redis can serve."""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

from bench.crowd import join_all
from bench.meter import Meter
from bench.swarm import Peer
from bench.targets import opened


async def main() -> None:
    parser = argparse.ArgumentParser("pings", description=__doc__)
    parser.add_argument("--sessions", type=int, default=5_000)
    parser.add_argument("--rate", type=float, default=1_000.0, help="PINGs a second, in all")
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pings-") as name, opened("cluster", Path(name)) as target:
        peers = [Peer(f"p{number}", target.token(f"p{number}")) for number in range(options.sessions)]
        await join_all(peers, target.doors[-1], "tcp")
        meter, count = Meter(target.pids), int(options.rate * options.seconds)
        meter.start()
        begun_s = time.monotonic()
        for number in range(count):
            await asyncio.sleep(max(0, begun_s + number / options.rate - time.monotonic()))
            peers[number % len(peers)].ping()
        took_s = time.monotonic() - begun_s
        for process, cost in meter.stop(count).items():
            print(f"{cost['cpu_us_per_msg']:8.1f} µs of {process} for each of {count / took_s:,.0f} PINGs a second")
        for peer in peers:
            peer.close()


if __name__ == "__main__":
    asyncio.run(main())
