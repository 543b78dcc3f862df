"""Whether the sent_queue's file is the one that this data folder knew, or was lost, or replaced by another.

The file carries a number (SQLite's application_id: it travels with every copy of the file), and a note beside it
remembers the number. So a file that was made anew in its place is told apart from the first start of all.
"""

from __future__ import annotations

import math
import os
import secrets
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Final

from brokerd.links.sqlite_schema import EPOCH_NEXT
from brokerd.ports import LinkDown, StoreChanged
from protocol.wire import GENERATION_BYTES

LOOK_S: Final = 0.5  # every login asks
_ID_MAX: Final = 2**31 - 1
_WHAT_TO_DO: Final = "bring the right one back, or take this one as it is with: chatctl store accept"


class SqliteIdentity:
    """One for a store's file. `check` before it is opened, `claim` behind that, `fault` while it is used."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._note = path.with_suffix(".id")
        self._opened: tuple[int, int] | None = None
        self._looked_s = -math.inf
        self._is_in_place = True

    def check(self) -> None:
        """Raises StoreChanged, LinkDown."""
        known = self._known()
        if known is None or known == self._found():
            return
        what = "carries another mark than" if self._path.exists() else "is not there, instead of"
        raise StoreChanged(f"{self._path} {what} the store that {self._note} remembers: {_WHAT_TO_DO}")

    def claim(self) -> None:
        """The file is open: mark it if it has no mark, and remember it. Raises LinkDown."""
        if self._known() is None:
            self.accept()
        self._opened = self._place()
        self._looked_s = -math.inf

    def accept(self) -> None:
        """Take the file that is there for the right one from now on. Raises LinkDown.

        Its mark is a new one, so that the former file is told apart when it comes back. Its queues begin another life: it may
        be an older copy, in which devices know seqs that are yet to be given.
        """
        number = 1 + secrets.randbelow(_ID_MAX)
        try:
            with closing(sqlite3.connect(self._path)) as connection, connection:
                connection.execute("BEGIN IMMEDIATE")
                if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'users'").fetchone():
                    connection.execute(f"UPDATE users SET generation = randomblob({GENERATION_BYTES})")
                if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'epoch'").fetchone():
                    connection.execute(EPOCH_NEXT)
                connection.execute(f"PRAGMA application_id = {number}")
            _write_durably(self._note, f"{number}\n")
        except (OSError, sqlite3.Error) as fault:
            raise LinkDown(f"{self._path}: {fault}") from None

    def fault(self) -> str:
        """What became of the file since `claim`, up to LOOK_S ago: "" when it is in its place. SQLite itself would write on
        into the void."""
        now_s = time.monotonic()
        if now_s - self._looked_s >= LOOK_S:
            self._looked_s = now_s
            self._is_in_place = self._opened is None or self._opened == self._place()
        if self._is_in_place:
            return ""
        return f"{self._path} was taken away or replaced while it was in use: stop, and {_WHAT_TO_DO}"

    def _place(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _known(self) -> int | None:
        try:
            return int(self._note.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as fault:
            raise LinkDown(f"{self._note}: {fault}") from None

    def _found(self) -> int | None:
        if not self._path.exists():
            return None
        try:
            with closing(sqlite3.connect(self._path)) as connection:
                (number,) = connection.execute("PRAGMA application_id").fetchone()
        except sqlite3.Error as fault:
            raise LinkDown(f"{self._path}: {fault}") from None
        return int(number)


def _write_durably(path: Path, text: str) -> None:
    """The old content or the new, also after a power cut. An empty note, which one left once, is no store's."""
    draft = path.with_suffix(".new")
    with draft.open("w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
