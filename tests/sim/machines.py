"""The machines of the simulated world: the real node, broker and sweeper, each a process with links of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random
from typing import Any, Final

from brokerd.broker import Broker
from brokerd.sweeper import Sweeper
from chatd.config import ChatConfig, LimitsSection
from chatd.line import Line
from chatd.node import Links, Node
from chatd.ports import Identity
from chatd.postroom import Postroom
from chatd.switchboard import Switchboard
from tests.sim.process import Process, StoreLink
from tests.sim.rabbit import InboundLink, InboxLink, NodesLink, ShardsLink

SHARDS: Final = 2
CONFIG: Final = ChatConfig(
    shards=SHARDS, lease_s=3.0, drain_s_max=4.0, limits=LimitsSection(unaccepted_max=6, keepalive_s=10.0)
)


def _place_of(line: Line) -> int:
    return int(line.session.id, 16)


# A set of lines is walked in the order of their addresses, which no seed decides; so, by their numbers.
Line.__hash__ = _place_of  # type: ignore[method-assign,assignment]


class Quiet:
    """A log that nobody reads; what it is told of as an error is one."""

    def __init__(self, world: Any, name: str) -> None:
        self._world, self._name = world, name

    def bind(self, **_: Any) -> Quiet:
        return self

    def exception(self, event: str, **values: Any) -> None:
        self._world.break_(f"{self._name}: {event} {values}")

    error = exception

    def warning(self, event: str, **values: Any) -> None:
        self._world.ledger.note(b"", f"{self._name}: {event} {values}")

    def info(self, event: str, **_: Any) -> None: ...

    debug = info


class Everybody:
    """Accounts: whoever comes is believed."""

    async def prove(self, scheme: int, user: str, secret: str, peer: str) -> Identity:
        return Identity(user, None)

    def is_open(self, user: str, proof: str = "") -> bool:
        return True


class Machine:
    """A running chatd or brokerd with its links."""

    def __init__(self, world: Any, name: str) -> None:
        self.world, self.name = world, name
        self.process = Process(name, world.loop, Random(world.random.getrandbits(32)), lambda: world.odds)
        self.inbound = InboundLink(self.process, world.rabbit)
        self.nodes = NodesLink(self.process, world.rabbit)
        self.store: Any = StoreLink(self.process, world.store)
        self.log: Any = Quiet(world, name)

    def begin(self) -> None:
        """Run, until it ends or dies."""
        self.process.task = self.world.loop.create_task(self.run())
        self.process.task.add_done_callback(self._ended)

    async def run(self) -> None:
        """What this machine does."""
        raise NotImplementedError

    def _ended(self, task: asyncio.Task[None]) -> None:
        fault = None if task.cancelled() else task.exception()
        if self.process.is_alive:
            self.process.die()
            if fault is not None or not self.is_stopping:
                self.world.break_(f"{self.name} ended: {_leaf(fault)!r}")

    is_stopping = False


class BrokerMachine(Machine):
    """A brokerd."""

    def __init__(self, world: Any, name: str) -> None:
        super().__init__(world, name)
        self.shards = ShardsLink(self.process, world.rabbit)
        clock_ms = world.loop.now_ms
        self.broker = Broker(
            name, SHARDS, inbound=self.inbound, source=self.shards, nodes=self.nodes, sent_queue=self.store,
            register=self.store, clock_ms=clock_ms, log=self.log,
        )  # fmt: skip
        self.sweeper = Sweeper(name, SHARDS, self.inbound, self.store, clock_ms, self.log)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.broker.run())
            tasks.create_task(self.sweeper.run())


class NodeMachine(Machine):
    """A chatd; `board` is there while its door is open."""

    def __init__(self, world: Any, name: str) -> None:
        super().__init__(world, name)
        self.inbox = InboxLink(self.process, world.rabbit)
        self.board: Switchboard | None = None
        self._stop = asyncio.Event()

    async def run(self) -> None:
        links = Links(self.inbound, self.nodes, self.inbox, self.store, self.store, SHARDS, dict)
        await _SimNode(self, links).run(self._stop, lambda _: None)

    def drain(self) -> None:
        """SIGTERM."""
        self.is_stopping = True
        self._stop.set()


class _SimNode(Node):
    """The real node; but its only door is that of the simulated connections."""

    def __init__(self, machine: NodeMachine, links: Links) -> None:
        super().__init__(replace(CONFIG, node=machine.name), links, Everybody(), machine.log)
        self.id = machine.name
        self._machine = machine

    @asynccontextmanager
    async def _doors(self, board: Switchboard, postroom: Postroom) -> AsyncIterator[Any]:
        board.now_ms = self._machine.world.loop.now_ms  # type: ignore[method-assign]
        self._machine.board = board
        yield self

    def stop_accepting(self) -> None:
        """No new connections."""
        self._machine.board = None


def _leaf(fault: BaseException | None) -> BaseException | None:
    while isinstance(fault, BaseExceptionGroup):
        fault = fault.exceptions[0]
    return fault
