"""The roster: who is on this node. User → device → line; nothing else keeps lines."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from chatd.auth.own import is_own

if TYPE_CHECKING:
    from chatd.line import Line


class Roster:
    """Lines that logged in (or are about to: they are here before the register knows them)."""

    def __init__(self) -> None:
        self._lines: dict[str, dict[str, Line]] = {}
        self._count = 0
        self._own = 0

    def __len__(self) -> int:
        return self._count

    @property
    def people(self) -> int:
        """Sessions, but for those of chatd's own users."""
        return self._count - self._own

    def __iter__(self) -> Iterator[Line]:
        return iter([line for devices in self._lines.values() for line in devices.values()])

    def of(self, user: str) -> Collection[Line]:
        """The lines of a user, none if it is not here."""
        devices = self._lines.get(user)
        return devices.values() if devices is not None else ()

    def find(self, user: str, device: str) -> Line | None:
        """The line of one device."""
        return self._lines.get(user, {}).get(device)

    def users(self) -> Collection[str]:
        """Everybody who is here, but for chatd's own users."""
        return self._lines.keys() if not self._own else [user for user in self._lines if not is_own(user)]

    def add(self, line: Line) -> Line | None:
        """Put a line in; give the one of the same device that it replaced."""
        devices = self._lines.setdefault(line.session.user, {})
        old = devices.get(line.session.device)
        devices[line.session.device] = line
        self._count += old is None
        self._own += old is None and is_own(line.session.user)
        return old

    def remove(self, line: Line) -> bool:
        """Take a line out if it is still the one of its device."""
        devices = self._lines.get(line.session.user)
        if devices is None or devices.get(line.session.device) is not line:
            return False
        del devices[line.session.device]
        if not devices:
            del self._lines[line.session.user]
        self._count -= 1
        self._own -= is_own(line.session.user)
        return True
