"""An outage in the log: it is told when it begins, once a minute while it lasts, and when it is over."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

TOLD_EVERY_S: Final = 60.0


class Outage:
    """Of one service, logged as `{name}_down` and `{name}_back`. Whoever fails and tries again calls `failed`."""

    def __init__(self, name: str, log: Any, now_s: Callable[[], float] = time.monotonic) -> None:
        self._name, self._log, self._now_s = name, log, now_s
        self._since_s: float | None = None
        self._told_s = 0.0

    def failed(self, error: Exception) -> None:
        """It did not answer, or refused."""
        now_s = self._now_s()
        if self._since_s is None:
            self._since_s = now_s
        elif now_s - self._told_s < TOLD_EVERY_S:
            return
        self._told_s = now_s
        self._log.warning(f"{self._name}_down", error=str(error), seconds=round(now_s - self._since_s, 1))

    def over(self) -> None:
        """It answered."""
        if self._since_s is not None:
            self._log.info(f"{self._name}_back", seconds=round(self._now_s() - self._since_s, 1))
            self._since_s = None
