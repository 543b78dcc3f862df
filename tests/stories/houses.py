"""Where a play is performed: one process alone, or a cluster whose actors go to its nodes in turn."""

from __future__ import annotations

import asyncio
import itertools

from bench.cluster import Cluster
from bench.processes import Chatd, Daemon

_numbers = itertools.count(1)  # of the people of all plays, which share a cluster with each other and with other tests


class OneHouse:
    """An embedded chatd."""

    def __init__(self, server: Chatd) -> None:
        self._server = server

    async def add_user(self, name: str) -> tuple[str, str]:
        """See House."""
        return name, await asyncio.to_thread(self._server.add_user, name)

    def ports(self, actor: int) -> list[int]:
        """See House."""
        return [self._server.tcp_port]

    async def kill_and_start(self) -> None:
        """See House."""
        await _kill_and_start(self._server)

    async def kept(self, user: str) -> None:
        """See House."""
        await _kept(self._server, user)


class ClusterHouse:
    """Two chatd and two brokerd: what one actor says to another goes over both."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def add_user(self, name: str) -> tuple[str, str]:
        """See House."""
        name = f"{name}-of-play-{next(_numbers)}"
        return name, await asyncio.to_thread(self._cluster.nodes[0].add_user, name)

    def ports(self, actor: int) -> list[int]:
        """See House."""
        ports = [node.tcp_port for node in self._cluster.nodes]
        return ports[actor % len(ports) :] + ports[: actor % len(ports)]

    async def kill_and_start(self) -> None:
        """See House. Every chatd and every brokerd dies, as when a power supply does; Redis and RabbitMQ stay."""
        await _kill_and_start(*self._cluster.nodes, *self._cluster.brokers)

    async def kept(self, user: str) -> None:
        """See House."""
        await _kept(self._cluster.nodes[0], user)


async def _kept(node: Chatd, user: str) -> None:
    while "nothing waits" in await asyncio.to_thread(node.ctl, "queue", user):
        continue


async def _kill_and_start(*daemons: Daemon) -> None:
    """They are started by this very thread: a daemon ends with the thread that started it."""
    for daemon in daemons:
        daemon.kill9()
    for daemon in daemons:
        daemon.begin()
    await asyncio.gather(*(asyncio.to_thread(daemon.wait_ready) for daemon in daemons))
