"""Where a run was made: the machine, the code, the versions; and a processor that is held awake."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from protocol import codec

ROOT: Final = Path(__file__).parents[1]
LATENCY_FILE: Final = Path("/dev/cpu_dma_latency")
_LIBRARIES: Final = ("uvloop", "msgpack", "aiormq", "pamqp", "hiredis", "picows", "PyJWT")
_PROGRAMS: Final = {"redis": ("redis-server", "--version"), "erlang-rabbitmq": ("dpkg-query", "-W", "rabbitmq-server")}


def described() -> dict[str, Any]:
    """The parts of a result that say where it comes from."""
    return {"machine": _machine(), "commit": _commit(), "versions": _versions()}


def _machine() -> dict[str, Any]:
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    return {
        "cpu": cpu[1] if cpu else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_mib": int(memory[1]) // 1024 if memory else 0,
        "system": platform.platform(),
        "load_before": os.getloadavg()[0],
    }


def _commit() -> dict[str, Any]:
    try:
        commit = _said("git", "-C", str(ROOT), "rev-parse", "HEAD")
        changed = _said("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return {"id": "", "changed_files": 0}
    return {"id": commit, "changed_files": len(changed.splitlines())}


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "python_prefix": sys.base_prefix, "hot_modules": _hot_modules()}
    for name in _LIBRARIES:
        found[name] = importlib.metadata.version(name)
    for name, (program, *words) in _PROGRAMS.items():
        if shutil.which(program):
            found[name] = _said(program, *words)
    return found


def _hot_modules() -> str:
    """Whether the servers run on modules that were compiled (`make native`), as this process does."""
    return "interpreted" if codec.__file__.endswith(".py") else "compiled"


def _said(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


def pin(pids: Iterable[int], cores: Sequence[int]) -> None:
    """These processes, with their threads, onto the first of `cores`, and ourselves onto the last."""
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {cores[0]})
    os.sched_setaffinity(0, {cores[-1]})


@contextmanager
def held_awake(wanted: bool) -> Iterator[bool]:
    """Keep the processor out of idle states, from which it takes long to wake on a virtual machine. Whether it is so:
    not every user may, and not every kernel can."""
    if not wanted:
        yield False
        return
    try:
        held = LATENCY_FILE.open("wb", buffering=0)
    except OSError:
        yield False
        return
    with held:
        held.write((0).to_bytes(4, "little"))  # µs; counts until the file is closed
        yield True
