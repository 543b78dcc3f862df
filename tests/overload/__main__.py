"""`python -m tests.overload [--only WORDS]`: every overload at its full size, and a table of what came of it. Exit status 1
when a bound (bounds.py) is broken."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import uvloop
from tqdm import tqdm

from tests.overload import alarms, deaf, full, habits, idle, publishers, storms
from tests.overload.site import Row, Site, cluster_site, embedded_site

DISK_MIB: Final = 512  # more than the append-only file of the flood, or it is full again at once
EMPTY_S_MAX: Final = 120.0
BACKLOG_ENV: Final = {"CHATD_QUEUE_COUNT_MAX": "200000"}


class Overload(NamedTuple):
    """One of the list. `run` gets a site, or the folder when it makes its own."""

    name: str
    run: Callable[[Site], Awaitable[Row]]


EMBEDDED: Final = (
    Overload("idle_tcp", idle.idle),  # first: the memory of a session is that of a fresh process
    Overload("too_fast", publishers.too_fast),
    Overload("noisy", publishers.noisy),
    Overload("many_to_one", publishers.many_to_one),
    Overload("one_to_many", publishers.one_to_many),
    Overload("window_abuse", habits.window_abuse),
    Overload("two_places", habits.two_places),
    Overload("deaf", deaf.deaf),
    Overload("login_storm", storms.login_storm),
)
CLUSTER: Final = (
    Overload("too_fast", publishers.too_fast),
    Overload("noisy", publishers.noisy),
    Overload("many_to_one", publishers.many_to_one),
    Overload("one_to_many", publishers.one_to_many),
    Overload("window_abuse", habits.window_abuse),
    Overload("two_places", habits.two_places),
    Overload("memory_alarm", alarms.rabbit_alarm),
    Overload("disk_alarm", lambda site: alarms.rabbit_alarm(site, "disk")),
    Overload("redis_full", full.redis_full),
    Overload("deaf", deaf.deaf),
    Overload("login_storm", storms.login_storm),
    Overload("herd", storms.herd),
)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser("overload", description=__doc__)
    parser.add_argument("--only", default="", help="those whose name (embedded.noisy, cluster.deaf …) holds this")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # the servers must be ended either way
    rows: list[Row] = []
    with tqdm(unit="overload", disable=not sys.stderr.isatty(), leave=False) as bar:
        for row in _run_all(options.only):
            rows.append(row)
            bar.update()
            tqdm.write(told(row))
            sys.stdout.flush()
    print("\n".join(table(rows)))
    broken = sum(bool(row.wrong) for row in rows)
    print(f"{len(rows)} overloads, {broken} with a broken bound")
    return 1 if broken or not rows else 0


def _run_all(only: str) -> Iterator[Row]:
    embedded = [it for it in EMBEDDED if only in f"embedded.{it.name}"]
    if embedded:
        with _folder() as folder, embedded_site(folder) as site:
            yield from (_run(it.name, it.run(site)) for it in embedded)
    if only in "embedded.idle_ws":  # a process of its own: what 10,000 sessions on TCP left behind would be used again
        with _folder() as folder, embedded_site(folder) as site:
            yield _run("idle_ws", idle.idle(site, ws=True))
    if only in "embedded.backlog":
        with _folder() as folder, embedded_site(folder, BACKLOG_ENV) as site:
            yield _run("backlog", habits.backlog(site))
    if only in "embedded.disk_full":
        with _folder() as folder:
            yield (
                _run("disk_full", full.sqlite_disk_full(folder))
                if full.may_mount()
                else _skipped("SQLite's disk is full")
            )
    cluster = [it for it in CLUSTER if only in f"cluster.{it.name}"]
    if cluster:
        with _folder() as folder, cluster_site(folder) as site:
            for it in cluster:
                yield _run(it.name, it.run(site))
                _wait_empty(site)
    if only in "cluster.disk_full":
        if not full.may_mount():
            yield _skipped("Redis' disk is full")
            return
        with _folder() as folder, full.small_disk(folder / "redis", DISK_MIB) as disk, cluster_site(folder) as site:
            yield _run("disk_full", full.redis_disk_full(site, full.Eater(disk)))


def _wait_empty(site: Site) -> None:
    """Nothing of one overload waits in RabbitMQ when the next begins (or after EMPTY_S_MAX: then it says so itself)."""
    assert site.cluster is not None
    end_s = time.monotonic() + EMPTY_S_MAX
    while time.monotonic() < end_s:
        rows = site.cluster.rabbit.ctl("-q", "list_queues", "name", "messages").splitlines()[1:]
        if all(row.split()[1] == "0" for row in rows):
            return
        time.sleep(0.5)
    print(f"RabbitMQ is not empty after {EMPTY_S_MAX:g} s")


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="chatd-overload-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(name: str, work: Awaitable[Row]) -> Row:
    async def run() -> Row:
        return await work

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            return runner.run(run())
        except Exception as fault:  # the others are of interest all the same
            traceback.print_exception(fault)
            return Row(name, wrong=[f"ended by {fault!r}"])


def _skipped(name: str) -> Row:
    return Row(f"F12 {name}", told=[f"left out: {full.NO_ROOT}"])


def told(row: Row) -> str:
    """One overload, with everything."""
    lines = [f"{row.name}: {'; '.join(row.wrong) if row.wrong else 'good'}"]
    lines += [f"  told: {words}" for words in row.told]
    if row.facts:
        lines.append("  " + ", ".join(f"{key} {value}" for key, value in row.facts.items()))
    if row.cpu_s:
        lines.append("  CPU s: " + ", ".join(f"{name} {seconds:.1f}" for name, seconds in row.cpu_s.items()))
    lines.append(f"  the watchers were at most {row.late_ms:.0f} ms behind their plan")
    return "\n".join(lines)


def table(rows: list[Row]) -> Iterator[str]:
    """All of them, for docs/overload.md."""
    yield "| overload | RSS MiB before / peak / after | bystanders before: accepted, delivered (p50/p99 ms) | during | verdict |"
    yield "|---|---|---|---|---|"
    for row in rows:
        rss = ", ".join(f"{name} {it.before:.0f}/{it.peak:.0f}/{it.after:.0f}" for name, it in row.memory.items())
        verdict = "; ".join(row.wrong) if row.wrong else "good"
        yield f"| {row.name} | {rss} | {_latency(row, 'before')} | {_latency(row, 'during')} | {verdict} |"


def _latency(row: Row, name: str) -> str:
    phase = getattr(row, name)
    if phase is None:
        return ""
    pairs = (f"{phase.ms(what, 50):.0f}/{phase.ms(what, 99):.0f}" for what in ("accepted", "delivered"))
    return ", ".join(pairs)


if __name__ == "__main__":
    sys.exit(main())
