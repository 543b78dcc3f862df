"""The file of batches that could not be decoded: kept for a person to look at, never read by the server again.

A record is 4 bytes of length (big-endian) and that many bytes of msgpack `[shard, reason, at_ms, body]`.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import msgpack

from brokerd.ports import LinkDown

DEAD_LETTERS_BYTES_MAX: Final = 64 * 1024 * 1024  # then the file moves to <name>.1, over the one before it
_LENGTH: Final = struct.Struct(">I")


class DeadLetter(NamedTuple):
    """A batch of `shard`, and why nobody could read it."""

    shard: int
    reason: str
    at_ms: int
    body: bytes


def append_dead_letter(path: Path, letter: DeadLetter, bytes_max: int = DEAD_LETTERS_BYTES_MAX) -> None:
    """Write one record and sync it. Raises LinkDown. One write, so that two at a time do not mix."""
    packed: bytes = msgpack.packb(letter)
    try:
        if path.exists() and path.stat().st_size >= bytes_max:
            path.replace(path.with_name(path.name + ".1"))
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(file, _LENGTH.pack(len(packed)) + packed)
            os.fsync(file)
        finally:
            os.close(file)
    except OSError as fault:
        raise LinkDown(f"{path}: {fault}") from fault


def read_dead_letters(path: Path) -> Iterator[DeadLetter]:
    """The records of a file, oldest first. A last record that a crash cut short is left out."""
    data = path.read_bytes()
    at = 0
    while at + _LENGTH.size <= len(data):
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if at + length > len(data):
            return
        yield DeadLetter._make(msgpack.unpackb(data[at : at + length]))
        at += length
