"""A TCP link that can be cut, held (both ways or one way), slowed, shaken, thinned, or left behind with what was said.

A proxy on a port of its own; one for each link.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from typing import Final, cast

HELD_BYTES_MAX: Final = 256 * 1024  # of one direction; then the source is not read

UP, DOWN = "up", "down"  # to the server, from the server


class Door:
    """Everything that connects to `port` is passed on to `target_port` of loopback."""

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.target_port = target_port
        self.held: frozenset[str] = frozenset()
        self.delay_s = 0.0
        self.jitter_s = 0.0
        self.bytes_per_s = 0.0  # 0 = as many as there are
        self._dice = random.Random(target_port)
        self.late_ends: list[asyncio.Transport] = []  # whose other half ended while its way was held
        self.pipes: set[Pipe] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Listen."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Pipe(self, UP), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """End everything."""
        if self._server is not None:
            self._server.close()
        self.cut()

    @property
    def links(self) -> int:
        """Connections now."""
        return sum(pipe.way == UP for pipe in self.pipes)

    @property
    def has_kept(self) -> bool:
        """Whether something that a client said is on its way."""
        return any(pipe.way == UP and pipe.has_kept for pipe in self.pipes)

    def cut(self, *, half: bool = False) -> int:
        """Break every connection; with `half`, the server is not told. How many."""
        count = self.links
        for pipe in tuple(self.pipes):
            if not half or pipe.way == UP:
                pipe.abort(tells=not half)
        return count

    def hold(self, *ways: str) -> int:
        """Pass nothing on in these ways, not even an end, and keep what comes. How many connections feel it."""
        self.held = frozenset(ways)
        return self.links

    def slow(self, delay_s: float) -> int:
        """Everything takes so much longer. How many connections feel it."""
        self.delay_s = delay_s
        return self.links

    def shake(self, jitter_s: float) -> int:
        """Everything takes up to so much longer, each read by itself: connections overtake each other."""
        self.jitter_s = jitter_s
        return self.links

    def thin(self, bytes_per_s: float) -> int:
        """So many bytes a second go through a connection, in either way."""
        self.bytes_per_s = bytes_per_s
        return self.links

    def strand(self) -> int:
        """The clients lose their connections, and what they had said arrives at `mend`, long after they came back by
        another way. Behind `hold(UP)`, which made them say what does not arrive. How many it met."""
        self.held = frozenset()
        count = self.links
        for pipe in tuple(self.pipes):
            if pipe.way == UP:
                pipe.strand()
        return count

    def mend(self) -> None:
        """As a good network again; halves that nobody holds the other end of are gone."""
        self.held, self.delay_s, self.jitter_s, self.bytes_per_s = frozenset(), 0.0, 0.0, 0.0
        ends, self.late_ends = self.late_ends, []
        for transport in ends:
            transport.close()
        for pipe in tuple(self.pipes):
            if pipe.is_orphan:
                pipe.say_last()
            else:
                pipe.pump()

    def due_s(self, size: int, after_s: float) -> float:
        """When bytes that came now, behind others that are due at `after_s`, go on."""
        now_s = asyncio.get_running_loop().time()
        due_s = now_s + self.delay_s + self._dice.uniform(0.0, self.jitter_s)
        if self.bytes_per_s:
            due_s = max(due_s, after_s) + size / self.bytes_per_s
        return max(due_s, after_s)


class Pipe(asyncio.Protocol):
    """One socket of a link: what comes in here goes out at `other`. `way` is where its bytes go."""

    def __init__(self, door: Door, way: str, other: Pipe | None = None) -> None:
        self.door, self.way, self.other = door, way, other
        self.transport: asyncio.Transport | None = None
        self.is_orphan = False
        self._late = b""  # said to an orphan in the end
        self._due_s = 0.0
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.door.pipes.add(self)
        if self.other is None:
            task = asyncio.get_running_loop().create_task(self._connect())
            self.door.tasks.add(task)
            task.add_done_callback(self.door.tasks.discard)

    async def _connect(self) -> None:
        try:
            _, other = await asyncio.get_running_loop().create_connection(
                lambda: Pipe(self.door, DOWN, self), "127.0.0.1", self.door.target_port
            )
        except OSError:
            self.abort()
            return
        self.other = other
        if self.transport is None or self.transport.is_closing():
            other.abort()
        else:
            self.pump()  # what came meanwhile

    def data_received(self, data: bytes) -> None:
        self._due_s = self.door.due_s(len(data), self._due_s)
        self._waiting.append((self._due_s, data))
        self._bytes += len(data)
        self.pump()
        if self._bytes > HELD_BYTES_MAX and self.transport is not None:
            self.transport.pause_reading()

    def pump(self) -> None:
        """Pass on what is due."""
        if self.way in self.door.held or self.is_orphan or self.other is None or self.other.transport is None:
            return
        now_s, was_full = asyncio.get_running_loop().time(), self._bytes > HELD_BYTES_MAX
        while self._waiting and self._waiting[0][0] <= now_s + 0.001:
            _, data = self._waiting.popleft()
            self._bytes -= len(data)
            if not self.other.transport.is_closing():
                self.other.transport.write(data)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting:
            self._timer = asyncio.get_running_loop().call_later(self._waiting[0][0] - now_s, self.pump)
        if (
            was_full
            and self._bytes <= HELD_BYTES_MAX
            and self.transport is not None
            and not self.transport.is_closing()
        ):
            self.transport.resume_reading()

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None and not self.other.transport.is_closing():
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None and not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def abort(self, *, tells: bool = True) -> None:
        """End this socket, and (if it is told) the other one."""
        if self.other is not None and not tells:
            self.other.is_orphan = True
        if self.transport is not None:
            self.transport.abort()

    @property
    def has_kept(self) -> bool:
        """Whether something waits here."""
        return bool(self._waiting)

    def strand(self) -> None:
        """End the client's socket, and leave what it said to the server's."""
        if self.other is not None:
            self.other._late = b"".join(data for _, data in self._waiting)
            self._waiting.clear()
        self.abort(tells=False)

    def say_last(self) -> None:
        """What was kept for an orphan, and its end."""
        if self.transport is not None and self._late and not self.transport.is_closing():
            self.transport.write(self._late)
            self.transport.close()
        else:
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.door.pipes.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        other = self.other
        if other is None or other.is_orphan or other.transport is None:
            return
        if self.way in self.door.held:
            self.door.late_ends.append(other.transport)
            return
        if not other.transport.is_closing():
            self._flush(other.transport)
        other.transport.close()

    def _flush(self, sink: asyncio.Transport) -> None:
        while self._waiting:
            sink.write(self._waiting.popleft()[1])
