"""A copy of a store's file that is whole, taken while the server writes on.

The copy is another life of each queue (new generations): what devices know by seq beyond the moment of the copy means
nothing in it. Whichever way it is brought back, no device takes a later message for one that it has.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from brokerd.links.sqlite_identity import SqliteIdentity
from brokerd.ports import LinkDown


def back_up_store(source: Path, target: Path) -> None:
    """Copy the sent_queue's file, with a mark of its own and its note beside it. Raises LinkDown."""
    back_up_file(source, target)
    SqliteIdentity(target).accept()


def back_up_file(source: Path, target: Path) -> None:
    """Copy any SQLite file as it is at one moment, into one file, synced, for its owner only. Raises LinkDown."""
    try:
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        with (
            closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=rw", uri=True)) as one,
            closing(sqlite3.connect(target)) as other,
        ):
            one.backup(other)  # all pages in one step: a writer would make a second step begin anew, for ever
            other.execute("PRAGMA journal_mode = DELETE")  # one file; who opens it as a store makes it WAL again
            (found,) = other.execute("PRAGMA quick_check").fetchone()
        with target.open("rb") as file:
            os.fsync(file.fileno())
    except (OSError, sqlite3.Error) as fault:
        raise LinkDown(f"{source}: {fault}") from None
    if found != "ok":
        raise LinkDown(f"{source} is damaged: {found}")
