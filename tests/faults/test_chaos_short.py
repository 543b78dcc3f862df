"""Half a minute of chaos for every run of the suite. New seeds: CHAOS_SEED=…; an hour of it: make chaos SECONDS=3600"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from tests.chaos.crowd import Habits
from tests.chaos.run import Run

LINK_FAULTS: Final = ("cut", "half-cut", "hold", "hold-up", "hold-down", "slow", "late", "shake", "thin")
MET_NOBODY_MAX: Final = 2


@pytest.mark.timeout(240)
async def test_l06_half_a_minute_of_faults_loses_doubles_and_misorders_nothing(tmp_path: Path) -> None:
    seed = int(os.environ.get("CHAOS_SEED", "2"))
    outcome = await Run(tmp_path, seed, 25.0, nodes=2, habits=Habits(users=30, messages_per_s=120)).run()
    # in so short a run a cut may meet a link that is down just then; of what is killed every kind must have been met
    met_nobody = [kind for kind in outcome.never_fired if kind.split()[0] in LINK_FAULTS]
    told = f"{outcome.line}; again: make chaos SEED={seed} SECONDS=25\n{outcome.story}"
    assert len(met_nobody) <= MET_NOBODY_MAX, told
    assert replace(outcome, never_fired=[kind for kind in outcome.never_fired if kind not in met_nobody]).is_good, told
