"""How often to post: at once while little is said, at a pace while much is. Pure: the caller brings the time.

A post costs RabbitMQ, brokerd and Redis as much for one message as for ten. Who posts whatever is there posts one message at a
time as long as there is a processor to do it; then all daemons of a machine compete for it, and messages wait for them longer
than they would have waited for company. So network cards moderate their interrupts. While little comes nobody waits.
"""

from __future__ import annotations

from math import inf
from typing import Final

RATE_S: Final = 0.05  # the rate is that of about so long


class Pace:
    """`wait_s` says how long to wait before the next time; `took` is told of each time."""

    __slots__ = ("_every_s", "_from_s", "_last_s", "_many", "_seen", "is_on")

    def __init__(self, every_s: float, many: int) -> None:
        """At least `every_s` between two times while `many` items or more come in `every_s`; 0: never a pace."""
        self._every_s = every_s
        self._many = many / every_s if every_s else inf  # a second
        self._last_s = 0.0
        self._from_s = 0.0  # since when `seen` is counted
        self._seen = 0
        self.is_on = False

    def wait_s(self, now_s: float) -> float:
        """0: now."""
        if not self.is_on:
            return 0.0
        if now_s - self._last_s > RATE_S:  # nothing came for a while
            self.is_on = False
            return 0.0
        return max(0.0, self._last_s + self._every_s - now_s)

    def took(self, items: int, now_s: float) -> None:
        """It was done just now, for so many items."""
        self._last_s = now_s
        self._seen += items
        passed_s = now_s - self._from_s
        if passed_s >= RATE_S:
            self.is_on = self._seen >= self._many * passed_s
            self._from_s, self._seen = now_s, 0
