"""The dead letters of one process alone: a file of batches that could not be worked off, and a tray for their return.

A record is 4 bytes of length (big-endian) and that many bytes of msgpack `[shard, reason, at_ms, body]`. The server only
appends to the file; `chatctl` reads it, rewrites it, and puts what is to be tried again into the tray, from where a
running server takes it. Whoever changes the file holds the lock file beside it.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

import msgpack

from brokerd.ports import Inbound, LinkDown, PostRefused
from brokerd.support_ports import DeadLetter, Verdict, Walked

DEAD_LETTERS_BYTES_MAX: Final = 64 * 1024 * 1024  # then the file moves to <name>.1, over the one before it
TRAY_S: Final = 1.0  # how often the server looks into the tray
_LENGTH: Final = struct.Struct(">I")


def append_dead_letter(path: Path, letter: DeadLetter, bytes_max: int = DEAD_LETTERS_BYTES_MAX) -> None:
    """Write one record and sync it; first cut off what a crash left half written. Raises LinkDown."""
    try:
        with _locked(path):
            if path.exists() and path.stat().st_size >= bytes_max:
                path.replace(path.with_name(path.name + ".1"))
            with _opened(path) as file:
                end = _end_of_records(file)
                file.truncate(end)
                _write(file, letter, end)
    except OSError as fault:
        raise LinkDown(f"{path}: {fault}") from fault


def read_dead_letters(path: Path) -> Iterator[DeadLetter]:
    """The records of a file, oldest first. A last record that a crash cut short is left out."""
    with path.open("rb") as file:
        while len(head := file.read(_LENGTH.size)) == _LENGTH.size:
            (length,) = _LENGTH.unpack(head)
            if len(packed := file.read(length)) < length:
                return
            yield DeadLetter._make(msgpack.unpackb(packed)[: len(DeadLetter._fields)])


def _write(file: IO[bytes], letter: DeadLetter, at: int) -> None:
    file.seek(at)
    file.write(_record(letter))
    file.flush()
    os.fsync(file.fileno())


def _record(letter: DeadLetter) -> bytes:
    packed: bytes = msgpack.packb(letter)
    return _LENGTH.pack(len(packed)) + packed


def _end_of_records(file: IO[bytes]) -> int:
    """Behind the last whole record."""
    size, end = os.fstat(file.fileno()).st_size, 0
    while end + _LENGTH.size <= size:
        file.seek(end)
        (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
        if end + _LENGTH.size + length > size:
            break
        end += _LENGTH.size + length
    return end


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
        yield file


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Held against other threads and processes; the kernel takes it back from whoever dies."""
    with _opened(path.with_name(path.name + ".lock")) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class FileDeadLetters:
    """The port DeadLetters on the file `path`, for an operator's command. What goes back lies in the tray until the
    server took it: at once, or when it starts."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def walk(self, decide: Callable[[DeadLetter], Verdict | DeadLetter]) -> Walked:
        """See the port; all there are, for the file is bounded."""
        return await asyncio.to_thread(self._walk, decide)

    def _walk(self, decide: Callable[[DeadLetter], Verdict | DeadLetter]) -> Walked:
        shown = 0
        try:
            if not self._path.parent.is_dir():
                return Walked(0, False)
            with _locked(self._path):
                for path in (self._path.with_name(self._path.name + ".1"), self._path):
                    if path.exists():
                        shown += self._walk_file(path, decide)
        except (OSError, ValueError, TypeError) as fault:  # not records: somebody else wrote into the file
            raise LinkDown(f"{self._path}: {fault}") from fault
        return Walked(shown, False)

    def _walk_file(self, path: Path, decide: Callable[[DeadLetter], Verdict | DeadLetter]) -> int:
        verdicts = []
        for letter in read_dead_letters(path):
            verdict = decide(letter)
            verdicts.append(verdict)
            if verdict is Verdict.REQUEUE or isinstance(verdict, DeadLetter):
                put_into_tray(tray_of(self._path), verdict if isinstance(verdict, DeadLetter) else letter)
        if any(verdict is not Verdict.KEEP for verdict in verdicts):
            rest = path.with_name(path.name + ".new")
            with _opened(rest) as file:
                file.truncate(0)
                for letter, verdict in zip(read_dead_letters(path), verdicts, strict=True):
                    if verdict is Verdict.KEEP:
                        file.write(_record(letter))
                file.flush()
                os.fsync(file.fileno())
            rest.replace(path)
            _sync_folder(path.parent)
        return len(verdicts)


# --- the tray ------------------------------------------------------------------------------------------------------


def tray_of(path: Path) -> Path:
    """The folder of what is to be tried again, beside the file of the dead letters."""
    return path.with_name(path.name + ".return")


def put_into_tray(tray: Path, letter: DeadLetter) -> None:
    """One file a letter, whole or not at all, and synced."""
    tray.mkdir(mode=0o700, exist_ok=True)
    place = tray / f"{time.time_ns():020d}-{os.urandom(4).hex()}"
    with _opened(place.with_suffix(".part")) as file:
        _write(file, letter, 0)
    place.with_suffix(".part").replace(place.with_suffix(".letter"))
    _sync_folder(tray)


def in_tray(tray: Path) -> list[Path]:
    """What waits in it, oldest first."""
    return sorted(tray.glob("*.letter")) if tray.is_dir() else []


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class ReturnTray:
    """The server's side of the tray beside the dead letters at `path`: posts what lies in it to its shard."""

    def __init__(self, path: Path, shards: int, inbound: Inbound, log: Any) -> None:
        self._path, self._shards = path, shards
        self._inbound, self._log = inbound, log

    async def run(self) -> None:
        """Look into it once a second, until cancelled."""
        while True:
            try:
                for place in in_tray(tray_of(self._path)):
                    await self._take(place)
            except (OSError, LinkDown, PostRefused) as fault:
                self._log.warning("tray_put_off", error=str(fault))
            await asyncio.sleep(TRAY_S)

    async def _take(self, place: Path) -> None:
        """Post one letter; it leaves the tray when it is safe. What can never be posted lies with the dead letters again."""
        letters = await asyncio.to_thread(_letters_of, place)
        for letter in letters:
            if 0 <= letter.shard < self._shards:
                await self._inbound.post(letter.shard, letter.body)
            else:
                reason = f"returned, but there is no shard {letter.shard}"
                await asyncio.to_thread(append_dead_letter, self._path, letter._replace(reason=reason))
        self._log.info("dead_letter_returned", shards=[letter.shard for letter in letters])
        await asyncio.to_thread(place.unlink)


def _letters_of(place: Path) -> list[DeadLetter]:
    try:
        return list(read_dead_letters(place))
    except (ValueError, TypeError) as fault:
        raise LinkDown(f"{place}: {fault}") from fault
