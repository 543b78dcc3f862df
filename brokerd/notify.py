"""What a service manager tells a daemon, and what it is told (sd_notify, sd_watchdog_enabled, sd_listen_fds).

The protocol, whole: NOTIFY_SOCKET names a unix datagram socket ("@" begins an abstract name), to which one sends lines
`KEY=value`. WATCHDOG_USEC is the time after which a silent daemon (WATCHDOG_PID, when set) is killed with SIGABRT.
LISTEN_FDS sockets are inherited from descriptor 3 on, when LISTEN_PID is us; LISTEN_FDNAMES names them, ":" between.
Without these variables every method does nothing, so a daemon that a person starts needs no other path.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Final

FIRST_FD: Final = 3
STATUS_CHARS_MAX: Final = 200
_USEC: Final = 1_000_000


class ServiceManager:
    """systemd, or nobody."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        self._address = environ.get("NOTIFY_SOCKET", "").replace("@", "\0", 1)
        self.watchdog_s = _watchdog_s(environ)
        self._status = ""

    def ready(self) -> None:
        """It serves. Also ends a reload."""
        self._tell("READY=1")

    def reloading(self) -> None:
        """It takes a new configuration over; ready() must follow."""
        self._tell("RELOADING=1")

    def stopping(self, s_max: float) -> None:
        """It drains, which may take so long; the unit's own limit is extended when it is shorter."""
        self._tell("STOPPING=1", f"EXTEND_TIMEOUT_USEC={int(s_max * _USEC)}")

    def status(self, text: str) -> None:
        """One line for `systemctl status`; sent when it changed."""
        text = " ".join(text.split())[:STATUS_CHARS_MAX]
        if text != self._status:
            self._status = text
            self._tell(f"STATUS={text}")

    def alive(self) -> None:
        """Feeds the watchdog."""
        self._tell("WATCHDOG=1")

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
            try:
                sock.sendto("\n".join(lines).encode(), self._address)
            except (
                OSError
            ):  # the manager restarts, or its queue is full: the next one arrives, and a log would not help
                self._status = ""


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    """How long we may be silent; None: nobody watches."""
    usec = environ.get("WATCHDOG_USEC", "")
    if not usec.isdecimal() or environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(usec) / _USEC or None


def inherited_sockets(environ: Mapping[str, str] | None = None) -> dict[str, list[socket.socket]]:
    """The listening sockets that were handed over, by their names, in their order."""
    environ = os.environ if environ is None else environ
    count = environ.get("LISTEN_FDS", "")
    if not count.isdecimal() or environ.get("LISTEN_PID") != str(os.getpid()):
        return {}
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    found: dict[str, list[socket.socket]] = {}
    for index in range(int(count)):
        os.set_inheritable(FIRST_FD + index, False)
        sock = socket.socket(fileno=FIRST_FD + index)
        sock.setblocking(False)
        found.setdefault(names[index] if index < len(names) else "", []).append(sock)
    return found


def is_journal(descriptor: int, environ: Mapping[str, str] | None = None) -> bool:
    """Whether what is written there goes to the journal: JOURNAL_STREAM names the device and inode of its pipe."""
    environ = os.environ if environ is None else environ
    status = os.fstat(descriptor)
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
