"""`python -m bench stages`: what each stage of a message's walk costs, alone.

By message: ns of CPU (of this process), bytecode instructions and calls that Python carries out, memory blocks that are held
when the stage is done, and bytes at its peak. Instructions, calls and blocks are the same on every machine and at every
load; the ns are not.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import structlog
import uvloop

from bench.inside.walk import MESSAGES, NOW_MS, USERS, Sink, Stage, append_stage, pure_stages, receiver
from bench.output import table
from bench.servers import RedisServer
from brokerd.links.redis import RedisStore
from brokerd.links.resp import RespLink
from brokerd.links.sqlite import SqliteSentQueue
from protocol.wire import GENERATION_BYTES

ROUNDS: Final = 60
WARM_ROUNDS: Final = 5


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one message in one stage."""

    stage: str
    what: str
    ns: float
    ns_low: float
    instructions: float
    calls: float
    blocks: float
    peak_bytes: float


def measured(stage: Stage, rounds: int = ROUNDS) -> Cost:
    """Run the stage in rounds of MESSAGES. Only this thread is looked at for instructions, calls and blocks."""
    for round_ in range(WARM_ROUNDS):
        stage.run(stage.prepare(round_))
    instructions, calls = counted(stage.run, stage.prepare(WARM_ROUNDS))
    blocks = held(stage.run, stage.prepare(WARM_ROUNDS + 1))
    peak = peak_bytes(stage.run, stage.prepare(WARM_ROUNDS + 2))
    took = []
    for round_ in range(WARM_ROUNDS + 3, WARM_ROUNDS + 3 + rounds):
        work = stage.prepare(round_)
        gc.collect(0)
        start_ns = time.process_time_ns()
        stage.run(work)
        took.append((time.process_time_ns() - start_ns) / MESSAGES)
    return Cost(
        stage.name, stage.what, round(statistics.median(took), 1), round(min(took), 1),
        *(round(value / MESSAGES, 2) for value in (instructions, calls, blocks, peak)),
    )  # fmt: skip


def counted(run: Callable[[Any], Any], work: Any) -> tuple[int, int]:
    """Bytecode instructions, and calls of Python and of C functions, that `run(work)` carries out."""
    instructions = calls = 0

    def trace(frame: Any, event: str, arg: Any) -> Any:
        nonlocal instructions
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        instructions += event == "opcode"
        return trace

    def profile(frame: Any, event: str, arg: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    former = sys.gettrace()
    sys.settrace(trace)
    sys.setprofile(profile)
    try:
        run(work)
    finally:
        sys.settrace(former)
        sys.setprofile(None)
    return instructions, calls


def held(run: Callable[[Any], Any], work: Any) -> int:
    """Memory blocks that are there behind `run(work)`, its result kept, and were not before."""
    gc.collect()
    gc.disable()
    try:
        before = sys.getallocatedblocks()
        result = run(work)
        after = sys.getallocatedblocks()
    finally:
        gc.enable()
    del result
    return after - before


def peak_bytes(run: Callable[[Any], Any], work: Any) -> int:
    """The most that `run(work)` had allocated at one time."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        run(work)
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@contextmanager
def with_stores(folder: Path) -> Iterator[list[Stage]]:
    """The stages that need a store: durable appends to SQLite and to a private Redis (its own CPU is not in them)."""
    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
        sqlite = SqliteSentQueue(folder / "queue.sqlite")
        runner.run(sqlite.start())
        stack.callback(lambda: runner.run(sqlite.close()))
        runner.run(_make_users(sqlite))
        server = stack.enter_context(RedisServer(folder / "redis"))
        link = RespLink(server.url, name="bench")
        store = RedisStore(link, log=structlog.get_logger(), count_max=1_000_000)
        task = runner.get_loop().create_task(link.run())
        stack.callback(task.cancel)
        runner.run(link.wait_ready())
        runner.run(_make_users(store))
        yield [
            Stage("append sqlite", "appends → saved and fsynced, dedupe, look-up", *append_stage(sqlite, runner)),
            Stage("append redis", "the same, our side of it; fsynced in Redis", *append_stage(store, runner)),
        ]


async def _make_users(store: Any) -> None:
    for number in range(USERS):
        await store.open(receiver(number), "bench", bytes(GENERATION_BYTES), NOW_MS)


def told(costs: list[Cost]) -> str:
    """For people."""
    head = ("stage", "", "ns", "least", "instructions", "calls", "blocks held", "peak bytes")
    rows = [
        (one.stage, one.what, f"{one.ns:,.0f}", f"{one.ns_low:,.0f}", f"{one.instructions:.1f}", f"{one.calls:.2f}", f"{one.blocks:.2f}", f"{one.peak_bytes:,.0f}")
        for one in costs
    ]  # fmt: skip
    total = f"together, but for one of the two stores: {sum(one.ns for one in costs if one.stage != 'append sqlite') / 1000:.1f} µs"
    return f"{MESSAGES} messages a round, {ROUNDS} rounds; by message\n\n{table(head, rows)}\n\n{total}"


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser("bench stages", description=__doc__)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    sink = Sink()
    costs = [measured(stage) for stage in pure_stages()]
    costs.append(measured(Stage("write", "one write of 32 deliveries a socket", sink.prepare, sink.run)))
    sink.close()
    with tempfile.TemporaryDirectory(prefix="chatd-bench-") as folder, with_stores(Path(folder)) as stages:
        costs[4:4] = [measured(stage) for stage in stages]
    print(json.dumps([asdict(cost) for cost in costs]) if options.json else told(costs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
