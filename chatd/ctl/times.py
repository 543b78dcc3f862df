"""Times for people: UTC to the millisecond, spans in the largest unit that fits."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

_UNITS: Final = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def utc(at_ms: int) -> str:
    """2026-11-24 12:03:04.123; a dash for 0."""
    if not at_ms:
        return "-"
    try:
        return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S.") + f"{at_ms % 1000:03d}"
    except (ValueError, OverflowError, OSError):  # no time that a calendar has
        return f"{at_ms} ms"


def times(count: int) -> str:
    """once, 2 times."""
    return "once" if count == 1 else f"{count} times"


def span(length_ms: int) -> str:
    """3 min, 2 d; under a second: 120 ms."""
    length_s = abs(length_ms) // 1000
    for unit_s, name in _UNITS:
        if length_s >= unit_s:
            return f"{length_s // unit_s} {name}"
    return f"{abs(length_ms)} ms"
