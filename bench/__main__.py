"""`python -m bench`: run scenarios, or one of your own; compare two runs; look inside."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import output
from bench.figures import RATIOS
from bench.plan import CORE, FULL, PEERS, QUICK, Scenario, Servers
from bench.runner import Runner

EXIT_USAGE = 2
_RUNS = {
    "quick": "the figures, in less than three minutes",
    "run": "every scenario, or those that are named",
    "peers": "the same load on other servers, all servers on one core, the load on another",
}
_FILES = {"quick": "latest", "run": "latest", "peers": "peers"}


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser("bench", description="a black box that knows the wire and nothing else")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, says in _RUNS.items():
        command = commands.add_parser(name, help=says)
        command.add_argument("--repeats", type=int, default=1 if name == "run" else 3, help="in turn (%(default)s)")
        command.add_argument(
            "--out", type=Path, default=output.OUT / f"{_FILES[name]}.json", help="the JSON (default: in bench/out)"
        )
        command.add_argument("--no-hold", action="store_true", help="let the processor fall into idle states")
        command.add_argument("--seconds", type=float, help="measured in each scenario, instead of the plan's")
        if name != "quick":
            command.add_argument("scenario", nargs="*", help="names, or beginnings of names (default: all)")
            command.add_argument("--list", action="store_true", help="list the scenarios")
    _one_scenario(commands)
    parser_compare = commands.add_parser("compare", help="judge two runs by ratios, with their noise")
    parser_compare.add_argument("before", type=Path)
    parser_compare.add_argument("after", type=Path)
    turns = commands.add_parser("versus", help="this tree against a commit, in turn, judged as by compare")
    turns.add_argument("commit")
    turns.add_argument("scenario", nargs="*", help="names, or beginnings of names (default: those of the figures)")
    turns.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    turns.add_argument("--seconds", type=float, default=4.0, help="measured in each scenario (default: %(default)s)")
    flames = commands.add_parser("profile", help="a flame graph of each of our processes under load")
    flames.add_argument("--seconds", type=float, default=5.0, help="sampled (default: %(default)s)")
    commands.add_parser("stages", help="each stage of a message's walk: ns and allocations", add_help=False)
    options, others = parser.parse_known_args()
    if options.command == "stages":
        return subprocess.call([sys.executable, "-m", "bench.inside.stages", *others])
    if others:
        parser.error(f"unknown: {' '.join(others)}")
    if options.command == "compare":
        from bench.compare import compare

        return compare(options.before, options.after)
    if options.command == "versus":
        from bench.versus import versus

        names = options.scenario or [one.name for one in CORE]
        return versus(options.commit, options.rounds, names, options.seconds)
    if options.command == "profile":
        return _profile(options)
    return _run(options)


def _profile(options: argparse.Namespace) -> int:
    from bench.profile import main as profile

    names = ("embedded", "cluster", "cluster at 1000", "embedded, logins")
    plans = [replace(one, warmup_s=1.0, seconds=options.seconds) for one in FULL if one.name in names]
    with tempfile.TemporaryDirectory(prefix="chatd-bench-") as folder:
        return profile(plans, Path(folder))


def _one_scenario(commands: Any) -> None:
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
        command.add_argument("--transport", choices=("tcp", "ws"), default="tcp")
        command.add_argument("--repeats", type=int, default=1, help="(%(default)s)")
        command.add_argument("--no-hold", action="store_true", help="let the processor fall into idle states")
        command.add_argument("--out", type=Path, help="write the JSON there")


def _is_wanted(name: str, wanted: Sequence[str]) -> bool:
    """Named whole, or by a beginning that is no whole name itself."""
    whole = {one.name for one in (*FULL, *PEERS)}
    return any(name == word or (word not in whole and name.startswith(word)) for word in wanted)


def _plan(options: argparse.Namespace) -> tuple[Scenario, ...]:
    if options.command == "quick":
        return QUICK
    if options.command in ("run", "peers"):
        wanted: Sequence[str] = options.scenario
        return tuple(
            one for one in (FULL if options.command == "run" else PEERS) if not wanted or _is_wanted(one.name, wanted)
        )
    is_everysec = options.mode == "cluster" and options.fsync == "everysec"
    servers: Servers = "cluster-everysec" if is_everysec else options.mode
    rate = getattr(options, "rate", 0.0)
    name = f"{options.mode} at {rate:g}" if rate else options.mode
    return (
        Scenario(
            name, options.command, servers, pairs=options.pairs, window=getattr(options, "window", 1),
            payload_bytes=options.payload, transport=options.transport, rate=rate, seconds=options.seconds,
        ),
    )  # fmt: skip


def _run(options: argparse.Namespace) -> int:
    plan = _plan(options)
    if getattr(options, "list", False) or not plan:
        print("\n".join(scenario.name for scenario in plan or FULL))
        return 0 if plan else EXIT_USAGE
    if options.command in _RUNS and options.seconds:
        plan = tuple(replace(scenario, seconds=options.seconds) for scenario in plan)
    folder = Path(tempfile.mkdtemp(prefix="chatd-bench-"))
    start_s, pinned = time.monotonic(), options.command == "peers"
    try:
        runner = Runner(plan, options.repeats, folder, may_hold=not options.no_hold, pinned=pinned)
        results = runner.run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    plan = tuple(one for one in plan if one.servers not in runner.left_out)
    settings = {
        "command": options.command,
        "repeats": options.repeats,
        "may_hold": not options.no_hold,
        "pinned": pinned,
        "left_out": runner.left_out,
    }
    told = output.document(plan, results, settings, time.monotonic() - start_s)
    print(output.tables(plan, results))
    if pinned:
        print("\n" + output.table(*output.beside_peers(plan, results)))
        print("".join(f"\nleft out: {servers}: {reason}" for servers, reason in runner.left_out.items()))
    core = {scenario.name for scenario in (PEERS if pinned else CORE)}
    shown = [one for one in plan if one.name in core] or plan[:8]
    print("\n" + output.process_table(shown, results))
    if RATIOS.keys() & told["ratios"]:
        floors = {name: value for name, value in told["ratios"].items() if name in RATIOS}
        print("\nto the floors: " + ", ".join(f"{name} {value:g}" for name, value in floors.items()))
    if options.out is not None:
        output.write(told, options.out)
        print(f"\n{told['seconds']:.0f} s; {options.out}" + _reported(told, options.out))
    wrong = output.faults(results)
    print("".join(f"\nwrong: {line}" for line in wrong), end="\n" if wrong else "")
    return 1 if wrong else 0


def _reported(told: dict[str, Any], path: Path) -> str:
    """Also as a page, where the library that draws is there."""
    try:
        from bench.report import page
    except ImportError as missing:
        return f" (no report: {missing.name} is missing; pip install -e '.[bench]')"
    report = path.with_suffix(".html")
    report.write_text(page(told), encoding="utf-8")
    return f", {report}"


if __name__ == "__main__":
    sys.exit(main())
