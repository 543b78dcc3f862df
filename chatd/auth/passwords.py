"""The password file (`user:argon2id-hash` a line) and the slow work of checking a password against it."""

from __future__ import annotations

import asyncio
import threading
import unicodedata
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import argon2
from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError
from argon2.profiles import RFC_9106_LOW_MEMORY as ARGON2ID

from chatd.auth.files import FileBroken, read_text, replace_text, writing
from chatd.ports import LoginRefused
from protocol.errors import Code
from protocol.names import NAME_ALLOWED, is_name
from protocol.wire import SECRET_BYTES_MAX

# OWASP's cheapest recommended set. One check is about 29 ms of one core and 19 MiB while it lasts.
TIME_COST: Final = 2
MEMORY_KIB: Final = 19 * 1024
LANES: Final = 1
# A line with more than this would let one login take the machine; it is refused when the file is read.
TIME_COST_MAX: Final = 16
MEMORY_KIB_MAX: Final = 256 * 1024

WORKERS: Final = 2
CHECKS_MAX: Final = 64  # under way and waiting: the last of them waits about a second
BUSY_RETRY_MS: Final = 1500
PASSWORD_CHARS_MIN: Final = 8


def owasp_hasher() -> PasswordHasher:
    """The hasher that the product uses (tests take a cheap one)."""
    return PasswordHasher(time_cost=TIME_COST, memory_cost=MEMORY_KIB, parallelism=LANES, type=ARGON2ID.type)


def password_bytes(password: str) -> bytes:
    """What is hashed: NFC, so that it does not matter how a keyboard composes é. Raises ValueError when it is empty,
    longer than SECRET_BYTES_MAX or not Unicode."""
    data = unicodedata.normalize("NFC", password).encode()
    if not 0 < len(data) <= SECRET_BYTES_MAX:
        raise ValueError(f"a password has 1 to {SECRET_BYTES_MAX} bytes")
    return data


def parse_passwords(text: str) -> dict[str, str]:
    """User → hash. Empty lines and lines that begin with # are skipped. Raises FileBroken."""
    users: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        user, _, hashed = line.partition(":")
        if not is_name(user):
            raise FileBroken(f"line {number}: a user name is {NAME_ALLOWED}")
        if user in users:
            raise FileBroken(f"line {number}: {user} stands there twice")
        _check_hash(hashed, number)
        users[user] = hashed
    return users


def _check_hash(hashed: str, number: int) -> None:
    try:
        cost = argon2.extract_parameters(hashed)
    except InvalidHashError:
        raise FileBroken(f"line {number}: not user:$argon2id$…") from None
    if cost.type is not ARGON2ID.type or cost.memory_cost > MEMORY_KIB_MAX or cost.time_cost > TIME_COST_MAX:
        raise FileBroken(f"line {number}: only argon2id of at most {MEMORY_KIB_MAX} KiB and t={TIME_COST_MAX}")


def change_passwords(path: Path, change: Callable[[dict[str, str]], None]) -> None:
    """Let `change` edit the users of the file, alone and in one step (0600). Comments in the file are lost.

    What `change` raises leaves the file as it was. Raises FileBroken when the file is broken already."""
    with writing(path):
        users = parse_passwords(read_text(path)) if path.exists() else {}
        change(users)
        replace_text(path, "".join(f"{user}:{hashed}\n" for user, hashed in users.items()))


class PasswordChecker:
    """Checks passwords in a few threads (argon2 lets the others run), with a bound on what waits for them.

    A user who does not exist costs the same as one who does: a check against a hash that nothing matches.
    """

    def __init__(self, hasher: PasswordHasher | None = None, checks_max: int = CHECKS_MAX) -> None:
        self._hasher = hasher or owasp_hasher()
        self._nobody = self._hasher.hash(b"\0")  # a right guess of this would not help: see _is_right
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="argon2")
        self._free = threading.BoundedSemaphore(checks_max)

    async def is_right(self, users: Mapping[str, str], user: str, password: bytes) -> bool:
        """Whether it is the user's password. Raises LoginRefused(BUSY) when too many wait."""
        if not self._free.acquire(blocking=False):
            raise LoginRefused(Code.BUSY, "too many passwords wait to be checked", BUSY_RETRY_MS)
        work = self._pool.submit(self._is_right, users.get(user), password)
        # Not in a finally: a caller who went away does not stop a check that runs, which still takes its place.
        work.add_done_callback(lambda _work: self._free.release())
        return await asyncio.wrap_future(work)

    def _is_right(self, hashed: str | None, password: bytes) -> bool:
        try:
            return self._hasher.verify(hashed or self._nobody, password) and hashed is not None
        except Argon2Error:
            return False

    def close(self) -> None:
        """Drop what waits."""
        self._pool.shutdown(wait=False, cancel_futures=True)
