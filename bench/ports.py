"""Ports for throw-away servers that end and start again on the same one.

A port that the system hands out (bind to port 0) is of the range from which outgoing connections take theirs, too: while its server is
down between a kill and a start, any connection on the machine may take it, even the client that calls that very port again and again.
So these are taken from below that range.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Final

_LOWEST: Final = 12_000
_OUTGOING_OF_LINUX: Final = 32_768  # where the range of outgoing connections begins, unless the machine says otherwise
_TRIES_MAX: Final = 5_000
_OUTGOING: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")


def _range() -> range:
    try:
        first = int(_OUTGOING.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        first = _OUTGOING_OF_LINUX
    return range(_LOWEST, first if first > _LOWEST + 1_000 else _OUTGOING_OF_LINUX)


def _walk() -> Iterator[int]:
    """One after the other from a place by chance: a process never gets one twice, two processes seldom walk side by side."""
    ports = _range()
    start = random.SystemRandom().randrange(len(ports))
    return cycle([*ports[start:], *ports[:start]])


_ports: Final = _walk()


def free_port() -> int:
    """A TCP port of loopback that nobody uses now and that no outgoing connection will take. Raises OSError when there is none."""
    for port in islice(_ports, _TRIES_MAX):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"{_TRIES_MAX} ports of 127.0.0.1 in a row are in use")
