"""The swarm: many senders and receivers in one process, as cheap as Python can make them, so that the server is what is
measured. It knows the wire (protocol/SPEC.md) and nothing else, and checks every delivery: lost, twice, out of order.
"""

from __future__ import annotations

import asyncio
import struct
from typing import Final, Protocol, cast

import msgpack

from protocol.codec import encode
from protocol.connection import OUR_PREFACE
from protocol.messages import Hello
from protocol.wire import CREDIT_MAX, HEAD, HEAD_BYTES, Scheme, Type

_COUNTER: Final = struct.Struct(">Q")
_ACK: Final = HEAD.pack  # body 0 bytes
_SEND, _ACCEPTED, _DELIVER, _ERROR = int(Type.SEND), int(Type.ACCEPTED), int(Type.DELIVER), int(Type.ERROR)
_WELCOME, _ACKED, _DRAINED, _PING = int(Type.WELCOME), int(Type.ACK), int(Type.DRAINED), int(Type.PING)
NEVER: Final = 1 << 62  # a sender's limit when it has none


class Out(Protocol):
    """What a peer needs of a transport."""

    def write(self, data: bytes) -> None:
        """Send."""

    def close(self) -> None:
        """The end."""


class Peer(asyncio.Protocol):
    """One device: logs in, then hands every whole frame to `frame`. `ready` is done at WELCOME, `drained` when what
    waited for it has come."""

    def __init__(self, user: str, token: str, device: str = "bench") -> None:
        loop = asyncio.get_running_loop()
        self.user = user
        self.ready: asyncio.Future[None] = loop.create_future()
        self.drained: asyncio.Future[None] = loop.create_future()
        self.errors: list[str] = []
        self.transport: Out
        self._hello = encode(
            Hello(0, 0, 0, (), user, device, int(Scheme.TOKEN), token, b"", CREDIT_MAX, {"client": "bench"})
        )
        self._kept = b""
        self.is_closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.begin_on(cast(asyncio.Transport, transport), preface=True)  # uvloop's is not a subclass

    def begin_on(self, transport: Out, *, preface: bool) -> None:
        """Log in on a connection that stands."""
        self.transport = transport
        self.transport.write(OUR_PREFACE + self._hello if preface else self._hello)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ready.done():
            self.ready.set_exception(ConnectionError(f"{self.user}: {self.errors or exc or 'closed before WELCOME'}"))
        elif not self.is_closing:
            self.errors.append(f"connection lost: {exc}")

    def data_received(self, data: bytes) -> None:
        if self._kept:
            data = self._kept + data
        at, end, unpack = 0, len(data), HEAD.unpack_from
        while end - at >= HEAD_BYTES:
            length, type_, _, _, ref = unpack(data, at)
            stop = at + HEAD_BYTES + length
            if stop > end:
                break
            self.frame(type_, ref, data, at + HEAD_BYTES, stop)
            at = stop
        self._kept = data[at:] if at < end else b""
        self.turn()

    def frame(self, type_: int, ref: int, data: bytes, at: int, stop: int) -> None:
        """One frame; its body is data[at:stop]."""
        if type_ == _WELCOME:
            self.ready.set_result(None)
        elif type_ == _DRAINED:
            if not self.drained.done():
                self.drained.set_result(None)
        elif type_ == _ERROR:
            self.errors.append(str(msgpack.unpackb(data[at:stop])))

    def turn(self) -> None:
        """All frames of one read were handed over."""

    def ping(self) -> None:
        """Say that we live: who is silent for two keepalive intervals is closed."""
        self.transport.write(_ACK(0, _PING, 0, 0, 0))

    def close(self) -> None:
        """The end."""
        self.is_closing = True
        self.transport.close()


class Sender(Peer):
    """Keeps `window` messages unaccepted until told to stop, or until `left` are sent."""

    def __init__(
        self, user: str, token: str, to: str, payload_bytes: int, window: int, cid: int, left: int = NEVER
    ) -> None:
        super().__init__(user, token)
        self._left = left
        self._window = window
        self._pad = bytes(payload_bytes - _COUNTER.size)
        to_bytes, payload_head = msgpack.packb(to), msgpack.packb(bytes(payload_bytes))[:-payload_bytes]
        self._before = b"\x92" + to_bytes + payload_head  # an array of two: to, payload
        self._body_bytes = len(self._before) + payload_bytes
        self._cid = cid
        self._free = 0
        self.is_sending = False
        self.sent = 0
        self.accepted = 0

    def begin(self) -> None:
        """Fill the window."""
        self.is_sending = True
        self._free = self._window
        self.turn()

    def frame(self, type_: int, ref: int, data: bytes, at: int, stop: int) -> None:
        if type_ == _ACCEPTED:
            count = len(msgpack.unpackb(data[at:stop])[0])
            self.accepted += count
            self._free += count
        else:
            super().frame(type_, ref, data, at, stop)

    def turn(self) -> None:
        if self._free and self.is_sending:
            count = min(self._free, self._left)
            self._left -= count
            self._free = 0
            if count:
                self.send(count)

    def send_at(self, meant_s: float) -> None:
        """One message that should have left at `meant_s`; who notes times overrides it."""
        self.send(1)

    def send(self, count: int) -> None:
        """`count` messages in one write."""
        chunks: list[bytes] = []
        pack_head, pack_counter = HEAD.pack, _COUNTER.pack
        before, pad, size, sent, cid = self._before, self._pad, self._body_bytes, self.sent, self._cid
        for _ in range(count):
            chunks += (pack_head(size, _SEND, 0, 0, cid), before, pack_counter(sent), pad)
            sent += 1
            cid += 1
        self.sent, self._cid = sent, cid
        self.transport.write(b"".join(chunks))


class Receiver(Peer):
    """Acknowledges once a read, and checks what it gets: every counter once, in order."""

    def __init__(self, user: str, token: str, payload_bytes: int, device: str = "bench") -> None:
        super().__init__(user, token, device)
        self._payload_bytes = payload_bytes
        self._next = 0
        self._seq = 0
        self._acked = 0
        self.delivered = 0
        self.duplicates = 0
        self.misordered = 0
        self.reads = 0

    def frame(self, type_: int, ref: int, data: bytes, at: int, stop: int) -> None:
        if type_ != _DELIVER:
            return super().frame(type_, ref, data, at, stop)
        (counter,) = _COUNTER.unpack_from(data, stop - self._payload_bytes)
        if ref == self._seq + 1 or self._seq == 0:
            self._seq = ref
        else:
            self.misordered += 1
        if counter == self._next:
            self._next = counter + 1
        elif counter < self._next:
            self.duplicates += 1
            return None
        else:
            self.misordered += 1
            self._next = counter + 1
        self.delivered += 1
        return None

    def turn(self) -> None:
        if self._seq > self._acked:
            self.reads += 1
            self._acked = self._seq
            self.transport.write(_ACK(0, _ACKED, 0, 0, self._seq))
