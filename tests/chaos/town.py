"""Where a chaos run takes place: RabbitMQ, Redis, several chatd and brokerd as processes, and a door in front of each link."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from bench.processes import Brokerd, Chatd, Daemon
from bench.rabbit_server import RabbitServer
from bench.servers import RedisServer
from bench.tokens import Mint
from tests.chaos.network import Door
from tests.faults.power import Disk, cut_power

LEASE_S: Final = 3
DRAIN_S_MAX: Final = 3
DISKS_MIB: Final = {"disk-redis": 400, "disk-rabbit": 1500}
KEEPALIVE_S: Final = 8  # clients ask after half of it

Part = Daemon | RedisServer | RabbitServer


class Town:
    """`await start()`, then everything by its name: chatd1…, brokerd1…, redis, rabbitmq. `await close()` ends all.

    Doors: "clients-chatd1" (a client may also take the direct way), "chatd1-redis", "chatd1-rabbitmq" and so on: daemons
    know no other way.
    """

    def __init__(self, folder: Path, nodes: int, brokers: int, *, has_power_cuts: bool = False) -> None:
        """With power cuts Redis and RabbitMQ stand on disks that can lose what was not fsynced: that needs root."""
        self.folder = folder
        self._disks = [Disk(folder / name, mib=mib) for name, mib in DISKS_MIB.items()] if has_power_cuts else []
        places = [disk.path for disk in self._disks] or [folder, folder]
        self.redis = RedisServer(places[0] / "redis", appendfsync="always")
        self.rabbit = RabbitServer(places[1] / "rabbit")
        self.mint = Mint(folder / "chatd")
        self.doors: dict[str, Door] = {}
        self.chatds: dict[str, Chatd] = {}
        self._brokers: dict[str, Brokerd] = {}
        self._counts = (nodes, brokers)
        self._stack = ExitStack()

    @property
    def parts(self) -> dict[str, Part]:
        """Every process, by name."""
        return {**self.chatds, **self._brokers, "redis": self.redis, "rabbitmq": self.rabbit}

    @property
    def daemons(self) -> dict[str, Daemon]:
        """Ours, by name."""
        return {**self.chatds, **self._brokers}

    async def start(self) -> None:
        """Everything, in some seconds. What was begun is ended by `close`, also when this fails."""
        for disk in self._disks:
            self._stack.enter_context(disk)
        await asyncio.gather(asyncio.to_thread(self.redis.start), asyncio.to_thread(self.rabbit.start))
        for disk in self._disks:
            disk.settle()
        for number in range(1, self._counts[0] + 1):
            name = f"chatd{number}"
            env = {
                **await self._links(name, "CHATD"),
                "CHATD_MODE": "cluster",
                "CHATD_LEASE_S": str(LEASE_S),
                "CHATD_DRAIN_S_MAX": str(DRAIN_S_MAX),
                "CHATD_LIMITS_KEEPALIVE_S": str(KEEPALIVE_S),
            }
            self.chatds[name] = Chatd(self.folder / "chatd", name, env)
            await self._open(f"clients-{name}", self.chatds[name].tcp_port)
        for number in range(1, self._counts[1] + 1):
            name = f"brokerd{number}"
            self._brokers[name] = Brokerd(self.folder / "brokerd", name, await self._links(name, "BROKERD"))
        await asyncio.gather(*(daemon.restart() for daemon in self.daemons.values()))

    async def _links(self, name: str, prefix: str) -> dict[str, str]:
        redis = await self._open(f"{name}-redis", self.redis.port)
        rabbit = await self._open(f"{name}-rabbitmq", self.rabbit.port)
        return {
            f"{prefix}_REDIS_URL": f"redis://127.0.0.1:{redis.port}/0",
            f"{prefix}_RABBIT_URL": f"amqp://guest:guest@127.0.0.1:{rabbit.port}/",
        }

    async def _open(self, name: str, target_port: int) -> Door:
        self.doors[name] = door = Door(target_port)
        await door.open()
        return door

    async def close(self) -> None:
        """End everything, in a good order."""
        await asyncio.gather(
            *(asyncio.to_thread(daemon.stop) for daemon in self.daemons.values()), return_exceptions=True
        )
        for door in self.doors.values():
            door.close()
        await asyncio.to_thread(self.rabbit.stop)
        await asyncio.to_thread(self.redis.stop)
        self._stack.close()

    def cut_power(self) -> None:
        """Of Redis and RabbitMQ, at one moment; both are down afterwards. Blocks for a second."""

        def kill() -> None:
            os.kill(self.redis.pid, signal.SIGKILL)
            self.rabbit.kill9()
            self.redis.kill9()

        cut_power(self._disks, kill)
