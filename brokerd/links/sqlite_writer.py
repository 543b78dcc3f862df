"""The group commit of the sent_queue's file: all calls that wait go into one commit, and one sync.

One group at a time has the Ledger. A group whose calls find all they need in memory is decided on the event loop, and the kernel is
asked to sync it (file_sync): two threads that pass the interpreter to and fro for each commit cost more than the commit. All else is
the thread's: what reads the file, changes the tables, waits for another process, or has gone wrong. A group that fails there is
tried again in a transaction, and then call by call, so that one bad call, or a disk with no room for appends, does not fail the
others.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from brokerd.links import sqlite_schema as sql
from brokerd.links.file_sync import open_sync
from brokerd.links.sqlite_calls import Answer, Call, as_link_down, failed
from brokerd.links.sqlite_ledger import Ledger
from brokerd.ports import LinkDown

CALLS_WAITING_MAX: Final = 16_384  # beyond it a call fails with LinkDown at once
GROUP_CALLS_MAX: Final = 1024  # in one commit
JOURNAL_TRIES: Final = 3  # another process changed the file in between: beyond it a transaction shuts it out

T = TypeVar("T")


class Statistics(NamedTuple):
    """Commits (of them `folds`, which only brought the journal to the tables), calls answered well, calls failed."""

    commits: int
    folds: int
    answered: int
    failed: int


class GroupWriter:
    """Runs calls on the Ledger of one file, answering each future when what it did is on the disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: list[Call] = []
        self._is_at_work = False  # a group is under way, here or in the thread: the ledger is its own
        self._idle: asyncio.Future[None] | None = None  # who closes waits for it
        self._answers: list[Answer] = []  # of the group that is being synced
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._is_open = False
        self._ledger: Ledger | None = None
        self._wal = -1  # file descriptor of the ledger's WAL
        self._is_spoilt = False  # a sync failed, and the WAL is not to be trusted until it was copied into the file
        self._commits = self._folds = self._answered = self._failed = 0
        self.trouble = ""  # why the file took no append; "" = the last one was taken

    async def start(self) -> None:
        """Open the file. Raises StoreTooNew, LinkDown."""
        self._loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._main, args=(ready,), name="sent_queue", daemon=True)
        self._thread.start()
        await ready
        self._sync = open_sync(self._loop, self._synced)
        self._is_open = True

    async def close(self) -> None:
        """Carry out what waits, then close the file. Calls that come later fail."""
        if self._thread is None:
            return
        if self._is_open and self._is_at_work:
            self._idle = self._loop.create_future()
        was_open, self._is_open = self._is_open, False
        if self._idle is not None:
            await self._idle
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)
        self._thread = None
        if was_open and self._sync is not None:
            self._sync.close()

    def call(
        self,
        run: Callable[[Ledger], T],
        *,
        writes: bool = True,
        ordered: bool = False,
        is_warm: Callable[[Ledger], bool] | None = None,
    ) -> asyncio.Future[T]:
        """Have `run` called, here or in the thread. Raises LinkDown when closed or overrun; the future fails with LinkDown when
        the file did not take it."""
        if not self._is_open:
            raise LinkDown("the sent_queue is not open")
        if len(self._waiting) >= CALLS_WAITING_MAX:
            raise LinkDown(f"{CALLS_WAITING_MAX} calls wait for the sent_queue")
        future: asyncio.Future[T] = self._loop.create_future()
        self._waiting.append(Call(run, future, writes, ordered, is_warm))
        if not self._is_at_work:
            self._is_at_work = True
            self._loop.call_soon(self._next)
        return future

    def statistics(self) -> Statistics:
        """Since the start."""
        return Statistics(self._commits, self._folds, self._answered, self._failed)

    # --- on the loop

    def _next(self) -> None:
        """Begin the next group: all that came in the meantime."""
        calls = self._waiting[:GROUP_CALLS_MAX]
        del self._waiting[:GROUP_CALLS_MAX]
        if not calls:
            self._is_at_work = False
            if self._idle is not None:
                self._idle.set_result(None)
        elif not self._write_here(calls):
            self._jobs.put(partial(self._work_off, calls))

    def _write_here(self, calls: list[Call]) -> bool:
        """Commit them to the journal, and have it synced. False: it would not do, and nothing happened."""
        ledger = self._ledger
        if ledger is None or not ledger.is_current or self._is_spoilt:
            return False
        try:
            if not all(call.is_warm is not None and call.is_warm(ledger) for call in calls):
                return False
            answers = [Answer(call.future, call.run(ledger), None) for call in calls]
            if not ledger.journal():
                return False
        except Exception:
            self._undo()
            return False
        self._answers = self._committed(calls, answers)
        if not ledger.is_unsynced:
            self._loop.call_soon(self._synced, None)
        elif self._sync is None:
            self._jobs.put(self._sync_and_answer)
        else:
            try:
                self._sync.start(self._wal)
            except OSError as fault:
                self._loop.call_soon(self._synced, fault)
        return True

    def _synced(self, fault: OSError | None) -> None:
        """What `_write_here` committed is on the disk, or not."""
        answers, self._answers = self._answers, []
        self._done(self._judged(answers, fault))

    def _done(self, answers: list[Answer]) -> None:
        """A group has come to its end."""
        self._told(answers)
        if self._ledger is not None and self._ledger.is_tidy_due and not self._is_spoilt:
            self._jobs.put(self._tidy_and_go_on)
        else:
            self._next()

    def _told(self, answers: list[Answer]) -> None:
        for future, result, fault in answers:
            if fault is None:
                self._answered += 1
                if not future.done():  # cancelled by who waited
                    future.set_result(result)
            else:
                self._failed += 1
                if not future.done():
                    future.set_exception(fault)

    def _judged(self, answers: list[Answer], fault: OSError | None) -> list[Answer]:
        """The answers, now that the sync of them is over. When it failed, nobody can tell what of the WAL is on the disk, and the next
        sync may say "done" though it is not: until a checkpoint has brought all of it into the file nothing is answered."""
        if self._ledger is not None:
            self._ledger.is_unsynced = False
        if fault is None:
            return answers
        self._is_spoilt = True
        self._note(fault)
        return [answer if answer.fault else Answer(answer.future, None, as_link_down(fault)) for answer in answers]

    # --- in the thread

    def _main(self, ready: asyncio.Future[None]) -> None:
        try:
            self._open_ledger()
        except Exception as fault:
            self._soon(ready.set_exception, as_link_down(fault))
            return
        self._soon(ready.set_result, None)
        while (job := self._jobs.get()) is not None:
            job()
        self._be_patient(True)
        self._tidy(folds=True)
        self._give_up_ledger()

    def _soon(self, call: Callable[..., object], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *args)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return

    def _open_ledger(self) -> Ledger:
        """The ledger, made anew when its connection was given up."""
        if self._ledger is None:
            connection = sql.open_store(self._path)
            try:
                self._wal = os.open(f"{self._path}-wal", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                connection.close()
                raise
            self._ledger = Ledger(connection)
        return self._ledger

    def _give_up_ledger(self) -> None:
        """Close it. What it committed may be about to be answered: synced, or spoilt."""
        if self._ledger is not None:
            if self._ledger.is_unsynced and self._sync_here() is not None:
                self._is_spoilt = True
            self._ledger.connection.close()
            os.close(self._wal)
            self._ledger = None

    def _be_patient(self, is_patient: bool) -> None:
        """The thread waits for other processes; the loop must not."""
        if self._ledger is not None:
            with suppress(sqlite3.Error):  # whoever uses such a connection next finds out, and gives it up
                sql.set_patience(self._ledger.connection, is_patient=is_patient)

    def _work_off(self, calls: list[Call]) -> None:
        """A group that is none for the loop."""
        self._be_patient(True)
        if self._is_spoilt and (fault := self._heal()):
            return self._soon(self._done, failed(calls, fault))
        written = self._write([call for call in calls if call.writes])
        if self._is_spoilt:
            written = self._judged(written, OSError("what was committed could not be synced"))
        elif self._ledger is not None and self._ledger.is_unsynced:
            written = self._judged(written, self._sync_here())
        self._soon(self._told, written)
        answers = self._read([call for call in calls if not call.writes])
        self._be_patient(False)
        return self._soon(self._done, answers)

    def _sync_and_answer(self) -> None:
        """Where the kernel does not sync by itself."""
        self._soon(self._synced, self._sync_here())

    def _sync_here(self) -> OSError | None:
        try:
            os.fdatasync(self._wal)
        except OSError as fault:
            return fault
        return None

    def _heal(self) -> Exception | None:
        """Bring all of the WAL into the file, which SQLite syncs."""
        try:
            self._undo()
            (is_busy, *_) = self._open_ledger().connection.execute(sql.CHECKPOINT_WHOLE).fetchone()
        except Exception as fault:
            return fault
        if is_busy:
            return LinkDown(
                "a sync failed, and what it was to sync could not be copied: another process reads the sent_queue"
            )
        self._is_spoilt = False
        return None

    def _write(self, calls: list[Call]) -> list[Answer]:
        """Run the calls, all in one commit if it can be."""
        if not calls:
            return []
        answers = self._write_to_journal(calls) if all(call.is_warm for call in calls) else None
        return self._write_to_tables(calls) if answers is None else answers

    def _write_to_journal(self, calls: list[Call]) -> list[Answer] | None:
        """None: it would not do."""
        try:
            for _ in range(JOURNAL_TRIES):
                ledger = self._open_ledger()
                ledger.be_current()
                answers = [Answer(call.future, call.run(ledger), None) for call in calls]
                if ledger.journal():
                    return self._committed(calls, answers)
        except Exception as fault:
            self._undo()
            if isinstance(fault, sqlite3.OperationalError) and fault.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                self._note(fault)
                return failed(calls, fault)
        return None

    def _committed(self, calls: list[Call], answers: list[Answer]) -> list[Answer]:
        self._commits += 1
        if self.trouble and any(call.ordered for call in calls):
            self.trouble = ""
        return answers

    def _write_to_tables(self, calls: list[Call]) -> list[Answer]:
        """Run the calls in one transaction."""
        try:
            ledger = self._open_ledger()
            ledger.begin(writes=True)
        except Exception as fault:  # nobody's fault among the calls: the file is away, or held by another process
            self._undo()
            self._note(fault)
            return failed(calls, fault)
        try:
            if not all(call.is_warm for call in calls):
                ledger.fold()  # else not yet: on a full disk there may be no room before an ACK has made it
            answers = [Answer(call.future, call.run(ledger), None) for call in calls]
            ledger.commit()
        except Exception as fault:
            self._undo()
            self._note(fault)
            return failed(calls, fault) if len(calls) == 1 else self._write_each(calls)
        return self._committed(calls, answers)

    def _tidy_and_go_on(self) -> None:
        self._be_patient(True)
        self._tidy(folds=False)
        self._be_patient(False)
        self._soon(self._next)

    def _tidy(self, *, folds: bool) -> None:
        """Shorten the journal, or bring it to the tables. When that fails it is as safe as it is: it is tried again behind the next
        group."""
        try:
            self._folds += self._open_ledger().tidy(folds=folds)
            self._commits += 1
        except Exception as fault:
            self._undo()
            self._note(fault)

    def _note(self, fault: Exception) -> None:
        if isinstance(fault, (sqlite3.Error, OSError)):
            self.trouble = str(fault)

    def _write_each(self, calls: list[Call]) -> list[Answer]:
        """Run each call in a transaction of its own. After an append that failed the later ones fail too: had one been
        taken for the same receiver, the repeat of the first would look like a repeat of what was never stored."""
        answers: list[Answer] = []
        first_fault: BaseException | None = None
        for call in calls:
            if call.ordered and first_fault is not None:
                answers += failed([call], first_fault)
                continue
            answers += (answer := self._write_to_tables([call]))
            if call.ordered:
                first_fault = answer[0].fault
        return answers

    def _read(self, calls: list[Call]) -> list[Answer]:
        """Run the calls on one snapshot, outside any write."""
        if not calls:
            return []
        try:
            ledger = self._open_ledger()
            ledger.begin(writes=False)
        except Exception as fault:
            self._undo()
            return failed(calls, fault)
        answers = []
        for call in calls:
            try:
                answers.append(Answer(call.future, call.run(ledger), None))
            except Exception as fault:
                answers += failed([call], fault)
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
            self._give_up_ledger()
