"""This working tree against a commit, in turn on the same machine: `python -m bench versus COMMIT`.

Two runs an hour apart differ by what else the machine did; two that take turns do not. Each tree runs its own bench and its own
servers; the repeats are put together and compared as any two runs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.compare import compare
from bench.figures import figures, ratios
from bench.machine import ROOT
from bench.output import OUT, read, write


def versus(commit: str, rounds: int, scenarios: Sequence[str], seconds: float) -> int:
    """The commit is "before", this tree "after". The exit code of `compare`."""
    with tempfile.TemporaryDirectory(prefix="chatd-bench-") as folder:
        tree = Path(folder) / "tree"
        _git("worktree", "add", "--detach", str(tree), commit)
        try:
            runs: dict[str, list[dict[str, Any]]] = {"before": [], "after": []}
            for number in range(rounds):
                for side, root in (("before", tree), ("after", ROOT)):
                    print(f"round {number + 1} of {rounds}: {side}", file=sys.stderr, flush=True)
                    runs[side].append(_run(root, Path(folder) / f"{side}{number}.json", scenarios, seconds))
        finally:
            _git("worktree", "remove", "--force", str(tree))
    paths = {side: OUT / f"versus-{side}.json" for side in runs}
    for side, parts in runs.items():
        write(together(parts), paths[side])
    return compare(paths["before"], paths["after"])


def _git(*words: str) -> None:
    subprocess.run(["git", "-C", str(ROOT), *words], check=True, capture_output=True)


def _run(root: Path, out: Path, scenarios: Sequence[str], seconds: float) -> dict[str, Any]:
    words = [sys.executable, "-m", "bench", "run", *scenarios, "--repeats=1", f"--seconds={seconds}", f"--out={out}"]
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    # the checkout as it stands on both sides; a fault of it is in what it wrote
    subprocess.run(words, cwd=root, env=env, check=False, stdout=subprocess.DEVNULL)
    return read(out)


def together(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One run with the repeats of all."""
    whole = dict(runs[0])
    whole["scenarios"] = [
        {**one, "repeats": [repeat for run in runs for repeat in _repeats(run, one["name"])]}
        for one in runs[0]["scenarios"]
    ]
    whole["seconds"] = sum(run["seconds"] for run in runs)
    whole["figures"] = figures({one["name"]: one["repeats"] for one in whole["scenarios"]})
    whole["ratios"] = ratios(whole["figures"])
    return whole


def _repeats(run: Mapping[str, Any], name: str) -> Sequence[Mapping[str, Any]]:
    return next((one["repeats"] for one in run["scenarios"] if one["name"] == name), ())
