"""A client without manners: raw bytes on a socket, WebSocket frames of any shape."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = {
    "Host": "localhost",
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Protocol": "chatd.1",
}


class Answer(NamedTuple):
    """A response as it came."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def fields(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(self.body)
        return loaded


class Raw:
    """One socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def pause_reading(self) -> None:
        """Read nothing more, as somebody whose screen is locked."""
        self.writer.transport.pause_reading()  # type: ignore[attr-defined]

    def resume_reading(self) -> None:
        """The screen is unlocked."""
        self.writer.transport.resume_reading()  # type: ignore[attr-defined]

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def send_for_ever(self, first: bytes, then: bytes, between: Callable[[], None] = lambda: None) -> None:
        """Until the server cuts it: raises ConnectionError."""
        await self.send(first)
        while True:
            await self.send(then)
            between()

    async def answer(self, *, has_body: bool = True) -> Answer:
        """The next response; 1xx ones are responses too."""
        head = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)).decode()
        first, *lines = head.rstrip().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        length = int(headers.get("content-length", 0)) if has_body else 0
        return Answer(int(first.split()[1]), headers, await self.reader.readexactly(length))

    async def ask(self, data: bytes) -> Answer:
        await self.send(data)
        return await self.answer()

    async def rest(self) -> bytes:
        """All until the end; a reset is an end."""
        try:
            return await asyncio.wait_for(self.reader.read(), 10)
        except ConnectionError:
            return b""

    async def frame(self) -> tuple[int, bytes]:
        """The server's next frame: opcode and payload."""
        first, length = await asyncio.wait_for(self.reader.readexactly(2), 10)
        if length == 126:
            (length,) = struct.unpack(">H", await self.reader.readexactly(2))
        elif length == 127:
            (length,) = struct.unpack(">Q", await self.reader.readexactly(8))
        return first & 0x0F, await self.reader.readexactly(length)

    async def close_code(self) -> int:
        """The code of the close frame, which is the next frame that is neither PONG nor data."""
        while True:
            opcode, payload = await self.frame()
            if opcode == 8:
                return int.from_bytes(payload[:2], "big")


@asynccontextmanager
async def connect(port: int) -> AsyncIterator[Raw]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Raw(reader, writer)
    finally:
        writer.transport.abort()


@asynccontextmanager
async def connect_ws(port: int) -> AsyncIterator[Raw]:
    async with connect(port) as raw:
        assert (await raw.ask(upgrade())).status == 101
        yield raw


def upgrade(version: str = "1.1", method: str = "GET", path: str = "/ws", **changes: str | None) -> bytes:
    """The head of an upgrade with some headers changed (`Sec_WebSocket_Key=…`) or left out (None)."""
    headers = {**UPGRADE, **{name.replace("_", "-"): value for name, value in changes.items()}}
    return head(f"{method} {path} HTTP/{version}", *(f"{k}: {v}" for k, v in headers.items() if v is not None))


def head(first: str, *lines: str) -> bytes:
    return "".join(f"{line}\r\n" for line in (first, *lines, "")).encode()


def get(path: str, *lines: str, method: str = "GET") -> bytes:
    return head(f"{method} {path} HTTP/1.1", "Host: localhost", *lines)


def post(path: str, body: bytes, *lines: str) -> bytes:
    return get(path, f"Content-Length: {len(body)}", *lines, method="POST") + body


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True) -> bytes:
    """A client's frame; the mask is zero, which leaves the payload as it is."""
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    bit = 0x80 if masked else 0
    size = len(payload)
    if size < 126:
        start = bytes((first, bit | size))
    elif size < 65536:
        start = struct.pack(">BBH", first, bit | 126, size)
    else:
        start = struct.pack(">BBQ", first, bit | 127, size)
    return start + (bytes(4) if masked else b"") + payload
