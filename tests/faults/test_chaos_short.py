"""Half a minute of chaos for every run of the suite. New seeds: CHAOS_SEED=…; an hour of it: make chaos SECONDS=3600"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.chaos.crowd import Habits
from tests.chaos.run import Run


@pytest.mark.timeout(240)
async def test_l06_half_a_minute_of_faults_loses_doubles_and_misorders_nothing(tmp_path: Path) -> None:
    seed = int(os.environ.get("CHAOS_SEED", "2"))
    outcome = await Run(tmp_path, seed, 25.0, nodes=2, habits=Habits(users=30, messages_per_s=120)).run()
    assert outcome.is_good, f"{outcome.line}; again: make chaos SEED={seed} SECONDS=25\n{outcome.story}"
