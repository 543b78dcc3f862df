"""What a client keeps so that it survives its own restart: its place in the queue and what was not answered yet."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from protocol.client_core import Request
from protocol.codec import Malformed, decode, encode
from protocol.messages import Accepted, Hello, Read, Send
from protocol.wire import BODY_BYTES_HARD_MAX, HEAD, HEAD_BYTES, Type

JOURNAL_BYTES_MAX: Final = 1024 * 1024  # over it, and over four times what lives in it, the journal is written anew


class Kept(NamedTuple):
    """What a store gives back at the start. `next_cid` 0: it knows of none."""

    next_cid: int
    generation: bytes
    position: int
    unanswered: tuple[Request, ...]


class Change(NamedTuple):
    """What one turn of the client changed. A renumbered request is in `answered` (old cid) and `posted` (new)."""

    posted: list[Request]
    answered: list[int]
    place: tuple[bytes, int] | None  # generation, last processed seq


class ClientStore(Protocol):
    """Kept by one client at a time, for one user and device on one server."""

    def load(self) -> Kept:
        """What an earlier run left. Called once, before anything else."""

    def save(self, change: Change) -> None:
        """Keep all of it or nothing. Called once a loop turn, before anything of it goes onto the wire. Must not wait
        long: the event loop stands meanwhile. Raises OSError; then the client closes."""

    def close(self) -> None:
        """The client is done."""


class MemoryStore:
    """Lives as long as the object: another Client made with the same store goes on where the last one stopped."""

    def __init__(self) -> None:
        self._requests: dict[int, Request] = {}
        self._next_cid = 0
        self._place = (b"", 0)

    def load(self) -> Kept:
        """See ClientStore."""
        return Kept(self._next_cid, *self._place, tuple(self._requests.values()))

    def save(self, change: Change) -> None:
        """See ClientStore."""
        for request in change.posted:
            self._requests[request.ref] = request
            self._next_cid = max(self._next_cid, request.ref + 1)
        for cid in change.answered:
            self._requests.pop(cid, None)
        if change.place is not None:
            self._place = change.place

    def close(self) -> None:
        """See ClientStore."""


class StoreBusy(Exception):
    """Another client has this store open: two clients with one device would replace each other for ever."""


class FileStore(MemoryStore):
    """A journal of wire frames in one file of mode 0600: SEND and READ are posted, ACCEPTED is answered, HELLO is a place.

    A torn end (the process died while writing) is cut off at load. `fsync` makes it survive a power cut as well, at the
    price of a disk write a loop turn. The directory must exist.
    """

    def __init__(self, path: Path | str, *, fsync: bool = False) -> None:
        super().__init__()
        self._path = Path(path)
        self._fsync = fsync
        self._fd = -1
        self._lock_fd = -1
        self._bytes = 0
        self._bytes_max = JOURNAL_BYTES_MAX

    def load(self) -> Kept:
        """See ClientStore. Raises StoreBusy, OSError."""
        self._lock_fd = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise StoreBusy(f"{self._path} is open in another client") from None
        for message in _messages(self._path.read_bytes() if self._path.exists() else b""):
            self._replay(message)
        self._write_anew()
        return super().load()

    def save(self, change: Change) -> None:
        """See ClientStore."""
        super().save(change)
        data = _frames(change)
        os.write(self._fd, data)
        self._bytes += len(data)
        if self._bytes > self._bytes_max:
            self._write_anew()
        elif self._fsync:
            os.fdatasync(self._fd)

    def close(self) -> None:
        """See ClientStore. May be called twice."""
        for fd in (self._fd, self._lock_fd):
            if fd >= 0:
                os.close(fd)
        self._fd = self._lock_fd = -1

    def _replay(self, message: object) -> None:
        if isinstance(message, Send | Read):
            super().save(Change([message], [], None))
        elif isinstance(message, Accepted):
            super().save(Change([], list(message.cids), None))
            self._next_cid = max(self._next_cid, message.ref + 1 if message.ref else 0)  # 0: none yet
        elif isinstance(message, Hello):
            self._place = (message.generation, message.ref)

    def _write_anew(self) -> None:
        """A fresh journal of what lives, swapped in by a rename: a crash leaves the old or the new one, whole."""
        last_cid = max(self._next_cid - 1, 0)
        data = encode(Accepted(last_cid, 0, ())) + _frames(Change(list(self._requests.values()), [], self._place))
        temporary = f"{self._path}.new"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self._path)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._bytes = len(data)
        self._bytes_max = max(JOURNAL_BYTES_MAX, 4 * len(data))


def _frames(change: Change) -> bytes:
    """One write: a journal is cut at a frame, and replaying a posted request twice does no harm."""
    parts = [encode(request) for request in change.posted]
    parts += [encode(Accepted(cid, 0, (cid,))) for cid in change.answered]
    if change.place is not None:
        generation, position = change.place
        parts.append(encode(Hello(position, 0, 0, (), "", "", 0, "", generation, 0, {})))
    return b"".join(parts)


def _messages(data: bytes) -> Iterator[object]:
    """The messages of a journal, up to the first that is not whole or not ours."""
    at = 0
    while at + HEAD_BYTES <= len(data):
        length, type_, flags, _, ref = HEAD.unpack_from(data, at)
        at += HEAD_BYTES
        if type_ not in _JOURNAL_TYPES or length > BODY_BYTES_HARD_MAX or at + length > len(data):
            return
        try:
            yield decode(type_, flags, ref, data[at : at + length])
        except Malformed:
            return
        at += length


_JOURNAL_TYPES: Final[Iterable[int]] = frozenset((Type.SEND, Type.READ, Type.ACCEPTED, Type.HELLO))
