"""How much of a large family of cases one run takes: some, drawn by a seed; all of them with FAULTS=long (make faults-long)."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from typing import Final, TypeVar

T = TypeVar("T")

IS_LONG: Final = os.environ.get("FAULTS") == "long"
SEED: Final = int(os.environ.get("FAULTS_SEED", "1"))  # another one draws others; a case's name says which it is


def some(cases: Sequence[T], count: int) -> list[T]:
    """`count` of the cases, always the same for a seed; all in a long run."""
    return list(cases) if IS_LONG else random.Random(SEED).sample(list(cases), count)
