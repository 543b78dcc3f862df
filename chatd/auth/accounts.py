"""The accounts of files: tokens by the keys file, passwords by the passwd file, and who is closed by the revoked file."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from argon2 import PasswordHasher

from chatd.auth import tokens
from chatd.auth.files import FileBroken, WatchedFile
from chatd.auth.keys import NO_KEYS, parse_keys
from chatd.auth.passwords import PasswordChecker, parse_passwords, password_bytes
from chatd.auth.throttle import Throttle, address_of
from chatd.config import ChatConfig
from chatd.ports import Identity, LoginRefused
from protocol.errors import Code
from protocol.names import NAME_ALLOWED, is_name
from protocol.wire import SECRET_BYTES_MAX, Scheme

PROVED_S: Final = 60.0  # a password that was right is right again for so long, without argon2: reconnects are cheap
PROVED_MAX: Final = 10_000


def parse_revoked(text: str) -> frozenset[str]:
    """The users of a revoked file: one a line, # begins a comment. Raises FileBroken."""
    names = [line.partition("#")[0].strip() for line in text.splitlines()]
    for number, name in enumerate(names, 1):
        if name and not is_name(name):
            raise FileBroken(f"line {number}: a user name is {NAME_ALLOWED}")
    return frozenset(filter(None, names))


@dataclass(frozen=True, slots=True)
class Clocks:
    """Unix time for tokens, a monotonic one for all else."""

    now_s: Callable[[], float] = time.time
    monotonic_s: Callable[[], float] = time.monotonic


class ProvedPasswords:
    """Which passwords were right lately. Holds no password: only MACs under a key that dies with the process."""

    def __init__(self, count_max: int = PROVED_MAX) -> None:
        self._key = secrets.token_bytes(32)
        self._count_max = count_max
        self._proved: OrderedDict[str, tuple[bytes, float]] = OrderedDict()

    def has(self, user: str, password: bytes, now_s: float) -> bool:
        """Whether this password was put in less than PROVED_S ago."""
        mac, ends_s = self._proved.get(user, (b"", now_s))
        return now_s < ends_s and hmac.compare_digest(mac, self._mac(user, password))

    def put(self, user: str, password: bytes, now_s: float) -> None:
        """It was right at `now_s`."""
        self._proved[user] = (self._mac(user, password), now_s + PROVED_S)
        self._proved.move_to_end(user)
        if len(self._proved) > self._count_max:
            self._proved.popitem(last=False)

    def clear(self) -> None:
        """Passwords may have changed."""
        self._proved.clear()

    def _mac(self, user: str, password: bytes) -> bytes:
        return hmac.digest(self._key, user.encode() + b"\0" + password, hashlib.sha256)


class FileAccounts:
    """chatd.ports.Accounts on three files, each of which may be absent and is read again when it changed.

    Raises FileBroken from the constructor when a file is there and can not be used.
    """

    def __init__(
        self,
        keys_file: Path,
        passwd_file: Path,
        revoked_file: Path,
        expected: tokens.Expected,
        hasher: PasswordHasher | None = None,
        clocks: Clocks | None = None,
    ) -> None:
        self._clocks = clocks or Clocks()
        clock_s = self._clocks.monotonic_s
        self._expected = expected
        self._keys = WatchedFile(keys_file, lambda text: parse_keys(text, keys_file.parent), NO_KEYS, clock_s)
        self._passwd = WatchedFile[dict[str, str]](passwd_file, parse_passwords, {}, clock_s)
        self._revoked = WatchedFile[frozenset[str]](revoked_file, parse_revoked, frozenset(), clock_s)
        self._checker = PasswordChecker(hasher)
        self._throttle = Throttle()
        self._proved = ProvedPasswords()
        self._seen_version = self._passwd.version
        self._seen = frozenset(self._passwd.value())
        self._deleted: frozenset[str] = frozenset()

    async def prove(self, scheme: int, user: str, secret: str, peer: str) -> Identity:
        """See chatd.ports.Accounts."""
        if scheme == Scheme.TOKEN:
            identity = self._prove_token(user, secret)
        elif scheme == Scheme.PASSWORD:
            identity = await self._prove_password(user, secret, address_of(peer))
        else:
            raise LoginRefused(Code.BAD_CREDENTIALS, f"scheme {scheme} is not known")
        if not self._is_open_now(identity.user):  # only now: who proved nothing learns nothing
            raise LoginRefused(Code.REVOKED, "the account is closed")
        return identity

    def is_open(self, user: str, proof: str = "") -> bool:
        """See chatd.ports.Accounts. Costs three dict lookups; the files are looked at once a second."""
        if proof and self._users().get(user) != proof:
            return False
        self._users()
        return user not in self._revoked.value() and user not in self._deleted

    def look_again(self) -> None:
        """Read what changed now instead of within a second."""
        for file in (self._keys, self._passwd, self._revoked):
            file.value_now()

    def password_users(self) -> Mapping[str, str]:
        """The users of the password file (name → hash), for making them known to the store at start."""
        return self._users()

    def close(self) -> None:
        """End the threads."""
        self._checker.close()

    def _is_open_now(self, user: str) -> bool:
        if self.is_open(user):
            return True
        self._passwd.value_now()  # who was added again a moment ago may log in: REVOKED would be final
        self._revoked.value_now()
        return self.is_open(user)

    def _prove_token(self, user: str, secret: str) -> Identity:
        keys, now_s = self._keys.value(), self._clocks.now_s()
        try:
            return tokens.verify(secret, user, keys, self._expected, now_s)
        except LoginRefused:
            now = self._keys.value_now()  # a key of a moment ago counts: a refusal would be final for the client
            if now is keys:
                raise
        return tokens.verify(secret, user, now, self._expected, now_s)

    async def _prove_password(self, user: str, secret: str, address: str) -> Identity:
        try:
            password = password_bytes(secret) if len(secret) <= SECRET_BYTES_MAX else b""
        except ValueError:  # includes lone surrogates
            password = b""
        if not password or not is_name(user):
            raise LoginRefused(Code.BAD_CREDENTIALS, "no password or no user name")
        self._passwd.value_now()  # who was added a moment ago may log in: BAD_CREDENTIALS would be final
        users = self._users()
        now_s = self._clocks.monotonic_s()
        if self._proved.has(user, password, now_s):
            return Identity(user, None, users[user])
        if wait_ms := self._throttle.wait_ms(user, address, now_s):
            raise LoginRefused(Code.RATE_LIMITED, "too many wrong passwords", wait_ms)
        is_right = await self._checker.is_right(users, user, password)
        now_s = self._clocks.monotonic_s()
        if not is_right:
            self._throttle.fail(user, address, now_s)
            raise LoginRefused(Code.BAD_CREDENTIALS, "wrong password or no such user")
        if self._users() is users:  # the file did not change meanwhile
            self._proved.put(user, password, now_s)
        return Identity(user, None, users[user])

    def _users(self) -> Mapping[str, str]:
        users = self._passwd.value()
        if self._passwd.version != self._seen_version:
            self._seen_version = self._passwd.version
            self._proved.clear()
            self._deleted = (self._deleted | self._seen) - users.keys()
            self._seen = frozenset(users)
        return users


def open_accounts(config: ChatConfig) -> FileAccounts:
    """The accounts that the config names. Raises FileBroken."""
    expected = tokens.Expected(config.auth.audience, config.auth.issuer)
    return FileAccounts(config.keys_file, config.passwd_file, config.revoked_file, expected)
