"""A front door for tests: real listeners on free ports, with a door, accounts and a back office of a few lines each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

from chatd.listener import ListenerConfig, Listeners
from chatd.ports import Identity, LoginRefused, Presence, Refusal, SendRequest, Wire
from protocol.errors import Code

TOKEN = "let-me-in"
MESSAGE_ID = bytes(range(16))


class Caller:
    """An Endpoint that writes down what it is told; `echo` makes it answer each receive with one write, and read
    no more while its peer does not."""

    def __init__(self, wire: Wire, peer: str, *, preface: bool, echo: bool) -> None:
        self.wire = wire
        self.peer = peer
        self.preface = preface
        self.echo = echo
        self.received: list[bytes] = []
        self.said: list[str] = []
        self.reason: str | None = None
        self._changed = asyncio.Event()
        self._is_inside = False

    def _enter(self, word: str) -> None:
        assert not self._is_inside, f"{word} is nested in another call"
        assert self.reason is None, f"{word} after lost"
        self._is_inside = True

    def _leave(self) -> None:
        self._is_inside = False
        self._changed.set()

    def receive(self, data: bytes) -> None:
        self._enter("receive")
        assert data
        self.received.append(data)
        if self.echo:
            self.wire.write([data])
        self._leave()

    def pause_writing(self) -> None:
        self._enter("pause_writing")
        self.said.append("pause")
        if self.echo:
            self.wire.pause_reading()
        self._leave()

    def resume_writing(self) -> None:
        self._enter("resume_writing")
        self.said.append("resume")
        if self.echo:
            self.wire.resume_reading()
        self._leave()

    def lost(self, reason: str) -> None:
        self._enter("lost")
        self.reason = reason
        self._leave()

    async def wait(self, is_so: Callable[[], bool]) -> None:
        """Until `is_so` holds; looked at after every call from the transport."""
        async with asyncio.timeout(10):
            while not is_so():
                self._changed.clear()
                await self._changed.wait()

    async def wait_bytes(self, count: int) -> bytes:
        """All that came, once it is `count` bytes."""
        await self.wait(lambda: sum(map(len, self.received)) >= count)
        return b"".join(self.received)

    async def wait_lost(self) -> str:
        """Why it ended."""
        await self.wait(lambda: self.reason is not None)
        assert self.reason is not None
        return self.reason


class Hall:
    """A Door that lets everybody in while `is_open`."""

    def __init__(self, *, echo: bool = False) -> None:
        self.is_open = True
        self.echo = echo
        self.callers: list[Caller] = []
        self._came = asyncio.Event()

    def enter(self, wire: Wire, peer: str, *, preface: bool) -> Caller | None:
        if not self.is_open:
            return None
        self.callers.append(Caller(wire, peer, preface=preface, echo=self.echo))
        self._came.set()
        return self.callers[-1]

    async def caller(self, index: int = 0) -> Caller:
        """The one who came as number `index`, once it is there."""
        async with asyncio.timeout(10):
            while len(self.callers) <= index:
                self._came.clear()
                await self._came.wait()
        return self.callers[index]


class Keys:
    """Accounts with one token, of ann."""

    async def prove(self, scheme: int, user: str, secret: str, peer: str) -> Identity:
        if secret == "slow-down":
            raise LoginRefused(Code.RATE_LIMITED, "too many", retry_after_ms=1500)
        if secret != TOKEN:
            raise LoginRefused(Code.BAD_CREDENTIALS, "the secret reason")
        return Identity("ann", None)

    def is_open(self, user: str, proof: str = "") -> bool:
        return True


class Desk:
    """A BackOffice that keeps what it is asked to send. `gate` holds sends back; `refusal` and `bug` make it fail."""

    def __init__(self) -> None:
        self.sent: list[SendRequest] = []
        self.refusal: Exception | None = None
        self.parts = {"redis": "up"}
        self.asked = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.metrics_body = b"up 1\n"

    async def send(self, request: SendRequest) -> bytes:
        self.sent.append(request)
        self.asked.set()
        await self.gate.wait()
        if self.refusal is not None:
            raise self.refusal
        return MESSAGE_ID

    async def presence(self, user: str) -> list[Presence]:
        if user == "ghost":
            raise Refusal(Code.NO_SUCH_USER, "no ghost here")
        return [Presence("phone", "n1")]

    def health(self) -> Mapping[str, str]:
        return self.parts

    def metrics(self, accept: str) -> tuple[bytes, str]:
        return self.metrics_body, "text/plain; version=0.0.4"


class House:
    """What a test holds."""

    def __init__(self, listeners: Listeners, hall: Hall, desk: Desk) -> None:
        self.listeners = listeners
        self.hall = hall
        self.desk = desk

    @property
    def http_port(self) -> int:
        return self.listeners.http_ports[0]

    @property
    def tcp_port(self) -> int:
        return self.listeners.tcp_ports[0]

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.http_port}/ws"


@asynccontextmanager
async def open_house(config: ListenerConfig | None = None, *, echo: bool = False) -> AsyncIterator[House]:
    """Listeners on free ports, ended at the end."""
    hall, desk = Hall(echo=echo), Desk()
    config = replace(config or ListenerConfig(), end_s_max=0.5)
    async with Listeners(config, hall, Keys(), desk) as listeners:
        yield House(listeners, hall, desk)
