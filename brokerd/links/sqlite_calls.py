"""One call of the sent_queue's file, and what becomes of it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from brokerd.links.sqlite_ledger import Ledger
from brokerd.ports import LinkDown

# a value that SQLite cannot keep, or that a column may not have
_MISTAKES: Final = (sqlite3.InterfaceError, sqlite3.ProgrammingError, sqlite3.DataError, sqlite3.IntegrityError)


class Call(NamedTuple):
    """One call: what to run, who waits, whether it writes, whether a later append may not overtake it. `is_warm`: None, unless the
    journal will do for it (it changes states and adds entries, and does nothing to a table by itself); then it says whether
    the call would find all it needs in memory."""

    run: Callable[[Ledger], Any]
    future: asyncio.Future[Any]
    writes: bool
    ordered: bool
    is_warm: Callable[[Ledger], bool] | None


class Answer(NamedTuple):
    """What becomes of a call's future."""

    future: asyncio.Future[Any]
    result: Any
    fault: BaseException | None


def failed(calls: Sequence[Call], fault: BaseException) -> list[Answer]:
    """All of them, for the same reason."""
    return [Answer(call.future, None, as_link_down(fault)) for call in calls]


def as_link_down(fault: BaseException) -> BaseException:
    """What the disk or the file does to us is LinkDown; a mistake in a call stays what it is: no waiting mends it."""
    if isinstance(fault, _MISTAKES):
        return fault
    if isinstance(fault, (sqlite3.Error, OSError)):
        return LinkDown(f"sent_queue: {fault}")
    return fault
