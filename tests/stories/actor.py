"""An actor: one device of one person, played by the Python client on a real server."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from protocol.client import Backoff, Client, ClientClosed, Incomings, MemoryStore, Refused
from protocol.errors import Code
from protocol.messages import Message, Ping, Pong

WAIT_S_MAX = 30.0
TRY_AGAIN_S = 0.05  # a client in a play does not keep its audience waiting


class FencedClient(Client):
    """A Client that can ask: is there anything else for me? PONG comes behind all that was delivered before it."""

    pong: asyncio.Future[int] | None = None
    news: asyncio.Event | None = None

    def receive(self, message: Message) -> str:
        """Everything but WELCOME."""
        if isinstance(message, Pong) and message.known and self.pong is not None and not self.pong.done():
            self.pong.set_result(message.ref)
        why = super().receive(message)
        if self.news is not None:
            self.news.set()
        return why

    async def everything_else(self) -> list[Incomings]:
        """What was delivered up to the newest seq of the queue and nobody has taken yet."""
        self.pong = asyncio.get_running_loop().create_future()
        self.news = asyncio.Event()
        line = self._link.line
        assert line is not None
        line.connection.send(Ping(self._inbox.place.processed, 0))
        line.schedule()
        head = await self.pong
        while self._inbox.place.received < head:
            self.news.clear()
            await self.news.wait()
        return [message for _, message in self._inbox._queue]


@dataclass
class Actor:
    """A device on the stage. What it keeps (its position, its cids, what has no answer) outlives its connections."""

    user: str
    device: str
    password: str
    ports: list[int]  # of the servers that it may go to; the first one is taken
    store: MemoryStore = field(default_factory=MemoryStore)
    client: FencedClient | None = None

    async def come(self) -> None:
        """Log in, and go on where the last session ended."""
        assert self.client is None, "it is here already"
        self.client = FencedClient(
            "127.0.0.1", self.ports[0], self.user, self.device, password=self.password, store=self.store,
            auto_ack=False, backoff=Backoff(lambda low, high: min(high, TRY_AGAIN_S)),
        )  # fmt: skip
        await self.client.__aenter__()
        async with asyncio.timeout(WAIT_S_MAX):
            await self.client.wait_connected()

    async def leave(self) -> None:
        """Say BYE and go."""
        assert self.client is not None, "it is not here"
        client, self.client = self.client, None
        await client.close()

    async def next(self) -> Incomings:
        """The next message; it is processed."""
        assert self.client is not None, "it is not here"
        async with asyncio.timeout(WAIT_S_MAX):
            message = await anext(self.client)
        self.client.ack(message)
        return message

    async def nothing_else(self) -> None:
        """Proves that nothing more was delivered."""
        assert self.client is not None
        async with asyncio.timeout(WAIT_S_MAX):
            await self.client.wait_connected()
            assert await self.client.everything_else() == []

    async def replaced(self) -> None:
        """Until this client is told that another one took its place."""
        assert self.client is not None
        async with asyncio.timeout(WAIT_S_MAX):
            with pytest.raises(ClientClosed) as closed:
                await anext(self.client)
        assert closed.value.code == Code.REPLACED


async def answer(request: asyncio.Future[bytes]) -> bytes | Code:
    """The id that the server gave a message, or why it refused it."""
    async with asyncio.timeout(WAIT_S_MAX):
        try:
            return await request
        except Refused as refused:
            return Code(refused.code)
