"""The client's transports: TCP, TLS and WebSocket, all of them bytes in and bytes out of one codec."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple, Protocol, cast

from picows import WSCloseCode, WSError, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from protocol.wire import GREETING_BODY_BYTES_MAX, HEAD_BYTES, WEBSOCKET_SUBPROTOCOL

Dial = Callable[[], Awaitable[socket.socket]]

TRANSPORTS: Final = ("tcp", "tls", "ws", "wss")
CLOSE_CODE_BASE: Final = 4000  # a WebSocket close code of 4000 + n says error code n
MESSAGE_BYTES_MAX: Final = 16 * 1024 * 1024  # of one WebSocket frame: many frames of ours may be joined in one


class Address(NamedTuple):
    """Where a server is. `transport`: tcp, tls, ws or wss. `path` is for WebSockets only."""

    transport: str
    host: str
    port: int
    path: str = "/ws"
    tls: ssl.SSLContext | None = None  # for tls and wss; None = the system's authorities, host name checked
    dial: Dial | None = None  # for tcp: gives a connected socket, and takes the place of host and port

    @property
    def has_preface(self) -> bool:
        """On a WebSocket the subprotocol stands for the preface."""
        return self.transport in ("tcp", "tls")


class Receiver(Protocol):
    """Who is told what the transport brings. `lost` is the last call and always comes."""

    def receive(self, data: bytes) -> None:
        """Bytes came, cut anywhere."""

    def lost(self, detail: str, code: int | None) -> None:
        """The transport is gone. `code` is the error code of a WebSocket close frame, if it had one."""

    def pause_writing(self) -> None:
        """The server reads slowly."""

    def resume_writing(self) -> None:
        """The opposite."""


class ClientWire(Protocol):
    """An open transport. `message_bytes_max` bounds a WebSocket message; the link sets it to what WELCOME settled."""

    message_bytes_max: int

    def write(self, chunks: list[bytes]) -> None:
        """Send whole frames (one a chunk), joined into one write, or into as few binary messages as the limit allows."""

    def close(self) -> None:
        """Close after what was written has left. `lost` follows."""

    def abort(self) -> None:
        """Close now. `lost` follows."""


async def open_wire(address: Address, receiver: Receiver) -> ClientWire:
    """Connect. Raises OSError (also for TLS faults and a WebSocket upgrade that was refused)."""
    if address.has_preface:
        context = _tls(address) if address.transport == "tls" else None
        loop = asyncio.get_running_loop()
        if address.dial is not None:
            sock = await address.dial()
            _, stream = await loop.create_connection(lambda: _Stream(receiver), sock=sock)
            return stream
        _, stream = await loop.create_connection(lambda: _Stream(receiver), address.host, address.port, ssl=context)
        return stream
    return await _open_web_socket(address, receiver)


def _tls(address: Address) -> ssl.SSLContext:
    return address.tls or ssl.create_default_context()


# --- TCP and TLS -------------------------------------------------------------------------------------------------


class _Stream(asyncio.Protocol):
    message_bytes_max = 0  # a stream has none

    def __init__(self, receiver: Receiver) -> None:
        self._transport: asyncio.Transport | None = None
        self.data_received = receiver.receive  # type: ignore[method-assign]  # one call less for each read
        self.pause_writing = receiver.pause_writing  # type: ignore[method-assign]
        self.resume_writing = receiver.resume_writing  # type: ignore[method-assign]
        self._lost = receiver.lost

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one, but not by inheritance

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost(str(exc) if exc is not None else "the server closed the connection", None)

    def write(self, chunks: list[bytes]) -> None:
        assert self._transport is not None
        self._transport.write(b"".join(chunks))

    def close(self) -> None:
        assert self._transport is not None
        self._transport.close()

    def abort(self) -> None:
        assert self._transport is not None
        self._transport.abort()


# --- WebSocket ---------------------------------------------------------------------------------------------------


async def _open_web_socket(address: Address, receiver: Receiver) -> ClientWire:
    scheme = "wss" if address.transport == "wss" else "ws"
    host = f"[{address.host}]" if ":" in address.host else address.host
    try:
        transport, listener = await ws_connect(
            lambda: _WebSocket(receiver),
            f"{scheme}://{host}:{address.port}{address.path}",
            ssl_context=_tls(address) if scheme == "wss" else None,
            extra_headers={"Sec-WebSocket-Protocol": WEBSOCKET_SUBPROTOCOL},
            max_frame_size=MESSAGE_BYTES_MAX,
            max_redirects=0,
        )
    except WSError as fault:
        raise ConnectionRefusedError(f"no WebSocket: {fault}") from None
    if transport.response.headers.get("Sec-WebSocket-Protocol") != WEBSOCKET_SUBPROTOCOL:
        transport.disconnect(graceful=False)
        raise ConnectionRefusedError(f"the server does not speak {WEBSOCKET_SUBPROTOCOL}")
    assert isinstance(listener, _WebSocket)
    return listener


class _WebSocket(WSListener):
    """Frames of ours are never cut by a message, but nothing here needs that: payloads are one byte stream."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._transport: WSTransport | None = None
        self.message_bytes_max = GREETING_BODY_BYTES_MAX + HEAD_BYTES
        self._code: int | None = None
        self._detail = "the server closed the connection"

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        if kind == WSMsgType.BINARY or kind == WSMsgType.CONTINUATION:
            self._receiver.receive(frame.get_payload_as_bytes())
        elif kind == WSMsgType.CLOSE:
            self._hear_close(frame.get_payload_as_bytes())
            transport.disconnect()

    def _hear_close(self, payload: bytes) -> None:
        code = int.from_bytes(payload[:2], "big")
        if CLOSE_CODE_BASE < code < CLOSE_CODE_BASE + 1000:
            self._code = code - CLOSE_CODE_BASE
        if len(payload) > 2:
            self._detail = payload[2:].decode(errors="replace")

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._receiver.lost(self._detail, self._code)

    def pause_writing(self) -> None:
        self._receiver.pause_writing()

    def resume_writing(self) -> None:
        self._receiver.resume_writing()

    def write(self, chunks: list[bytes]) -> None:
        assert self._transport is not None
        size, first = 0, 0
        for index, chunk in enumerate(chunks):
            if size and size + len(chunk) > self.message_bytes_max:
                self._transport.send(WSMsgType.BINARY, b"".join(chunks[first:index]))
                size, first = 0, index
            size += len(chunk)
        self._transport.send(WSMsgType.BINARY, b"".join(chunks[first:]))

    def close(self) -> None:
        assert self._transport is not None
        self._transport.send_close(WSCloseCode.OK)
        self._transport.disconnect()

    def abort(self) -> None:
        assert self._transport is not None
        self._transport.disconnect(graceful=False)
