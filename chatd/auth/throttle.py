"""Slows guessing down without giving anybody the means to lock somebody else out.

Failures are paid from token buckets of the address and of the user. An address with none left waits, whatever user it
tries. A user with none left (many addresses guess) still gets in from every address that did not itself fail for that
user lately. All tables are bounded; the longest untouched entry goes first.
"""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from typing import Final, NamedTuple

ENTRIES_MAX: Final = 10_000
IPV6_NET_BITS: Final = 64  # one subscriber has at least so much: a single address of it means nothing


class Rate(NamedTuple):
    """`burst` failures at once, then one in `refill_s` seconds."""

    burst: float
    refill_s: float


ADDRESS_RATE: Final = Rate(20, 6)
USER_RATE: Final = Rate(10, 30)
PAIR_RATE: Final = Rate(1, 60)


class Buckets:
    """Token buckets by name. A name that is not there has a full one."""

    def __init__(self, rate: Rate, entries_max: int = ENTRIES_MAX) -> None:
        self._rate = rate
        self._entries_max = entries_max
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, name: str, now_s: float) -> float:
        """0 when there is a token, else how long until there is."""
        return max(0.0, (1 - self._count(name, now_s)) * self._rate.refill_s)

    def take(self, name: str, now_s: float) -> None:
        """A failure: take one, also when there is none left (a debt, of at most the burst)."""
        self._left[name] = (max(-self._rate.burst, self._count(name, now_s) - 1), now_s)
        self._left.move_to_end(name)
        if len(self._left) > self._entries_max:
            self._left.popitem(last=False)

    def _count(self, name: str, now_s: float) -> float:
        left, then_s = self._left.get(name, (self._rate.burst, now_s))
        return min(self._rate.burst, left + max(0.0, now_s - then_s) / self._rate.refill_s)

    def __len__(self) -> int:
        return len(self._left)


class Throttle:
    """The three tables. Ask `wait_ms` before an attempt, and tell `fail` after one that failed.

    Attempts that are under way when the last token goes are not stopped; they leave a debt, so the rate holds.
    """

    def __init__(self, entries_max: int = ENTRIES_MAX) -> None:
        self._addresses = Buckets(ADDRESS_RATE, entries_max)
        self._users = Buckets(USER_RATE, entries_max)
        self._pairs = Buckets(PAIR_RATE, entries_max)

    def wait_ms(self, user: str, address: str, now_s: float) -> int:
        """0: may try now. Else in how many milliseconds."""
        wait_s = self._addresses.wait_s(address, now_s)
        if wait_s == 0:
            wait_s = min(self._users.wait_s(user, now_s), self._pairs.wait_s(f"{user} {address}", now_s))
        return math.ceil(wait_s * 1000)

    def fail(self, user: str, address: str, now_s: float) -> None:
        """The password was wrong, or there is no such user."""
        self._addresses.take(address, now_s)
        self._users.take(user, now_s)
        self._pairs.take(f"{user} {address}", now_s)

    def __len__(self) -> int:
        return len(self._addresses) + len(self._users) + len(self._pairs)


def address_of(peer: str) -> str:
    """What of a peer ("127.0.0.1:5000", "[::1]:5000", "::1") stands for one party: an IPv4 address, an IPv6 /64."""
    host = peer.rpartition(":")[0] if peer.count(":") == 1 or "]" in peer else peer
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, IPV6_NET_BITS), strict=False))
    return str(address)
