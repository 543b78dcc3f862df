"""`python -m bench throughput|latency --mode embedded|cluster`"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from bench import latency, throughput
from bench.processes import Chatd
from bench.tokens import Mint

T = TypeVar("T")


def main() -> int:
    """The command line."""
    options = _parser().parse_args()
    folder = Path(tempfile.mkdtemp(prefix="chatd-bench-"))
    try:
        mint = Mint(folder / "chatd")
        with _servers(options, folder) as (ports, pids):
            measure = _latency if options.command == "latency" else _throughput
            is_good, text, figures = measure(options, ports, mint, pids)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(figures) if options.json else text)
    return 0 if is_good else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("bench", description="a black box that knows the wire and nothing else")
    commands = parser.add_subparsers(dest="command", required=True)
    put = commands.add_parser("throughput", help="delivered and acknowledged messages a second, CPU by process")
    put.add_argument("--window", type=int, default=32, help="unaccepted messages a sender (default: %(default)s)")
    slow = commands.add_parser("latency", help="percentiles at a fixed rate, open loop")
    slow.add_argument("--rate", type=float, default=1000, help="messages a second (default: %(default)s)")
    for command in (put, slow):
        command.add_argument("--mode", choices=("embedded", "cluster"), default="embedded")
        command.add_argument("--pairs", type=int, default=100, help="senders, each with a receiver (%(default)s)")
        command.add_argument("--payload", type=int, default=100, help="bytes (default: %(default)s)")
        command.add_argument("--seconds", type=float, default=8.0, help="measured, after 2 s of warm-up (%(default)s)")
        command.add_argument("--fsync", choices=("always", "everysec"), default="always", help="Redis (%(default)s)")
        command.add_argument("--nodes", type=int, default=2, help="chatd in the cluster (default: %(default)s)")
        command.add_argument("--brokers", type=int, default=1, help="brokerd in the cluster (default: %(default)s)")
        command.add_argument("--json", action="store_true", help="print JSON")
    return parser


@contextmanager
def _servers(options: argparse.Namespace, folder: Path) -> Iterator[tuple[list[int], dict[str, int]]]:
    """The server's TCP ports, and the pids whose CPU counts."""
    if options.mode == "embedded":
        server = Chatd(folder / "chatd")
        server.start()
        try:
            yield [server.tcp_port], {"chatd": server.pid}
        finally:
            server.stop()
    else:
        from bench.cluster import Cluster

        with Cluster(folder, nodes=options.nodes, brokers=options.brokers, fsync=options.fsync) as cluster:
            yield [node.tcp_port for node in cluster.nodes], cluster.pids


def _throughput(
    options: argparse.Namespace, ports: list[int], mint: Mint, pids: Mapping[str, int]
) -> tuple[bool, str, dict[str, object]]:
    plan = throughput.Plan(options.pairs, options.window, options.payload, seconds=options.seconds)
    result = _run(throughput.run(plan, ports, mint, pids))
    title = f"{options.mode}, {plan.pairs} pairs, window {plan.window}"
    return throughput.is_good(result), throughput.told(title, result), throughput.as_dict(result)


def _latency(
    options: argparse.Namespace, ports: list[int], mint: Mint, pids: Mapping[str, int]
) -> tuple[bool, str, dict[str, object]]:
    work = latency.run(options.rate, options.pairs, options.payload, 2.0, options.seconds, ports, mint, pids)
    result = _run(work)
    title = f"{options.mode}, {options.pairs} pairs"
    return throughput.is_good(result), latency.told(title, result), latency.as_dict(result)


def _run(work: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


if __name__ == "__main__":
    sys.exit(main())
