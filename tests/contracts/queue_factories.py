"""Makers of the queue adapters under contract: one entry a technology, all run the sentences of test_queues.py.

A maker is an async context manager that yields Queues; when it leaves, all it made is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import NamedTuple
from uuid import uuid4

import pytest

from bench.rabbit_server import RabbitServer
from brokerd.links.amqp import RabbitInbound, RabbitNodeInbox, RabbitNodes, RabbitShards, Topology
from brokerd.links.memory import MemoryNodes, MemoryQueue
from brokerd.ports import Inbound, NodeInbox, Nodes, Shards
from tests.rabbit_links import READY_S_MAX, linked_rabbit

SHARDS = 2


class Queues(NamedTuple):
    """What one set of daemons sees of the queues. The makers stand for further daemons that come and go."""

    inbound: Inbound
    shards: Shards  # of the first brokerd
    nodes: Nodes
    inbox_maker: Callable[[], AbstractAsyncContextManager[NodeInbox]]  # of one node; leaving it = the node is gone
    rival_maker: Callable[[], AbstractAsyncContextManager[Shards]]  # of a brokerd that dies on leaving


class _LeavingInbox:
    """A node's side of MemoryNodes that shuts what it opened."""

    def __init__(self, nodes: MemoryNodes) -> None:
        self._nodes = nodes
        self.opened: list[str] = []

    async def open(self, node: str, take: Callable[[bytes], None], on_gap: Callable[[], None]) -> None:
        await self._nodes.open(node, take, on_gap)
        self.opened.append(node)


@asynccontextmanager
async def memory_queues(request: pytest.FixtureRequest) -> AsyncIterator[Queues]:
    """One process alone."""
    queue, nodes = MemoryQueue(), MemoryNodes()

    @asynccontextmanager
    async def inbox() -> AsyncIterator[NodeInbox]:
        leaving = _LeavingInbox(nodes)
        yield leaving
        for node in leaving.opened:
            nodes.shut(node)

    @asynccontextmanager
    async def rival() -> AsyncIterator[Shards]:
        shards = queue.rival()
        yield shards
        shards.close()

    yield Queues(queue, queue, nodes, inbox, rival)


@asynccontextmanager
async def rabbit_queues(request: pytest.FixtureRequest) -> AsyncIterator[Queues]:
    """A real RabbitMQ, with queues of this test alone."""
    server: RabbitServer = request.getfixturevalue("rabbit_server")
    topology = Topology(f"test-{uuid4().hex}")

    @asynccontextmanager
    async def inbox() -> AsyncIterator[NodeInbox]:
        async with linked_rabbit(server.url, "a node") as link:
            yield RabbitNodeInbox(link, topology)

    async with linked_rabbit(server.url, "out") as publishing, linked_rabbit(server.url, "in") as consuming:
        inbound = RabbitInbound(publishing, SHARDS, topology)
        nodes = RabbitNodes(publishing, topology)

        @asynccontextmanager
        async def rival() -> AsyncIterator[Shards]:
            async with linked_rabbit(server.url, "a rival") as link:
                yield RabbitShards(link, inbound, topology)

        async with asyncio.timeout(READY_S_MAX):
            await publishing.wait_ready()
        yield Queues(inbound, RabbitShards(consuming, inbound, topology), nodes, inbox, rival)


FACTORIES: dict[str, Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[Queues]]] = {
    "memory": memory_queues,
    "rabbitmq": rabbit_queues,
}
