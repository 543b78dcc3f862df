"""A client without manners: any bytes to a real chatd, and whatever comes back as messages."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from protocol.codec import decode, encode
from protocol.connection import OUR_PREFACE
from protocol.frames import FrameReader, Oversize
from protocol.messages import Error, Hello, Message, Ping, Pong, Welcome
from protocol.wire import BODY_BYTES_HARD_MAX, FEATURES, MAGIC, PREFACE_BYTES, VERSION_MINOR, Scheme

HOST: Final = "127.0.0.1"
ANSWER_S_MAX: Final = 10.0
CREDIT: Final = 64
M = TypeVar("M")


class RawClient:
    """One TCP connection. Everything that waits raises TimeoutError after ANSWER_S_MAX."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._frames = FrameReader(BODY_BYTES_HARD_MAX, skippable=False)
        self._came: deque[Message] = deque()

    async def send(self, *parts: bytes | Message) -> None:
        """Write bytes as they are, messages encoded, all at once."""
        self._writer.write(b"".join(part if isinstance(part, bytes) else encode(part) for part in parts))
        await self._writer.drain()

    def end(self) -> None:
        """FIN: nothing more comes from here."""
        self._writer.write_eof()

    async def message(self) -> Message | None:
        """The next message; None at the end of the stream."""
        async with asyncio.timeout(ANSWER_S_MAX):
            while not self._came:
                data = await self._read()
                if not data:
                    return None
                for frame in self._frames.feed(data):
                    assert not isinstance(frame, Oversize)
                    self._came.append(decode(frame.type, frame.flags, frame.ref, frame.body))
        return self._came.popleft()

    async def next(self, kind: type[M]) -> M:
        """The next message of this kind; others are dropped."""
        while (message := await self.message()) is not None:
            if isinstance(message, kind):
                return message
        raise AssertionError(f"the connection ended before a {kind.__name__} came")

    async def rest(self) -> list[Message]:
        """All messages until the server closes."""
        messages = []
        while (message := await self.message()) is not None:
            messages.append(message)
        return messages

    async def bytes_to_the_end(self) -> bytes:
        """What comes until the server closes, undecoded."""
        data = b""
        async with asyncio.timeout(ANSWER_S_MAX):
            while more := await self._read():
                data += more
        return data

    async def _read(self) -> bytes:
        try:
            return await self._reader.read(1 << 16)
        except ConnectionError:
            return b""  # a reset is an end

    async def hello(
        self, user: str, secret: str, *, device: str = "raw", scheme: int = Scheme.TOKEN, credit: int = CREDIT
    ) -> Welcome | Error:
        """Preface and HELLO; the answer."""
        await self.send(OUR_PREFACE, hello(user, secret, device=device, scheme=scheme, credit=credit))
        answer = await self.message()
        assert isinstance(answer, Welcome | Error), answer
        return answer

    async def still_works(self) -> list[Message]:
        """Whether the session lives: PING, and what came before its PONG."""
        await self.send(Ping(0, 0))
        before: list[Message] = []
        while not isinstance(message := await self.message(), Pong):
            assert message is not None, f"the connection is closed; before that came {before}"
            before.append(message)
        return before


def hello(
    user: str,
    secret: str,
    *,
    device: str = "raw",
    scheme: int = Scheme.TOKEN,
    credit: int = CREDIT,
    features: Sequence[str] = FEATURES,
) -> Hello:
    """A HELLO of a device that was never here."""
    return Hello(0, 0, VERSION_MINOR, tuple(features), user, device, scheme, secret, b"", credit, {})


@asynccontextmanager
async def connected(port: int, source: str = HOST) -> AsyncIterator[RawClient]:
    """A connection that has said nothing yet, from this address."""
    reader, writer = await asyncio.open_connection(HOST, port, local_addr=(source, 0))
    try:
        yield RawClient(reader, writer)
    finally:
        writer.transport.abort()


@asynccontextmanager
async def session(port: int, user: str, token: str, device: str = "raw") -> AsyncIterator[RawClient]:
    """A connection that is logged in."""
    async with connected(port) as client:
        answer = await client.hello(user, token, device=device)
        assert isinstance(answer, Welcome), answer
        yield client


def is_preface(data: bytes) -> bool:
    """Whether these bytes are a server's preface and nothing else."""
    return len(data) == PREFACE_BYTES and data.startswith(MAGIC)
