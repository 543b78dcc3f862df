"""Account files: read again when they changed, replaced in one step, by one writer at a time."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Generic, TypeVar

import structlog

T = TypeVar("T")
log = structlog.get_logger()

FILE_BYTES_MAX: Final = 32 * 1024 * 1024
LOOK_S: Final = 1.0  # a file is looked at this often at most
PRIVATE_MODE: Final = 0o600


class FileBroken(Exception):
    """The file can not be used; the text says which line and why, and never shows a secret."""


class WatchedFile(Generic[T]):
    """A file's parsed content. `parse` gets its text and raises FileBroken; `absent` stands for no file.

    The first look, in the constructor, raises FileBroken. Later a file that is broken or gone is logged and the old
    content stays: a slip of an editor must not lock everybody out. `version` grows with each new content.
    """

    def __init__(
        self, path: Path, parse: Callable[[str], T], absent: T, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = path
        self._parse = parse
        self._clock_s = clock_s
        self._looked_s = clock_s()
        self._mark = self._look()
        self._value = absent if self._mark is None else parse(read_text(path))
        self.version = 1

    def value(self) -> T:
        """The content, at most LOOK_S old."""
        if self._clock_s() - self._looked_s < LOOK_S:
            return self._value
        return self.value_now()

    def value_now(self) -> T:
        """The content as it is now: one stat(2), 2 µs, and a read when it changed."""
        self._looked_s = self._clock_s()
        mark = self._look()
        if mark != self._mark:
            self._mark = mark
            self._read_again()
        return self._value

    def _look(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _read_again(self) -> None:
        try:
            self._value = self._parse(read_text(self._path))
        except FileBroken as error:
            log.error("account_file_refused", path=self._path, why=str(error), kept="the content before")
            return
        self.version += 1
        log.info("account_file_read", path=self._path)


def read_text(path: Path) -> str:
    """The file as UTF-8. Raises FileBroken."""
    try:
        with path.open("rb") as stream:
            data = stream.read(FILE_BYTES_MAX + 1)
        if len(data) > FILE_BYTES_MAX:
            raise FileBroken(f"{path} is longer than {FILE_BYTES_MAX} bytes")
        return data.decode()
    except OSError as error:
        raise FileBroken(f"{path} can not be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise FileBroken(f"{path} is not UTF-8") from None


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """While it is open no other writer of `path` gets in (a lock file beside it; the file itself is replaced)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(path.with_name(path.name + ".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, PRIVATE_MODE)
    try:
        _give_to_owner_of(path.parent, lock)
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _give_to_owner_of(folder: Path, file: int) -> None:
    """What root writes into a service's folder is for the service, which could not read it otherwise."""
    if os.geteuid() == 0:
        owner = folder.stat()
        os.fchown(file, owner.st_uid, owner.st_gid)


def replace_text(path: Path, text: str) -> None:
    """Put `text` into `path` so that a reader, or a crash, finds the old content or the new, never half. Mode 0600."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    target = os.open(fresh, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC, PRIVATE_MODE)
    try:
        _give_to_owner_of(path.parent, target)
        with os.fdopen(target, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        fresh.rename(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)  # or the rename may be undone by a power loss
    finally:
        os.close(folder)
