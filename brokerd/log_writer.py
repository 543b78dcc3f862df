"""Writes log lines in a thread of its own, so that a stalled reader (a full pipe, journald) never stalls the event loop.

At LINES_MAX waiting lines new ones are dropped and counted; the count is logged once the writer gets through again.
queue.SimpleQueue because its put is reentrant: a line may come from a finaliser in the middle of another put.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final, NamedTuple

LINES_MAX: Final = 4096
BATCH_LINES_MAX: Final = 256
CLOSE_S_MAX: Final = 2.0
# After a line the thread waits for others. Woken for each, it took the interpreter from the event loop twice a line: one
# switch of threads costs more than the line.
LINGER_S: Final = 0.02
RETRY_S: Final = 1.0


class LogStatistics(NamedTuple):
    """Lines put in, and lines that were dropped because the writer was behind or its file was gone."""

    taken: int
    dropped: int


class LogWriter:
    """`put` lines from any thread; `close` at the end. `tell_dropped(count)` makes the line that admits the loss."""

    def __init__(self, fd: int, tell_dropped: Callable[[int], str], lines_max: int = LINES_MAX) -> None:
        self._fd = fd
        self._tell_dropped = tell_dropped
        self._lines_max = lines_max
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        self._taken = 0
        self._dropped = 0
        self._told = 0
        self._lost = 0  # by the thread alone
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def put(self, line: str) -> None:
        """Take one line, without its newline. Never waits."""
        if self._is_closing.is_set() or self._lines.qsize() >= self._lines_max:
            self._dropped += 1
        else:
            self._taken += 1
            self._lines.put(line)

    def statistics(self) -> LogStatistics:
        """What was taken and dropped so far."""
        return LogStatistics(self._taken, self._dropped + self._lost)

    def close(self) -> None:
        """Write what waits, for at most CLOSE_S_MAX seconds; what comes later is dropped."""
        self._is_closing.set()
        self._lines.put(None)
        self._thread.join(CLOSE_S_MAX)

    def _run(self) -> None:
        is_open = True
        while is_open:
            batch = [self._lines.get()]
            if batch[0] is not None and self._lines.qsize() < BATCH_LINES_MAX:
                self._is_closing.wait(LINGER_S)
            try:
                while len(batch) < BATCH_LINES_MAX:
                    batch.append(self._lines.get_nowait())
            except Empty:
                pass  # that was all
            is_open = None not in batch
            self._write([line for line in batch if line is not None])

    def _write(self, lines: list[str]) -> None:
        if (dropped := self._dropped) > self._told:
            lines.append(self._tell_dropped(dropped - self._told))
            self._told = dropped
        data = memoryview("".join(line + "\n" for line in lines).encode("utf-8", "backslashreplace"))
        try:
            while data:
                data = data[self._write_some(data) :]
        except OSError:
            self._lost += len(lines)  # the reader is gone; there is nowhere to say so

    def _write_some(self, data: memoryview) -> int:
        try:
            return os.write(self._fd, data)
        except BlockingIOError:  # somebody made the terminal or pipe non-blocking: it is shared with them
            select.select([], [self._fd], [], RETRY_S)
            return 0
