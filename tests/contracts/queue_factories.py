"""Makers of the queue adapters under contract: one entry a technology, all run the sentences of test_queues.py.

A maker is an async context manager that yields Queues; when it leaves, all it made is gone.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from random import Random
from typing import NamedTuple
from uuid import uuid4

import pytest

from bench.rabbit_server import RabbitServer
from brokerd.links.amqp import RabbitInbound, RabbitNodeInbox, RabbitNodes, RabbitShards, Topology
from brokerd.links.memory import MemoryNodes, MemoryQueue
from brokerd.ports import Inbound, NodeInbox, Nodes, Shards
from tests.rabbit_links import READY_S_MAX, linked_rabbit
from tests.sim.odds import Odds
from tests.sim.process import Process
from tests.sim.rabbit import InboundLink, InboxLink, NodesLink, Rabbit, ShardsLink

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


@asynccontextmanager
async def simulated_queues(request: pytest.FixtureRequest) -> AsyncIterator[Queues]:
    """The RabbitMQ of the simulated world, each daemon a process of its own: here nothing on its links is slow or lost.

    It has the whole contract of test_queues.py; what it lacks of RabbitMQ (bounds, connections) is in tests/sim/rabbit.py.
    """
    loop, numbers = asyncio.get_running_loop(), itertools.count(1)
    rabbit = Rabbit(SHARDS, loop)

    def process() -> Process:
        return Process(f"p{next(numbers)}", loop, Random(1), Odds, delay_s_max=0.0)

    @asynccontextmanager
    async def inbox() -> AsyncIterator[NodeInbox]:
        node = process()
        yield InboxLink(node, rabbit)
        node.die()

    @asynccontextmanager
    async def rival() -> AsyncIterator[Shards]:
        brokerd = process()
        yield ShardsLink(brokerd, rabbit)
        brokerd.die()

    first = process()
    yield Queues(InboundLink(first, rabbit), ShardsLink(first, rabbit), NodesLink(first, rabbit), inbox, rival)


FACTORIES: dict[str, Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[Queues]]] = {
    "memory": memory_queues,
    "rabbitmq": rabbit_queues,
    "simulated": simulated_queues,
}
