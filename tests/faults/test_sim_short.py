"""A few seconds of the simulated world in every run of the suite, and that it finds what it is there to find; `make sim`
has more of both.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.sim.planted import PLANTED

pytestmark = pytest.mark.pure  # it stops clocks that are methods

SEEDS = 100
PLANTED_SEEDS = 40
RUN_S_MAX = 300.0


def sim(*options: str) -> subprocess.CompletedProcess[str]:
    """The command line, in a process of its own: a planted bug stays in it, and a seed wants its own order of names."""
    return subprocess.run(
        [sys.executable, "-m", "tests.sim", *options], env=os.environ | {"PYTHONHASHSEED": "0"},
        capture_output=True, text=True, timeout=RUN_S_MAX, check=False,
    )  # fmt: skip


@pytest.mark.timeout(RUN_S_MAX + 10)
def test_a_few_seconds_of_simulated_worlds_keep_every_promise() -> None:
    run = sim("--first", "4000", "--seeds", str(SEEDS))
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"sim: {SEEDS} seeds" in run.stdout


@pytest.mark.timeout(RUN_S_MAX + 10)
@pytest.mark.parametrize("bug", sorted(PLANTED))
def test_the_sim_catches(bug: str) -> None:
    run = sim("--planted", bug, "--first", "4000", "--seeds", str(PLANTED_SEEDS))
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{bug}: found at seed" in run.stdout
