"""What was typed before: a bounded file that nobody else may read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from prompt_toolkit.history import History

HISTORY_LINES_MAX: Final = 1000
HISTORY_BYTES_MAX: Final = 4 * 1024 * 1024  # of the file, before it is read at all


class BoundedHistory(History):
    """One JSON string a line, oldest first. Cut to HISTORY_LINES_MAX when it is opened."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        kept = self._read()[-HISTORY_LINES_MAX:]
        self._old = [text for line in kept if (text := _text_of(line)) is not None]
        fresh = path.with_suffix(".new")
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.writelines(_line_of(text) for text in self._old)
        os.replace(fresh, path)

    def _read(self) -> list[str]:
        if not self._path.exists() or self._path.stat().st_size > HISTORY_BYTES_MAX:
            return []
        return self._path.read_text(encoding="utf-8", errors="replace").splitlines()

    def load_history_strings(self) -> Iterable[str]:
        """The latest first."""
        return reversed(self._old)

    def store_string(self, string: str) -> None:
        """Keep one more."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_line_of(string))


def _line_of(text: str) -> str:
    return json.dumps(text) + "\n"


def _text_of(line: str) -> str | None:
    try:
        text = json.loads(line)
    except ValueError:
        return None
    return text if isinstance(text, str) else None
