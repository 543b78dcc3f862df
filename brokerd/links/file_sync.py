"""fdatasync that nobody waits for: the kernel is asked, and the event loop is told when it is done.

A thread that waits for the disk wants the interpreter back afterwards, from an event loop that has it almost always. So the
kernel does the waiting: Linux' own asynchronous I/O (io_submit(2), through caio) rings an eventfd, which is one more thing that the
loop polls. Where it is not to be had, `open_sync` gives None.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

try:
    from caio import linux_aio
except ImportError:  # not Linux
    linux_aio = None  # type: ignore[assignment]

Done = Callable[[OSError | None], None]


class FileSync:
    """Syncs a file, one time after the other: `start`, then `done` is called with the error, None when all is on the disk."""

    def __init__(self, loop: asyncio.AbstractEventLoop, done: Done) -> None:
        """Raises OSError, SystemError, ValueError where the kernel has no such thing, or nothing left of it."""
        self._loop, self._done = loop, done
        self._kernel = linux_aio.Context(max_requests=1)
        self._asked = linux_aio.Operation.fdsync(-1)
        loop.add_reader(self._kernel.fileno, self._rung)

    def start(self, fd: int) -> None:
        """Ask for what was written so far. Raises OSError."""
        self._asked = linux_aio.Operation.fdsync(fd)
        try:
            self._kernel.submit(self._asked)
        except (SystemError, ValueError) as fault:
            raise OSError(f"the kernel does not sync: {fault}") from None

    def close(self) -> None:
        """Not while one is under way."""
        self._loop.remove_reader(self._kernel.fileno)

    def _rung(self) -> None:
        with suppress(BlockingIOError):  # nobody rang, or somebody looked before
            self._kernel.poll()
        if not self._kernel.process_events():
            return
        try:
            self._asked.get_value()
        except SystemError as fault:
            self._done(OSError(str(fault)))
        else:
            self._done(None)


def open_sync(loop: asyncio.AbstractEventLoop, done: Done) -> FileSync | None:
    """None: not to be had here; a thread has to wait."""
    try:
        return FileSync(loop, done) if linux_aio is not None else None
    except (OSError, SystemError, ValueError):
        return None
