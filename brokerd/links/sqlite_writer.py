"""The thread that owns the sent_queue's file, and the group commit: all calls that wait go into one.

It takes what is ready and never lingers; one fsync is shared by whoever came while the last one ran. Where all of a group
may, it is committed to the journal, which is one statement: each gives the interpreter away and takes it back, from an event
loop that has it almost always. A group that fails is tried again in a transaction, and then call by call, so that one bad
call, or a disk with no room for appends, does not fail the others.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from brokerd.links.sqlite_ledger import Ledger
from brokerd.links.sqlite_schema import open_store
from brokerd.ports import LinkDown

CALLS_WAITING_MAX: Final = 16_384  # beyond it a call fails with LinkDown at once
GROUP_CALLS_MAX: Final = 1024  # in one commit
JOURNAL_TRIES: Final = 3  # another process changed the file in between: beyond it a transaction shuts it out

# a value that SQLite cannot keep, or that a column may not have
_MISTAKES: Final = (sqlite3.InterfaceError, sqlite3.ProgrammingError, sqlite3.DataError, sqlite3.IntegrityError)

T = TypeVar("T")


class _Call(NamedTuple):
    """One call: what to run, who waits, whether it writes, whether a later append may not overtake it, and whether the
    journal will do for it: it changes states and adds entries, and does nothing to a table by itself."""

    run: Callable[[Ledger], Any]
    future: asyncio.Future[Any]
    writes: bool
    ordered: bool
    journaled: bool


class _Answer(NamedTuple):
    """What becomes of a call's future."""

    future: asyncio.Future[Any]
    result: Any
    fault: BaseException | None


class Statistics(NamedTuple):
    """Commits (of them `folds`, which only brought the journal to the tables), calls answered well, calls failed."""

    commits: int
    folds: int
    answered: int
    failed: int


class GroupWriter:
    """Runs calls on the Ledger of one file, in its own thread, answering each future after its COMMIT."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._is_open = False
        self._ledger: Ledger | None = None
        self._commits = self._folds = self._answered = self._failed = 0
        self.trouble = ""  # why the file took no append; "" = the last one was taken

    async def start(self) -> None:
        """Open the file. Raises StoreTooNew, LinkDown."""
        self._loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._main, args=(ready,), name="sent_queue", daemon=True)
        self._thread.start()
        await ready
        self._is_open = True

    async def close(self) -> None:
        """Carry out what waits, then close the file. Calls that come later fail."""
        self._is_open = False
        if self._thread is not None:
            self._calls.put(None)
            await asyncio.to_thread(self._thread.join)
            self._thread = None

    def call(
        self, run: Callable[[Ledger], T], *, writes: bool = True, ordered: bool = False, journaled: bool = False
    ) -> asyncio.Future[T]:  # fmt: skip
        """Have `run` called in the thread. Raises LinkDown when closed or overrun; the future fails with LinkDown when
        the file did not take it."""
        if not self._is_open:
            raise LinkDown("the sent_queue is not open")
        if self._calls.qsize() >= CALLS_WAITING_MAX:
            raise LinkDown(f"{CALLS_WAITING_MAX} calls wait for the sent_queue")
        future: asyncio.Future[T] = self._loop.create_future()
        self._calls.put(_Call(run, future, writes, ordered, journaled))
        return future

    def statistics(self) -> Statistics:
        """Since the start."""
        return Statistics(self._commits, self._folds, self._answered, self._failed)

    # --- in the thread

    def _main(self, ready: asyncio.Future[None]) -> None:
        try:
            self._open_ledger()
        except Exception as fault:
            self._answer([_Answer(ready, None, _as_link_down(fault))])
            return
        self._answer([_Answer(ready, None, None)])
        is_last = False
        while not is_last:
            calls, is_last = self._next_group()
            self._answer(self._write([call for call in calls if call.writes]))
            self._answer(self._read([call for call in calls if not call.writes]))
            if is_last or (self._ledger is not None and self._ledger.is_tidy_due):
                self._tidy(folds=is_last)
        if self._ledger is not None:
            self._ledger.connection.close()

    def _open_ledger(self) -> Ledger:
        """The ledger, made anew when its connection was given up."""
        if self._ledger is None:
            self._ledger = Ledger(open_store(self._path))
        return self._ledger

    def _next_group(self) -> tuple[list[_Call], bool]:
        """Wait for a call, then take all that are there. True: the last group."""
        call = self._calls.get()
        calls: list[_Call] = []
        while call is not None:
            calls.append(call)
            if len(calls) >= GROUP_CALLS_MAX:
                break
            try:
                call = self._calls.get_nowait()
            except queue.Empty:
                break
        return calls, call is None

    def _write(self, calls: list[_Call]) -> list[_Answer]:
        """Run the calls, all in one commit if it can be."""
        if not calls:
            return []
        answers = self._write_to_journal(calls) if all(call.journaled for call in calls) else None
        return self._write_to_tables(calls) if answers is None else answers

    def _write_to_journal(self, calls: list[_Call]) -> list[_Answer] | None:
        """None: it would not do."""
        try:
            for _ in range(JOURNAL_TRIES):
                ledger = self._open_ledger()
                ledger.be_current()
                answers = [_Answer(call.future, call.run(ledger), None) for call in calls]
                if ledger.journal():
                    return self._committed(calls, answers)
        except Exception as fault:
            self._undo()
            if isinstance(fault, sqlite3.OperationalError) and fault.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                self._note(fault)
                return _failed(calls, fault)
        return None

    def _committed(self, calls: list[_Call], answers: list[_Answer]) -> list[_Answer]:
        self._commits += 1
        if self.trouble and any(call.ordered for call in calls):
            self.trouble = ""
        return answers

    def _write_to_tables(self, calls: list[_Call]) -> list[_Answer]:
        """Run the calls in one transaction."""
        try:
            ledger = self._open_ledger()
            ledger.begin(writes=True)
        except Exception as fault:  # nobody's fault among the calls: the file is away, or held by another process
            self._undo()
            self._note(fault)
            return _failed(calls, fault)
        try:
            if not all(call.journaled for call in calls):
                ledger.fold()  # else not yet: on a full disk there may be no room before an ACK has made it
            answers = [_Answer(call.future, call.run(ledger), None) for call in calls]
            ledger.commit()
        except Exception as fault:
            self._undo()
            self._note(fault)
            return _failed(calls, fault) if len(calls) == 1 else self._write_each(calls)
        return self._committed(calls, answers)

    def _tidy(self, *, folds: bool) -> None:
        """Shorten the journal, or bring it to the tables. When that fails it is as safe as it is, and the next group tries again."""
        try:
            self._folds += self._open_ledger().tidy(folds=folds)
            self._commits += 1
        except Exception as fault:
            self._undo()
            self._note(fault)

    def _note(self, fault: Exception) -> None:
        if isinstance(fault, (sqlite3.Error, OSError)):
            self.trouble = str(fault)

    def _write_each(self, calls: list[_Call]) -> list[_Answer]:
        """Run each call in a transaction of its own. After an append that failed the later ones fail too: had one been
        taken for the same receiver, the repeat of the first would look like a repeat of what was never stored."""
        answers: list[_Answer] = []
        first_fault: BaseException | None = None
        for call in calls:
            if call.ordered and first_fault is not None:
                answers += _failed([call], first_fault)
                continue
            answers += (answer := self._write_to_tables([call]))
            if call.ordered:
                first_fault = answer[0].fault
        return answers

    def _read(self, calls: list[_Call]) -> list[_Answer]:
        """Run the calls on one snapshot, outside any write."""
        if not calls:
            return []
        try:
            ledger = self._open_ledger()
            ledger.begin(writes=False)
        except Exception as fault:
            self._undo()
            return _failed(calls, fault)
        answers = []
        for call in calls:
            try:
                answers.append(_Answer(call.future, call.run(ledger), None))
            except Exception as fault:
                answers += _failed([call], fault)
        try:
            ledger.commit()  # nothing was written: this lets the snapshot go and keeps what the cache learnt
        except sqlite3.Error:
            self._undo()
        return answers

    def _undo(self) -> None:
        """Roll back; a connection that cannot even do that is given up, and opened anew by the next group."""
        if self._ledger is None:
            return
        try:
            self._ledger.rollback()
        except sqlite3.Error:
            self._ledger.connection.close()
            self._ledger = None

    def _answer(self, answers: list[_Answer]) -> None:
        """Wake the loop once for all of them."""
        if not answers:
            return
        failed = sum(answer.fault is not None for answer in answers)
        self._failed += failed
        self._answered += len(answers) - failed
        try:
            self._loop.call_soon_threadsafe(_resolve, answers)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return


def _resolve(answers: list[_Answer]) -> None:
    for future, result, fault in answers:
        if future.done():
            continue  # cancelled by who waited
        if fault is None:
            future.set_result(result)
        else:
            future.set_exception(fault)


def _failed(calls: list[_Call], fault: BaseException) -> list[_Answer]:
    return [_Answer(call.future, None, _as_link_down(fault)) for call in calls]


def _as_link_down(fault: BaseException) -> BaseException:
    """What the disk or the file does to us is LinkDown; a mistake in a call stays what it is: no waiting mends it."""
    if isinstance(fault, _MISTAKES):
        return fault
    if isinstance(fault, (sqlite3.Error, OSError)):
        return LinkDown(f"sent_queue: {fault}")
    return fault
