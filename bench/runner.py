"""Runs a plan: starts servers as they are needed, repeats scenarios in turn, keeps what came of them."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import uvloop
from tqdm import tqdm

from bench import amqp, latency, logins, offline, throughput
from bench.crowd import Target
from bench.machine import held_awake, pin
from bench.peers.packages import Missing
from bench.plan import TOGETHER, Scenario, Servers
from bench.targets import opened

START_S: Final = {
    "relay": 0.5,
    "embedded": 1.5,
    "mosquitto": 0.5,
    "nats": 0.5,
    "ejabberd": 2.0,
    "prosody": 1.0,
    "socketio": 3.0,
}  # about; the others have a RabbitMQ to start
CLUSTER_START_S: Final = 12.0
OVERHEAD_S: Final = 1.5  # of one scenario: logins, drain
Result = dict[str, Any]
_WORKS: Final = {
    "throughput": throughput.run,
    "latency": latency.run,
    "offline": offline.run,
    "laden": offline.laden,
    "logins": logins.storm,
    "idle": logins.idle,
}


class Runner:
    """`run` gives each scenario's results, one a repeat, by its name. `left_out` then tells which servers are not to be had on
    this machine, and why; their scenarios have no results."""

    def __init__(
        self, plan: Sequence[Scenario], repeats: int, folder: Path, *, may_hold: bool = True, pinned: bool = False
    ) -> None:
        """`pinned`: every server process on one core, the load generator on another."""
        self._pinned = pinned
        self._cores = sorted(os.sched_getaffinity(0))
        self._plan = plan
        self._repeats = repeats
        self._folder = folder
        self._may_hold = may_hold
        self._batch: float = amqp.BATCH_DEFAULT
        self._count = 0
        self._progress: Progress
        self.results: dict[str, list[Result]] = {scenario.name: [] for scenario in plan}
        self.left_out: dict[Servers, str] = {}

    def run(self) -> dict[str, list[Result]]:
        """Blocks. A scenario that fails has the reason in its "errors", and the others go on."""
        with progress(self._expected_s()) as self._progress:
            for group in TOGETHER:
                self._run_group([scenario for scenario in self._plan if scenario.servers in group])
        return self.results

    def _run_group(self, plan: Sequence[Scenario]) -> None:
        with ExitStack() as stack:
            targets: dict[Servers, Target] = {}
            for servers in dict.fromkeys(scenario.servers for scenario in plan if not scenario.fresh):
                self._progress.tell(f"starting {servers}")
                try:
                    targets[servers] = stack.enter_context(opened(servers, self._folder))
                except Missing as reason:
                    self.left_out[servers] = str(reason)
                self._progress.spent(_start_s(servers))
            for _ in range(self._repeats):
                for scenario in plan:
                    if scenario.servers in targets and not scenario.fresh:
                        self._run_one(scenario, targets[scenario.servers])
        for _ in range(self._repeats):
            for scenario in plan:
                if scenario.fresh:
                    self._progress.tell(f"starting {scenario.servers}")
                    with opened(scenario.servers, self._folder) as target:
                        self._progress.spent(_start_s(scenario.servers))
                        self._run_one(scenario, target)

    def _run_one(self, scenario: Scenario, target: Target) -> None:
        self._progress.tell(scenario.name)
        self._count += 1
        names = f"b{self._count}x"
        try:
            with held_awake(
                scenario.work in ("latency", "amqp_latency") and scenario.held_awake and self._may_hold
            ) as is_held:
                result = self._measured(scenario, target, names)
        except Exception as fault:
            result, is_held = {"errors": [f"{type(fault).__name__}: {fault}"]}, False
        result["held_awake"] = is_held
        if scenario.work == "throughput" and scenario.name == "cluster":
            self._batch = result.get("per_message", {}).get("posts_per_batch", self._batch)
        self.results[scenario.name].append(result)
        self._progress.spent(_work_s(scenario))

    def _measured(self, scenario: Scenario, target: Target, names: str) -> Result:
        if self._pinned:
            pin(target.pids.values(), self._cores)
        if scenario.work in ("amqp_throughput", "amqp_latency"):
            work = amqp.run(scenario, target, self._batch)
        else:
            work = _WORKS[scenario.work](scenario, target, names)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(work)

    def _expected_s(self) -> float:
        once = sum(_start_s(servers) for servers in {one.servers for one in self._plan if not one.fresh})
        again = sum(_work_s(one) + (_start_s(one.servers) if one.fresh else 0) for one in self._plan)
        return once + again * self._repeats


def _start_s(servers: Servers) -> float:
    return START_S.get(servers.removesuffix("-tls"), CLUSTER_START_S)


def _work_s(scenario: Scenario) -> float:
    counted = scenario.count / (20_000 if scenario.work in ("offline", "laden") else 2000)
    return (
        OVERHEAD_S + counted + (0 if scenario.work in ("offline", "logins") else scenario.warmup_s + scenario.seconds)
    )


class Progress:
    """A bar of expected seconds, which moves also while a scenario runs."""

    def __init__(self, expected_s: float, write: Callable[[str, float], None]) -> None:
        self._expected_s = expected_s
        self._write = write
        self._spent_s = 0.0
        self._since_s = time.monotonic()
        self._what = ""

    def tell(self, what: str) -> None:
        """What is being done."""
        self._what = what

    def spent(self, seconds: float) -> None:
        """A part that was expected to take so long is over."""
        self._spent_s += seconds
        self._since_s = time.monotonic()

    def move(self) -> None:
        """Draw."""
        self._write(self._what, min(self._expected_s, self._spent_s + time.monotonic() - self._since_s))


@contextmanager
def progress(expected_s: float) -> Iterator[Progress]:
    """On a terminal a bar; elsewhere a line for each scenario."""
    ended = threading.Event()
    with tqdm(total=round(expected_s, 1), unit="s", disable=not sys.stderr.isatty(), leave=False,
              bar_format="{l_bar}{bar}| {n:.0f} of {total:.0f} s") as bar:  # fmt: skip

        def write(what: str, at_s: float) -> None:
            bar.set_description(f"{what:<34.34}", refresh=False)
            bar.n = at_s
            bar.refresh()

        moving = Progress(expected_s, write)

        def move() -> None:
            while not ended.wait(0.25):
                moving.move()

        mover = threading.Thread(target=move, daemon=True)
        mover.start()
        try:
            yield moving
        finally:
            ended.set()
            mover.join()
