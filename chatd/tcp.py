"""One accepted TCP or TLS socket as a session's Wire, and what every transport owes a session: news of a slow reader,
a cut for one that never reads, and a close that takes bounded time.

Never here: what the bytes mean. Reads go into one buffer for all connections (see `shared_buffer`), writes are one
`write(2)` each, so the session joins what it has to say.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass

from chatd.census import Stay
from chatd.ports import Door, Endpoint
from protocol.errors import Code

READ_BYTES_MAX = 64 * 1024
READ_BYTES_MIN = 4 * 1024  # the first read after a pause; doubled at each read that fills it


@dataclass(frozen=True, slots=True)
class TransportLimits:
    """What one connection may hold and how long it may take. At a bound the connection is aborted, and lost() says why."""

    write_high_bytes: int = 128 * 1024  # over it the endpoint hears pause_writing
    write_low_bytes: int = 32 * 1024
    pending_bytes_max: int = 4 * 1024 * 1024  # written in spite of pause_writing
    stall_s_max: float = 60.0  # between pause_writing and resume_writing
    close_s_max: float = 3.0  # from close() to the end
    discard_bytes_max: int = 1024 * 1024  # read and dropped while closing
    user_timeout_s: float = 60.0  # TCP_USER_TIMEOUT: sent bytes that nobody acknowledges


def shared_buffer() -> memoryview:
    """The buffer that all connections of one event loop read into.

    Safe because a loop fills and empties it without a step between. A plain Protocol under TLS allocates 256 KiB a
    read in uvloop, which made an echo cost three times as much (92 µs against 34).
    """
    return memoryview(bytearray(READ_BYTES_MAX))


def peer_of(transport: asyncio.BaseTransport) -> str:
    """The peer's address for logs: `1.2.3.4:5`, `[::1]:5`, or `unknown` when it has already gone."""
    name = transport.get_extra_info("peername")
    if not isinstance(name, tuple):
        return "unknown"
    host, port = name[0], name[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def tune_listening_socket(sock: socket.socket, limits: TransportLimits) -> None:
    """Set what accepted sockets inherit (Linux), once instead of at every accept."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(limits.user_timeout_s * 1000))


class Flow:
    """Tells an endpoint how its peer reads. From a loop turn of its own, because a transport calls pause_writing in the
    middle of write(), which is in the middle of Endpoint.receive()."""

    __slots__ = ("_cut", "_endpoint", "_is_told", "_loop", "_stall", "_stall_s_max", "is_slow")

    def __init__(self, stall_s_max: float, cut: Callable[[str], None]) -> None:
        self.is_slow = False
        self._is_told = False
        self._endpoint: Endpoint | None = None
        self._stall_s_max = stall_s_max
        self._cut = cut
        self._loop = asyncio.get_running_loop()
        self._stall: asyncio.TimerHandle | None = None

    def serve(self, endpoint: Endpoint) -> None:
        """Whom to tell."""
        self._endpoint = endpoint

    def slow(self) -> None:
        """The transport is over its high mark."""
        self.is_slow = True
        why = f"slow reader: still over the mark after {self._stall_s_max:g} s"
        self._stall = self._loop.call_later(self._stall_s_max, self._cut, why)
        self._loop.call_soon(self._tell)

    def fast(self) -> None:
        """The transport is below its low mark again."""
        self.is_slow = False
        self._forget_stall()
        self._loop.call_soon(self._tell)

    def end(self) -> None:
        """Tell nobody anything more."""
        self._endpoint = None
        self._forget_stall()

    def _forget_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _tell(self) -> None:
        if self._endpoint is None or self._is_told is self.is_slow:
            return
        self._is_told = self.is_slow
        if self.is_slow:
            self._endpoint.pause_writing()
        else:
            self._endpoint.resume_writing()


class TcpWire(asyncio.BufferedProtocol):
    """A Wire on a TCP or TLS transport that is already connected."""

    __slots__ = ("_deadline", "_discarded", "_endpoint", "_is_over", "_limits", "_read_bytes_max", "_reason", "_stay", "_transport", "_view", "flow")  # fmt: skip

    def __init__(
        self,
        transport: asyncio.Transport,
        door: Door,
        view: memoryview,
        limits: TransportLimits,
        stay: Stay,
    ) -> None:
        """`view` is the loop's shared buffer; `stay` is ended when the connection is gone."""
        self._transport = transport
        self._view = view
        self._read_bytes_max = READ_BYTES_MAX
        self._limits = limits
        self._stay = stay
        self._is_over = False  # closing, cut or lost: nothing is given to the endpoint but lost()
        self._reason = ""
        self._discarded = 0
        self._deadline: asyncio.TimerHandle | None = None
        self.flow = Flow(limits.stall_s_max, self.abort)
        transport.set_write_buffer_limits(high=limits.write_high_bytes, low=limits.write_low_bytes)
        self._endpoint = door.enter(self, peer_of(transport), preface=True)
        if self._endpoint is None:
            self.abort("no more connections are taken")
        else:
            self.flow.serve(self._endpoint)

    # --- Wire

    def write(self, chunks: list[bytes]) -> None:
        """See ports.Wire. Ignored after close()."""
        if self._is_over:
            return
        self._transport.write(chunks[0] if len(chunks) == 1 else b"".join(chunks))
        if self.flow.is_slow and self.pending_bytes() > self._limits.pending_bytes_max:
            self.abort(f"slow reader: over {self._limits.pending_bytes_max} bytes wait for it")

    def pending_bytes(self) -> int:
        """See ports.Wire."""
        return self._transport.get_write_buffer_size()

    def pause_reading(self) -> None:
        """See ports.Wire. Who is paused for saying too much is read in small pieces behind it: a whole read brings hundreds
        of messages, which all the others would wait for."""
        self._read_bytes_max = READ_BYTES_MIN
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """See ports.Wire."""
        self._transport.resume_reading()

    def greeted(self) -> None:
        """See ports.Wire."""
        self._stay.greeted()

    def close(self, code: Code | None, detail: str) -> None:
        """See ports.Wire. Half-closes, then reads and drops until the peer closes too: a socket closed over unread bytes
        sends a reset, and the peer may never see our last frame."""
        if self._is_over:
            return
        self._is_over = True
        self._reason = f"closed: {code.name if code else 'done'} {detail}".rstrip()
        self._bound_the_end()
        self._transport.resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:  # TLS says goodbye itself
            self._transport.close()

    def abort(self, reason: str) -> None:
        """End it now; what was written and has not left is dropped."""
        self._is_over = True
        self._reason = reason
        self._transport.abort()

    # --- asyncio.BufferedProtocol

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view if self._read_bytes_max == READ_BYTES_MAX else self._view[: self._read_bytes_max]

    def buffer_updated(self, nbytes: int) -> None:
        if self._is_over:
            self._discard(nbytes)
        elif self._endpoint is not None:
            if nbytes == self._read_bytes_max < READ_BYTES_MAX:
                self._read_bytes_max *= 2
            self._endpoint.receive(bytes(self._view[:nbytes]))

    def eof_received(self) -> bool:
        """A peer that half-closes has nothing more to say and wants no answer: what is queued leaves, then we close."""
        self._is_over = True
        self._reason = self._reason or "the peer closed"
        self._bound_the_end()
        return False

    def pause_writing(self) -> None:
        self.flow.slow()

    def resume_writing(self) -> None:
        self.flow.fast()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_over = True
        self.flow.end()
        if self._deadline is not None:
            self._deadline.cancel()
        self._stay.end()
        if self._endpoint is not None:
            self._endpoint.lost(self._reason or (str(exc) if exc else "the peer closed"))

    def _bound_the_end(self) -> None:
        if self._deadline is None:
            self._deadline = asyncio.get_running_loop().call_later(self._limits.close_s_max, self._transport.abort)

    def _discard(self, nbytes: int) -> None:
        self._discarded += nbytes
        if self._discarded > self._limits.discard_bytes_max:
            self._transport.abort()
