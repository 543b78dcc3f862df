"""A client that costs little: thousands of them fit into a process. It has no manners of its own: it does what it is told."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from typing import Final, cast

from protocol.codec import decode, encode
from protocol.connection import OUR_PREFACE
from protocol.messages import Error, Hello, Message, Ping, Welcome
from protocol.wire import CREDIT_MAX, FEATURES, HEAD, HEAD_BYTES, VERSION_MINOR, Scheme, Type

_UPGRADE: Final = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: chatd.1\r\n\r\n"
)
BUFFER_BYTES: Final = 32 * 1024
_PING: Final = encode(Ping(0, 0))
_ACK: Final = int(Type.ACK)
_CLOSE_OPCODE: Final = 8


def hello(user: str, token: str, device: str, credit: int = CREDIT_MAX) -> bytes:
    """A HELLO of a device that was never here."""
    features = tuple(feature for feature in FEATURES if feature != "copies")
    return encode(Hello(0, 0, VERSION_MINOR, features, user, device, int(Scheme.TOKEN), token, b"", credit, {}))


class Peer(asyncio.Protocol):
    """One device on TCP or on a WebSocket. `answer` is done at WELCOME, or with the code that refused it (0: cut).

    Subclasses take frames: `frame(type, ref, body)`, then `turn()` once a read."""

    def __init__(self, user: str, token: str, device: str = "d", *, ws: bool = False, credit: int = CREDIT_MAX) -> None:
        self.user, self.device = user, device
        self.answer: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()  # None: WELCOME
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.codes: Counter[int] = Counter()  # of all ERRORs
        self.last_error: Error | None = None
        self.transport: asyncio.Transport
        self.is_writable = True
        self.said_s = 0.0  # when HELLO (or the upgrade) left
        self._ws = ws
        self._is_upgraded = False
        self._hello = hello(user, token, device, credit)
        self._kept = b""
        self._kept_ws = b""

    # --- what it does

    def write(self, data: bytes) -> None:
        """Whole frames."""
        self.transport.write(_masked(data) if self._ws else data)

    def ping(self) -> None:
        """A sign of life."""
        self.write(_PING)

    def ack(self, seq: int) -> None:
        """All up to seq."""
        self.write(HEAD.pack(0, _ACK, 0, 0, seq))

    def close(self) -> None:
        """The end."""
        self.transport.abort()

    # --- what comes

    def frame(self, type_: int, ref: int, body: bytes) -> None:
        """One frame behind WELCOME that is no ERROR."""

    def turn(self) -> None:
        """A read is over."""

    def take(self, message: Message) -> None:
        """WELCOME or an ERROR."""
        if isinstance(message, Welcome) and not self.answer.done():
            self.answer.set_result(None)
        elif isinstance(message, Error):
            self.codes[int(message.code)] += 1
            self.last_error = message
            if not self.answer.done():
                self.answer.set_result(int(message.code))

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.said_s = time.monotonic()
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)  # else megabytes are said and not yet sent
        if self._ws:
            self.transport.write(_UPGRADE)
        else:
            self.transport.write(OUR_PREFACE + self._hello)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answer.done():
            self.answer.set_result(0)
        if not self.ended.done():
            self.ended.set_result(None)

    def pause_writing(self) -> None:
        self.is_writable = False

    def resume_writing(self) -> None:
        self.is_writable = True
        self.turn()

    def data_received(self, data: bytes) -> None:
        if self._ws:
            data = self._unwrap(data)
        data = self._kept + data if self._kept else data
        at, end, unpack = 0, len(data), HEAD.unpack_from
        while end - at >= HEAD_BYTES:
            length, type_, flags, _, ref = unpack(data, at)
            stop = at + HEAD_BYTES + length
            if stop > end:
                break
            if type_ in (Type.WELCOME, Type.ERROR):
                self.take(decode(type_, flags, ref, data[at + HEAD_BYTES : stop]))
            else:
                self.frame(type_, ref, data[at + HEAD_BYTES : stop])
            at = stop
        self._kept = data[at:] if at < end else b""
        self.turn()

    def _unwrap(self, data: bytes) -> bytes:
        """The payload of the WebSocket frames that are whole."""
        data, out = self._kept_ws + data, b""
        if not self._is_upgraded:
            head, found, data = data.partition(b"\r\n\r\n")
            if not found:
                self._kept_ws = head
                return b""
            self._is_upgraded = True
            self.write(self._hello)
        at = 0
        while len(data) - at >= 2:
            size, start = data[at + 1] & 0x7F, at + 2
            if size >= 126:
                width = 2 if size == 126 else 8
                if len(data) < start + width:
                    break
                size, start = int.from_bytes(data[start : start + width], "big"), start + width
            if len(data) < start + size:
                break
            if data[at] & 0x0F < _CLOSE_OPCODE:
                out += data[start : start + size]
            at = start + size
        self._kept_ws = data[at:]
        return out


def _masked(data: bytes) -> bytes:
    """One binary WebSocket message; a mask of zeros leaves the payload as it is."""
    size = len(data)
    if size < 126:
        head = bytes((0x82, 0x80 | size))
    elif size < 1 << 16:
        head = bytes((0x82, 0xFE)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x82, 0xFF)) + size.to_bytes(8, "big")
    return head + b"\0\0\0\0" + data


async def connect(peer: Peer, port: int, source: str = "127.0.0.1") -> int | None:
    """Connect from this address and log in; None at WELCOME, else the code (0: cut or refused)."""
    loop = asyncio.get_running_loop()
    try:
        await loop.create_connection(lambda: peer, "127.0.0.1", port, local_addr=(source, 0))
    except OSError:
        return 0
    return await peer.answer


def source_of(number: int, each: int = 10, net: int = 1) -> str:
    """Loopback has 16 million addresses: so many connections for each, because a server bounds by address how many may be
    there and (limits.strangers_per_address_max, 20 in the short forms) how many may be on their way in."""
    place = number // each
    return f"127.{net}.{place // 250}.{place % 250 + 1}"
