"""Daemons on servers that a test kills: a chatd and a brokerd with queues of their own beside others on one RabbitMQ."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import uuid4

from bench.processes import Brokerd, Chatd, Daemon
from bench.rabbit_server import RabbitServer
from bench.servers import RedisServer
from protocol.client import Client
from protocol.messages import Deliver
from tests.faults.talk import HOST, quick

END = b"that was all"
LEASE_S = 3
HEARD_S_MAX = 60.0


class OwnTown:
    """Nodes and brokers on a Redis and a RabbitMQ, apart from all others there by a prefix of its own."""

    def __init__(
        self, folder: Path, name: str, redis: RedisServer, rabbit: RabbitServer, *, nodes: int = 1, brokers: int = 1
    ) -> None:
        urls = {"REDIS_URL": redis.url, "RABBIT_URL": rabbit.url, "PREFIX": name + uuid4().hex}
        chat = {f"CHATD_{key}": value for key, value in urls.items()}
        chat |= {"CHATD_MODE": "cluster", "CHATD_LEASE_S": str(LEASE_S)}
        broke = {f"BROKERD_{key}": value for key, value in urls.items()}
        self.nodes = [Chatd(folder / name, f"chatd{number}", chat) for number in range(1, nodes + 1)]
        self.brokers = [Brokerd(folder / name, f"brokerd{number}", broke) for number in range(1, brokers + 1)]

    @property
    def daemons(self) -> list[Daemon]:
        """All."""
        return [*self.nodes, *self.brokers]

    async def start(self) -> None:
        """All, until every node serves."""
        await asyncio.gather(*(daemon.restart() for daemon in self.daemons))
        for node in self.nodes:
            await asyncio.to_thread(node.wait_serving)

    def stop(self) -> None:
        """All."""
        for daemon in self.daemons:
            daemon.stop()


class Speaker:
    """ann, who writes to bob without a pause while bob is away. What she was told is ACCEPTED stands in `accepted`."""

    def __init__(self, node: Chatd, *, at_once: int = 20) -> None:
        self.accepted: list[bytes] = []
        self._node, self._at_once = node, at_once
        self._words: dict[str, str] = {}
        self._count = 0
        self._is_talking = True

    async def introduce(self) -> None:
        """Both become known to the server, and bob goes away."""
        for name in ("ann", "bob"):
            self._words[name] = await asyncio.to_thread(self._node.add_user, name)
        async with self.client("bob") as bob:
            await bob.wait_drained()

    def client(self, name: str) -> Client:
        """One of the two, with a device that has forgotten everything."""
        return Client(HOST, self._node.tcp_port, name, "phone", password=self._words[name], backoff=quick())

    def end(self) -> None:
        """Say no more than what is begun, and `END`."""
        self._is_talking = False

    async def talk(self) -> None:
        """Until `end`, across whatever happens to the server."""
        async with self.client("ann") as ann:
            while self._is_talking:
                await self._say(ann, [b"line %d" % (self._count + i) for i in range(self._at_once)])
                self._count += self._at_once
            await self._say(ann, [END])

    async def _say(self, ann: Client, texts: list[bytes]) -> None:
        await asyncio.gather(*(ann.post("bob", text) for text in texts))
        self.accepted += texts

    async def heard(self) -> list[bytes]:
        """What bob finds when he comes back, up to `END`."""
        heard: list[bytes] = []
        async with asyncio.timeout(HEARD_S_MAX), self.client("bob") as bob:
            async for message in bob:
                if isinstance(message, Deliver):
                    heard.append(message.payload)
                    if message.payload == END:
                        break
        return heard
