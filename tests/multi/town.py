"""Several machines on one: three RabbitMQ nodes, Redis with two replicas and three sentinels, chatd and brokerd as processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from bench.processes import Brokerd, Chatd, Daemon
from bench.rabbit_cluster import RabbitCluster
from bench.sentinel import SentinelRedis
from bench.servers import Fsync
from bench.tokens import Mint
from tests.chaos.network import Door
from tests.chaos.town import KEEPALIVE_S, LEASE_S

LOOK_S: Final = 0.2


class MultiTown:
    """`await start()`, then `rabbit.nodes`, `redis.servers` and `redis.sentinels` can be killed and started again; `await close()`
    ends all. A crowd lives in it as in tests/chaos/town.py. A `rabbit` that is handed in runs already, and stays; then the
    town needs a `prefix` of its own."""

    def __init__(
        self, folder: Path, *, nodes: int = 2, brokers: int = 2, fsync: Fsync = "always", wait_replicas: int = 1,
        redis_options: Sequence[str] = (), rabbit: RabbitCluster | None = None, prefix: str = "chat",
    ) -> None:  # fmt: skip
        self.redis = SentinelRedis(folder / "redis", appendfsync=fsync, options=redis_options)
        self.rabbit = rabbit or RabbitCluster(folder / "rabbit")
        self._has_rabbit = rabbit is None
        self._prefix = prefix
        self.mint = Mint(folder / "chatd")
        self.doors: dict[str, Door] = {}
        self.chatds: dict[str, Chatd] = {}
        self._brokers: list[Brokerd] = []
        self._folder, self._counts, self._wait_replicas = folder, (nodes, brokers), wait_replicas

    @property
    def pids(self) -> dict[str, int]:
        """Of everything, by name."""
        ours = {daemon.log_path.stem: daemon.pid for daemon in self.daemons}
        rabbits = {f"rabbitmq{number}": node.pid for number, node in enumerate(self.rabbit.nodes, 1)}
        redis = {f"redis{number}": server.pid for number, server in enumerate(self.redis.servers, 1)}
        sentinels = {f"sentinel{number}": sentinel.pid for number, sentinel in enumerate(self.redis.sentinels, 1)}
        return {**ours, **rabbits, **redis, **sentinels}

    @property
    def daemons(self) -> list[Daemon]:
        """Ours."""
        return [*self._brokers, *self.chatds.values()]

    async def start(self) -> None:
        """Everything. What was begun is ended by `close`, also when this fails."""
        starts = [self.redis.start, *([self.rabbit.start] if self._has_rabbit else [])]
        await asyncio.gather(*map(asyncio.to_thread, starts))
        shared = {
            "REDIS_URL": self.redis.url,
            "REDIS_WAIT_REPLICAS": str(self._wait_replicas),
            "RABBIT_URL": self.rabbit.url,
            "PREFIX": self._prefix,
        }
        for number in range(1, self._counts[0] + 1):
            env = {f"CHATD_{key}": value for key, value in shared.items()} | {
                "CHATD_MODE": "cluster",
                "CHATD_LEASE_S": str(LEASE_S),
                "CHATD_LIMITS_KEEPALIVE_S": str(KEEPALIVE_S),
            }
            node = self.chatds[f"chatd{number}"] = Chatd(self._folder / "chatd", f"chatd{number}", env)
            door = self.doors[f"clients-chatd{number}"] = Door(node.tcp_port)
            await door.open()
        for number in range(1, self._counts[1] + 1):
            env = {f"BROKERD_{key}": value for key, value in shared.items()}
            self._brokers.append(Brokerd(self._folder / "brokerd", f"brokerd{number}", env))
        await asyncio.gather(*(daemon.restart() for daemon in self.daemons))
        for node in self.chatds.values():
            await asyncio.to_thread(node.wait_serving)

    async def close(self) -> None:
        """End everything, ours first."""
        await asyncio.gather(*(asyncio.to_thread(daemon.kill9) for daemon in self.daemons), return_exceptions=True)
        for door in self.doors.values():
            door.close()
        ends = [self.redis.stop, *([self.rabbit.stop] if self._has_rabbit else [])]
        await asyncio.gather(*map(asyncio.to_thread, ends))

    async def wait_whole(self, s_max: float) -> None:
        """Until nothing is missing: every queue has its members, Redis its replicas. Raises TimeoutError."""
        await asyncio.to_thread(self.redis.wait_whole, s_max)
        await _until(self.rabbit.is_whole, s_max)


async def _until(is_so: Callable[[], bool], s_max: float) -> None:
    async with asyncio.timeout(s_max):
        while not await asyncio.to_thread(is_so):  # noqa: ASYNC110 - seen from outside, there is no event
            await asyncio.sleep(LOOK_S)
