"""Receivers whose queue was full a moment ago: what is said to them now would only come back."""

from __future__ import annotations

from typing import Final

HINT_S: Final = 1.0
RECEIVERS_MAX: Final = 256  # remembered by one session; then all are forgotten: the next bounce tells again


class FullHints:
    """One for a session. A hint is no truth: it ends by itself, and the store decides."""

    __slots__ = ("_until_s",)

    def __init__(self) -> None:
        self._until_s: dict[str, float] = {}

    def __len__(self) -> int:
        """How many are remembered, also of those whose time is over."""
        return len(self._until_s)

    def note(self, receiver: str, now_s: float) -> None:
        """A message to this receiver came back with QUEUE_FULL."""
        if len(self._until_s) >= RECEIVERS_MAX:
            self._until_s.clear()
        self._until_s[receiver] = now_s + HINT_S

    def has(self, receiver: str, now_s: float) -> bool:
        """Whether that was less than HINT_S ago."""
        until_s = self._until_s.get(receiver)
        if until_s is None:
            return False
        if now_s < until_s:
            return True
        del self._until_s[receiver]
        return False
