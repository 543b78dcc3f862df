"""What every daemon does to its interpreter before it begins."""

from __future__ import annotations

import gc
import weakref

from brokerd.daemon import YOUNG_OBJECTS, look_seldom_for_cycles


class Knot:
    """An object in a cycle with itself."""

    def __init__(self) -> None:
        self.self = self


def test_cycles_are_looked_for_seldom_and_still_found() -> None:
    before = gc.get_threshold()
    try:
        look_seldom_for_cycles()
        knot = weakref.ref(Knot())
        few = [[] for _ in range(YOUNG_OBJECTS // 4)]
        assert knot() is not None
        many = [[] for _ in range(YOUNG_OBJECTS)]
        assert knot() is None
        assert (len(few), len(many)) == (YOUNG_OBJECTS // 4, YOUNG_OBJECTS)
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
