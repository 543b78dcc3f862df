"""`python -m bench throughput --mode embedded|cluster`"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
from pathlib import Path

import uvloop

from bench import throughput
from bench.processes import Chatd
from bench.tokens import Mint


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser("bench", description="a black box that knows the wire and nothing else")
    commands = parser.add_subparsers(dest="command", required=True)
    put = commands.add_parser("throughput", help="delivered and acknowledged messages a second, CPU by process")
    put.add_argument("--mode", choices=("embedded", "cluster"), default="embedded")
    put.add_argument("--pairs", type=int, default=100, help="senders, each with a receiver (default: %(default)s)")
    put.add_argument("--window", type=int, default=32, help="unaccepted messages a sender (default: %(default)s)")
    put.add_argument("--payload", type=int, default=100, help="bytes (default: %(default)s)")
    put.add_argument("--seconds", type=float, default=8.0, help="measured, after 2 s of warm-up (default: %(default)s)")
    put.add_argument("--fsync", choices=("always", "everysec"), default="always", help="Redis (default: %(default)s)")
    put.add_argument("--nodes", type=int, default=2, help="chatd in the cluster (default: %(default)s)")
    put.add_argument("--brokers", type=int, default=1, help="brokerd in the cluster (default: %(default)s)")
    put.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    plan = throughput.Plan(options.pairs, options.window, options.payload, seconds=options.seconds)
    folder = Path(tempfile.mkdtemp(prefix="chatd-bench-"))
    try:
        result = _throughput(options, plan, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if options.json:
        print(json.dumps(throughput.as_dict(result)))
    else:
        print(throughput.told(f"{options.mode}, {plan.pairs} pairs, window {plan.window}", result))
    return 1 if result.lost or result.duplicates or result.misordered or result.errors else 0


def _throughput(options: argparse.Namespace, plan: throughput.Plan, folder: Path) -> throughput.Result:
    if options.mode == "embedded":
        mint = Mint(folder / "chatd")
        server = Chatd(folder / "chatd")
        server.start()
        try:
            return _run(plan, [server.tcp_port], mint, {"chatd": server.pid})
        finally:
            server.stop()
    from bench.cluster import Cluster

    mint = Mint(folder / "chatd")
    with Cluster(folder, nodes=options.nodes, brokers=options.brokers, fsync=options.fsync) as cluster:
        return _run(plan, [node.tcp_port for node in cluster.nodes], mint, cluster.pids)


def _run(plan: throughput.Plan, ports: list[int], mint: Mint, pids: dict[str, int]) -> throughput.Result:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(throughput.run(plan, ports, mint, pids))


if __name__ == "__main__":
    sys.exit(main())
