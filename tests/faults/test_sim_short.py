"""A few seconds of the simulated world in every run of the suite; `make sim` has more."""

from __future__ import annotations

import subprocess
import sys

SEEDS = 150


def test_a_few_seconds_of_simulated_worlds_keep_every_promise() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tests.sim", "--first", "4000", "--seeds", str(SEEDS)],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"sim: {SEEDS} seeds" in run.stdout
