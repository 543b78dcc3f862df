"""Who is connected: counts connections in all and by address, and knows each one so that a stop can end it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from typing import Protocol


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

    def end(self) -> None:
        """The connection is gone. May be called twice."""
        census, self._census, self.guest = self._census, None, None
        if census is not None:
            census.forget(self, self._address)


class Census:
    """Connections of all listeners of a process. Over a bound a newcomer is turned away at once, before any byte."""

    def __init__(self, connections_max: int, connections_per_address_max: int) -> None:
        self.connections_max = connections_max
        self.connections_per_address_max = connections_per_address_max
        self.arrived = 0
        self.turned_away = 0
        self._stays: set[Stay] = set()
        self._by_address: Counter[str] = Counter()
        self._is_empty = asyncio.Event()
        self._is_empty.set()

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
        return stay

    def forget(self, stay: Stay, address: str) -> None:
        """Called by Stay.end()."""
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
        return {"open": len(self), "arrived": self.arrived, "turned_away": self.turned_away}
