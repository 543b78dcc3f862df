"""A daemon's side of RabbitMQ for the fault tests, with a poster and a consumer that keep what they saw."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple, TypeVar
from uuid import uuid4

import aiormq

from brokerd.links.amqp import RabbitInbound, RabbitLink, RabbitNodeInbox, RabbitNodes, RabbitShards, Topology
from brokerd.ports import Delivery
from tests.rabbit_links import linked_rabbit

WAIT_S_MAX = 60.0
POLL_S = 0.02
SHARDS = 2

T = TypeVar("T")


class Daemon(NamedTuple):
    """What one daemon has of RabbitMQ."""

    publishing: RabbitLink
    consuming: RabbitLink
    topology: Topology
    inbound: RabbitInbound
    shards: RabbitShards
    nodes: RabbitNodes
    inbox: RabbitNodeInbox


@asynccontextmanager
async def rabbit_daemon(url: str, *, consuming_url: str | None = None, heartbeat_s: int = 10) -> AsyncIterator[Daemon]:
    """Both links ready; queue names of its own."""
    topology = Topology(f"test-{uuid4().hex}")
    async with (
        linked_rabbit(url, "out", heartbeat_s=heartbeat_s) as publishing,
        linked_rabbit(consuming_url or url, "in", heartbeat_s=heartbeat_s) as consuming,
    ):
        inbound = RabbitInbound(publishing, SHARDS, topology)
        shards, nodes = RabbitShards(consuming, inbound, topology), RabbitNodes(publishing, topology)
        await within(publishing.wait_ready())
        yield Daemon(publishing, consuming, topology, inbound, shards, nodes, RabbitNodeInbox(consuming, topology))


async def within(work: Awaitable[T]) -> T:
    """Await with a bound."""
    async with asyncio.timeout(WAIT_S_MAX):
        return await work


async def until(holds: Callable[[], bool]) -> None:
    """Wait for a state that nobody signals."""
    async with asyncio.timeout(WAIT_S_MAX):
        while not holds():  # noqa: ASYNC110 - seen from outside, there is no event
            await asyncio.sleep(POLL_S)


def first_of_each(bodies: list[bytes]) -> list[bytes]:
    """Without repeats, as brokerd's dedupe leaves them."""
    return list(dict.fromkeys(bodies))


class Poster:
    """Posts numbered batches to shard 0 as long as it may; keeps those it began and what became of them."""

    def __init__(self, inbound: RabbitInbound) -> None:
        self.begun: list[bytes] = []
        self.posts: list[asyncio.Future[None]] = []
        self._inbound = inbound

    def post_some(self, count: int) -> None:
        while count and self._inbound.is_ready:
            body = b"%06d" % len(self.begun)
            self.posts.append(self._inbound.post(0, body))
            self.begun.append(body)
            count -= 1

    async def post_until(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            self.post_some(32)
            await asyncio.sleep(0)


class Taken:
    """A consumer that finishes what it gets, or holds it."""

    def __init__(self, finishes: bool = True) -> None:
        self.bodies: list[bytes] = []
        self.held: list[Delivery] = []
        self.finishes = finishes

    def __call__(self, delivery: Delivery) -> None:
        self.bodies.append(delivery.body)
        if self.finishes:
            delivery.done()
        else:
            self.held.append(delivery)


async def delete_queue(url: str, queue: str) -> None:
    """As an operator would."""
    async with aiormq.connect(url) as connection:
        await (await connection.channel()).queue_delete(queue)
