"""Virtual time: an event loop whose clock jumps to the next timer as soon as nothing is ready.

A run takes no longer than its work, whatever it waits for; a loop that has neither work nor timers is a hang, at once.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Mapping
from typing import Any

BEGIN_S = 1000.0
BEGIN_MS = 1_700_000_000_000


class Deadlock(Exception):
    """Nothing is ready and nothing is timed: everybody waits for somebody."""


class _Jumper(selectors.BaseSelector):
    """Never waits for a file: what it is asked to wait, it adds to the clock."""

    def __init__(self) -> None:
        self.now_s = BEGIN_S
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = selectors.SelectorKey(fileobj, fileobj, events, data)
        self._keys[fileobj] = key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Deadlock
        self.now_s += max(timeout, 0.0)
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys


class VirtualLoop(asyncio.SelectorEventLoop):
    """Begins at BEGIN_S; `leap` lets days pass on the wall clock."""

    def __init__(self) -> None:
        self._jumper = _Jumper()
        self.leap_ms = 0
        super().__init__(self._jumper)

    def time(self) -> float:
        """Virtual seconds."""
        return self._jumper.now_s

    def now_ms(self) -> int:
        """The wall clock of the simulated machines."""
        return BEGIN_MS + self.leap_ms + int((self._jumper.now_s - BEGIN_S) * 1000)
