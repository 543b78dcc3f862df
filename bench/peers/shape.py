"""The shape of the load, whatever the protocol: a sender keeps a window, a receiver acknowledges once a read and checks.

As bench.swarm, which is the same for our own wire and a little cheaper.
"""

from __future__ import annotations

import asyncio
import struct
import time
from typing import Final, cast

from bench.book import Book
from bench.crowd import MakesPairs
from bench.plan import Scenario
from bench.swarm import Out

COUNTER: Final = struct.Struct(">Q")


class Party(asyncio.Protocol):
    """One connection: bytes are cut by `take`, which gives how many it used up."""

    def __init__(self, user: str) -> None:
        self.user = user
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.errors: list[str] = []
        self.transport: Out
        self.is_closing = False
        self.book: Book | None = None
        self.meant_s: list[float] = []
        self._kept = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.greet()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ready.done():
            self.ready.set_exception(ConnectionError(f"{self.user}: {self.errors or exc or 'closed at once'}"))
        elif not self.is_closing:
            self.errors.append(f"connection lost: {exc}")

    def data_received(self, data: bytes) -> None:
        if self._kept:
            data = self._kept + data
        self._kept = data[self.take(data) :]
        self.turn()

    def greet(self) -> None:
        """Log in."""
        raise NotImplementedError

    def take(self, data: bytes) -> int:
        """Look at whole packets; how many bytes they were."""
        raise NotImplementedError

    def turn(self) -> None:
        """All packets of a read were taken."""

    def welcome(self) -> None:
        """The login is through."""
        if not self.ready.done():
            self.ready.set_result(None)

    def pace(self, book: Book, meant_s: list[float]) -> None:
        """As in bench.latency: sender and receiver of a pair share the list."""
        self.book, self.meant_s = book, meant_s

    def close(self) -> None:
        """The end."""
        self.is_closing = True
        self.transport.close()


class Sending(Party):
    """Keeps `window` messages unacknowledged. A subclass has `pack(number)`, and calls `took(number)` for each that the
    server acknowledged."""

    behind: bytes = b""  # what follows the messages of one write

    def __init__(self, user: str, to: str, payload_bytes: int, window: int) -> None:
        super().__init__(user)
        self.to = to
        self.payload_bytes = payload_bytes
        self.pad = bytes(payload_bytes - COUNTER.size)
        self.is_sending = False
        self.sent = 0
        self.accepted = 0
        self._window = window
        self._free = 0

    def pack(self, number: int) -> bytes:
        """The packet of one message; its payload is COUNTER(number) + pad."""
        raise NotImplementedError

    def begin(self) -> None:
        """Fill the window."""
        self.is_sending = True
        self._free = self._window
        self.turn()

    def turn(self) -> None:
        if self._free and self.is_sending:
            free, self._free = self._free, 0
            self.send(free)

    def send(self, count: int) -> None:
        """`count` messages in one write."""
        first, self.sent = self.sent, self.sent + count
        packed = [self.pack(number) for number in range(first, self.sent)]
        self.transport.write(b"".join((*packed, self.behind)))

    def send_at(self, meant_s: float) -> None:
        """One message that should have left at `meant_s`."""
        self.meant_s.append(meant_s)
        self.send(1)

    def took(self, number: int) -> None:
        """The server acknowledged this one."""
        self.accepted += 1
        self._free += 1
        book = self.book
        if book is not None and self.meant_s[number] >= book.from_s:
            book.accepted.record_value(max(1, int((time.monotonic() - self.meant_s[number]) * 1e6)))


class Receiving(Party):
    """Checks every counter: once, in order. A subclass calls `came` or `note`, and acknowledges in `turn`."""

    def __init__(self, user: str) -> None:
        super().__init__(user)
        self.delivered = 0
        self.duplicates = 0
        self.misordered = 0
        self.reads = 0
        self._next = 0

    def came(self, data: bytes, at: int) -> None:
        """A message whose payload begins at data[at]."""
        self.note(COUNTER.unpack_from(data, at)[0])

    def note(self, number: int) -> None:
        """A message with this counter."""
        if number < self._next:
            self.duplicates += 1
            return
        self.misordered += number > self._next
        self._next = number + 1
        self.delivered += 1
        book = self.book
        if book is not None and self.meant_s[number] >= book.from_s:
            book.delivered.record_value(max(1, int((time.monotonic() - self.meant_s[number]) * 1e6)))


def pairs_of(sends: type[Sending], receives: type[Receiving]) -> MakesPairs:
    """Pairs that speak one protocol."""

    def make(names: str, number: int, plan: Scenario, book: Book | None) -> tuple[Sending, list[Receiving]]:
        to = f"{names}r{number}"
        sender, receiver = sends(f"{names}s{number}", to, plan.payload_bytes, plan.window), receives(to)
        if book is not None:
            meant_s: list[float] = []
            sender.pace(book, meant_s)
            receiver.pace(book, meant_s)
        return sender, [receiver]

    return make
