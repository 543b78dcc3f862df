"""A flame graph of each of our processes while it is loaded: `make profile`. Sampled from outside by py-spy (the extra `bench`).

The servers run at their usual speed but for what sampling takes (py-spy stops the process for each sample: some percent).
Figures of a profiled run are worth nothing; where the time goes is.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import uvloop

from bench import latency, logins, throughput
from bench.crowd import Target
from bench.output import OUT
from bench.plan import Scenario
from bench.targets import opened

RATE_HZ: Final = 250
FOREIGN: Final = ("redis", "rabbitmq")  # no Python in them
END_S_MAX: Final = 60.0
_LOADS: Final = {"throughput": throughput.run, "latency": latency.run, "logins": logins.storm}


class NoProfiler(Exception):
    """py-spy is missing, or may not look into other processes. The text says what helps."""


def profile(plan: Scenario, folder: Path, out: Path = OUT) -> tuple[list[Path], dict[str, Any]]:
    """Run the scenario, each of our processes sampled while it is measured. The SVGs, and the scenario's result."""
    program = _profiler()
    out.mkdir(parents=True, exist_ok=True)
    with opened(plan.servers, folder) as target, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        ours = {name: pid for name, pid in target.pids.items() if name not in FOREIGN}
        return runner.run(_loaded(program, plan, target, ours, out))


def _profiler() -> str:
    program = shutil.which("py-spy", path=sysconfig.get_path("scripts")) or shutil.which("py-spy")
    if program is None:
        raise NoProfiler("py-spy is missing: pip install -e '.[bench]'")
    return program


async def _loaded(
    program: str, plan: Scenario, target: Target, pids: Mapping[str, int], out: Path
) -> tuple[list[Path], dict[str, Any]]:
    load = _LOADS[plan.work]
    paths = {name: out / f"profile-{_slug(plan.name)}-{name}.svg" for name in pids}
    async with asyncio.TaskGroup() as tasks:
        result = tasks.create_task(load(replace(plan, seconds=plan.seconds + plan.warmup_s), target, "p"))
        await asyncio.sleep(plan.warmup_s)  # logins, and what is slower at first
        samplings = [tasks.create_task(_sampled(program, pid, plan.seconds, paths[name])) for name, pid in pids.items()]
    for sampling in samplings:
        if fault := sampling.result():
            raise NoProfiler(fault)
    return list(paths.values()), result.result()


def _slug(name: str) -> str:
    return "-".join(re.findall(r"\w+", name))


async def _sampled(program: str, pid: int, seconds: float, path: Path) -> str:
    """What went wrong, if something did."""
    words = [program, "record", "--pid", str(pid), "--duration", str(max(1, round(seconds))), "--rate", str(RATE_HZ)]
    words += ["--gil", "--format", "flamegraph", "--output", str(path)]  # who waits is not sampled
    process = await asyncio.create_subprocess_exec(*words, stdout=subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE)
    async with asyncio.timeout(seconds + END_S_MAX):
        _, said = await process.communicate()
    if process.returncode:
        return f"py-spy could not look into process {pid}: {said.decode()[-300:].strip()} (as root it may)"
    return ""


def main(plans: Sequence[Scenario], folder: Path) -> int:
    """Every plan; a line for each SVG."""
    for plan in plans:
        try:
            paths, result = profile(plan, folder)
        except NoProfiler as failed:
            print(failed, file=sys.stderr)
            return 1
        cost = f"{result['server_cpu_us']:.0f} µs a message, sampled"
        print(f"{plan.name} ({cost}): " + ", ".join(map(str, paths)), flush=True)
    return 0
