"""Who is connected: counts connections in all and by address, and knows each one so that a stop can end it.

A stranger is a connection that has not yet said who it is: no whole HELLO, no whole HTTP request. Strangers cost nothing to
make, so they are bounded more tightly than all, and the one that has been silent for longest is cut first.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterable
from typing import Final, Protocol

# A stranger is cut at the earliest so long after its arrival: of a crowd that comes in one turn of the loop (after the
# death of another node, say) nobody has been read yet.
SAY_HELLO_S_MIN: Final = 0.25


class Guest(Protocol):
    """A connection, whatever it speaks."""

    def abort(self, reason: str) -> None:
        """End it now."""


class Stay:
    """One connection's place in the census, from arrival to end()."""

    __slots__ = ("_address", "_census", "guest")

    def __init__(self, census: Census, address: str) -> None:
        self._census: Census | None = census
        self._address = address
        self.guest: Guest | None = None  # who it is now: an HTTP connection may become a WebSocket

    def greeted(self) -> None:
        """It said who it is. May be called twice."""
        if self._census is not None:
            self._census.no_stranger(self, self._address)

    def end(self) -> None:
        """The connection is gone. May be called twice."""
        census, self._census, self.guest = self._census, None, None
        if census is not None:
            census.forget(self, self._address)


class Census:
    """Connections of all listeners of a process. Over a bound of connections a newcomer is turned away at once, before any
    byte; over a bound of strangers the oldest stranger goes."""

    def __init__(
        self,
        connections_max: int,
        connections_per_address_max: int,
        strangers_max: int,
        strangers_per_address_max: int,
    ) -> None:
        self.take_over(connections_max, connections_per_address_max, strangers_max, strangers_per_address_max)
        self.arrived = 0
        self.turned_away = 0
        self.strangers_cut = 0
        self._strangers: dict[Stay, None] = {}  # the oldest first
        self._strangers_of: dict[str, dict[Stay, None]] = {}
        self._is_cut_due = False
        self._stays: set[Stay] = set()
        self._by_address: Counter[str] = Counter()
        self._is_empty = asyncio.Event()
        self._is_empty.set()

    def take_over(
        self, connections_max: int, connections_per_address_max: int, strangers_max: int, strangers_per_address_max: int
    ) -> None:
        """These bounds, for whoever comes from now on."""
        self.connections_max = connections_max
        self.connections_per_address_max = connections_per_address_max
        self.strangers_max = strangers_max
        self.strangers_per_address_max = strangers_per_address_max

    def admit(self, address: str) -> Stay | None:
        """A place for a connection from this address (without the port); None when there is none."""
        full = len(self._stays) >= self.connections_max
        if full or self._by_address[address] >= self.connections_per_address_max:
            self.turned_away += 1
            return None
        self.arrived += 1
        stay = Stay(self, address)
        self._stays.add(stay)
        self._by_address[address] += 1
        self._is_empty.clear()
        self._strangers[stay] = None
        of_address = self._strangers_of.setdefault(address, {})
        of_address[stay] = None
        if len(self._strangers) > self.strangers_max or len(of_address) > self.strangers_per_address_max:
            self._cut_soon()
        return stay

    def no_stranger(self, stay: Stay, address: str) -> None:
        """Called by Stay.greeted()."""
        if stay in self._strangers:
            del self._strangers[stay], self._strangers_of[address][stay]
            if not self._strangers_of[address]:
                del self._strangers_of[address]

    def _cut_soon(self) -> None:
        if not self._is_cut_due:
            self._is_cut_due = True
            asyncio.get_running_loop().call_later(SAY_HELLO_S_MIN, self._cut)

    def _cut(self) -> None:
        """Every address back to its bound, then all together. A cut stay is lost in the loop's next turn, and is none of
        ours from now on."""
        self._is_cut_due = False
        over = len(self._strangers) - self.strangers_max
        cut = [
            stay
            for stays in self._strangers_of.values()
            for stay in itertools.islice(stays, max(0, len(stays) - self.strangers_per_address_max))
        ]
        chosen = set(cut)
        rest = (stay for stay in self._strangers if stay not in chosen)
        cut += itertools.islice(rest, max(0, over - len(cut)))
        for stay in cut:
            stay.greeted()
            self.strangers_cut += 1
            if stay.guest is not None:
                stay.guest.abort("too many connections that said nothing")

    def forget(self, stay: Stay, address: str) -> None:
        """Called by Stay.end()."""
        self.no_stranger(stay, address)
        self._stays.discard(stay)
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]
        if not self._stays:
            self._is_empty.set()

    async def wait_empty(self) -> None:
        """Until nobody is connected."""
        await self._is_empty.wait()

    @property
    def guests(self) -> Iterable[Guest]:
        """Everybody who is here now."""
        return [stay.guest for stay in self._stays if stay.guest is not None]

    def __len__(self) -> int:
        return len(self._stays)

    def statistics(self) -> dict[str, int]:
        """For metrics."""
        return {
            "open": len(self),
            "strangers": len(self._strangers),
            "arrived": self.arrived,
            "turned_away": self.turned_away,
            "strangers_cut": self.strangers_cut,
        }
