"""One world: a few nodes and brokers, the real ones, on simulated links, and the devices of a few users, under faults
that one seed decides. `World(seed).run()` raises Broken (ledger.py) when a promise does not hold.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any, Final

from brokerd.broker import Broker
from brokerd.sweeper import Sweeper
from chatd.line import Line
from chatd.ports import Identity
from chatd.postroom import Postroom
from chatd.switchboard import Switchboard
from protocol.wire import TTL_S_MAX, Limits
from tests.sim.clock import VirtualLoop
from tests.sim.device import UNANSWERED_MAX, Device
from tests.sim.ledger import Broken, Ledger
from tests.sim.links import InboundLink, NodesLink, Process, Rabbit, ShardsLink, StoreLink
from tests.sim.odds import STRIKES, Odds, draw, is_gentle
from tests.sim.store import Store

SHARDS: Final = 2
LEASE_S: Final = 3.0
STORM_S: Final = 8.0
HEAL_S_MAX: Final = 150.0
LIMITS: Final = Limits(unaccepted_max=6, keepalive_s=10.0)


def _place_of(line: Line) -> int:
    return int(line.session.id, 16)


# A set of lines is walked in the order of their addresses, which no seed decides; so, by their numbers.
Line.__hash__ = _place_of  # type: ignore[method-assign,assignment]


class Quiet:
    """A log that nobody reads; what it is told of as an error is one."""

    def __init__(self, world: World, name: str = "") -> None:
        self._world, self._name = world, name

    def bind(self, **_: Any) -> Quiet:
        return self

    def exception(self, event: str, **values: Any) -> None:
        self._world.break_(f"{event} {values}")

    error = exception

    def _nothing(self, event: str, **values: Any) -> None:
        self._world.ledger.note(b"", f"{self._name}: {event} {values}")

    warning = _nothing

    def info(self, event: str, **_: Any) -> None: ...

    debug = info


class Everybody:
    """Accounts: whoever comes is believed."""

    async def prove(self, scheme: int, user: str, secret: str, peer: str) -> Identity:
        return Identity(user, None)

    def is_open(self, user: str) -> bool:
        return True


class Machine:
    """A running chatd or brokerd with its links."""

    def __init__(self, world: World, name: str) -> None:
        self.process = Process(name, world.loop, Random(world.random.getrandbits(32)), lambda: world.odds)
        self.inbound = InboundLink(self.process, world.rabbit)
        self.nodes = NodesLink(self.process, world.rabbit)
        self.store: Any = StoreLink(self.process, world.store)
        self.log = Quiet(world, name)
        self.board: Any = None
        self.postroom: Any = None
        self.shards: Any = None


class World:
    """`run` once."""

    def __init__(self, seed: int) -> None:
        self.loop = VirtualLoop()
        self.random = Random(seed)
        self.storm_odds = draw(self.random)
        self.is_gentle = is_gentle(self.storm_odds)
        self.odds = Odds()
        self.ledger = Ledger(self.loop.time)
        self.store = Store(self.loop.time)
        self.rabbit = Rabbit(SHARDS, self.loop)
        self.chatds: list[Machine] = []
        self.brokers: list[Machine] = []
        self.devices: list[Device] = []
        self.faults = 0
        self._births = 0
        self.broken: Broken | None = None
        self._is_over = False

    def run(self) -> None:
        """The whole life of it."""
        asyncio.set_event_loop(self.loop)
        self.loop.set_exception_handler(self._fault)
        try:
            self.loop.run_until_complete(self._live())
        finally:
            self._is_over = True
            for machine in self.chatds + self.brokers:
                machine.process.die()
            rest = asyncio.all_tasks(self.loop)
            for task in rest:
                task.cancel()
            self.loop.run_until_complete(asyncio.gather(*rest, return_exceptions=True))
            self.loop.close()
            asyncio.set_event_loop(None)
        if self.broken is not None:
            raise self.broken

    def break_(self, why: str, text: bytes = b"") -> None:
        """The first fault counts."""
        if self.broken is None and not self._is_over:
            self.broken = Broken(why, text)

    def _fault(self, loop: Any, context: dict[str, Any]) -> None:
        fault = context.get("exception")
        if isinstance(fault, Broken):
            self.break_(fault.why, fault.text)
        else:
            self.break_(f"{context.get('message')}: {fault!r}")

    async def _live(self) -> None:
        self._build()
        await self._until(lambda: all(device.is_in for device in self.devices), "not all could log in")
        self.odds = self.storm_odds
        await self._storm()
        self.odds = Odds()
        await self._until(lambda: self._unfinished() is None, self._unfinished)
        await self._until(self._is_idle, "the queues do not run empty")
        await self._receipts()
        self.ledger.check_order()

    def _build(self) -> None:
        for _ in range(self.random.randint(1, 3)):
            self._start_chatd()
        for _ in range(self.random.randint(1, 2)):
            self._start_broker()
        for user in ("ann", "bob", "cid")[: self.random.randint(2, 3)]:
            for device in ("a", "b")[: self.random.randint(1, 2)]:
                self.ledger.enrol(user, device)
                self.devices.append(Device(self, user, device, self.random.getrandbits(32)))
                self.devices[-1].connect()

    async def _until(self, is_so: Any, why: Any) -> None:
        end_s = self.loop.time() + HEAL_S_MAX
        while not is_so():
            self._stop_if_broken()
            if self.loop.time() > end_s:
                what = why() if callable(why) else (why, b"")
                raise Broken(f"{what[0]}, {HEAL_S_MAX:.0f} s after the last fault", what[1])
            await asyncio.sleep(0.25)
        self._stop_if_broken()

    def _stop_if_broken(self) -> None:
        if self.broken is not None:
            raise self.broken

    def _unfinished(self) -> tuple[str, bytes] | None:
        return self.ledger.unfinished()

    def _is_idle(self) -> bool:
        return self.rabbit.is_empty() and all(device.is_quiet for device in self.devices)

    def _is_level(self) -> bool:
        return all(device.is_in and device.position == self.store.queues[device.user].head for device in self.devices)

    async def _receipts(self) -> None:
        """Those that a crash left owed come with the sweep, at the latest when the message would have expired."""
        await asyncio.sleep(2)
        await self._until(self._is_level, "not every device stands at the end of its queue")
        if self.ledger.untold() is not None:
            await self._until(lambda: self.brokers and self.brokers[0].inbound.is_ready, "no broker")
            self.loop.leap_ms += (TTL_S_MAX + 60) * 1000
            broker = self.brokers[0]
            await Sweeper("sweeper", SHARDS, broker.inbound, broker.store, self.loop.now_ms, broker.log).sweep()
        await self._until(lambda: self.ledger.untold() is None, self.ledger.untold)

    # --- machines

    def any_node(self, random: Random) -> Machine | None:
        """One that takes connections."""
        alive = [chatd for chatd in self.chatds if chatd.process.is_alive and chatd.board is not None]
        return random.choice(alive) if alive else None

    def _start_chatd(self) -> None:
        self._births += 1
        machine = Machine(self, f"n{self._births}")
        self.chatds.append(machine)
        self._begin(machine, self._run_chatd(machine), lambda: self._crashed_chatd(machine))

    def _start_broker(self) -> None:
        self._births += 1
        machine = Machine(self, f"b{self._births}")
        machine.shards = ShardsLink(machine.process, self.rabbit)
        self.brokers.append(machine)
        broker = Broker(
            machine.process.name, SHARDS, inbound=machine.inbound, source=machine.shards, nodes=machine.nodes,
            sent_queue=machine.store, register=machine.store, clock_ms=self.loop.now_ms, log=machine.log,
        )  # fmt: skip
        self._begin(machine, broker.run(), lambda: self._crashed_broker(machine))

    def _begin(self, machine: Machine, work: Any, at_death: Any) -> None:
        machine.process.task = task = self.loop.create_task(work)
        machine.process.at_death.append(at_death)

        def ended(task: asyncio.Task[None]) -> None:
            if machine.process.is_alive:
                fault = None if task.cancelled() else task.exception()
                self.break_(f"{machine.process.name} ended: {_leaf(fault)!r}")

        task.add_done_callback(ended)

    async def _run_chatd(self, machine: Machine) -> None:
        name = machine.process.name
        async with asyncio.TaskGroup() as tasks:
            board = Switchboard(
                name, shards=SHARDS, inbound=machine.inbound, nodes=machine.nodes, sent_queue=machine.store,
                register=machine.store, accounts=Everybody(), limits=LIMITS, outbox_bytes_max=1 << 20,
                connections_max=100, tasks=tasks, log=machine.log,
            )  # fmt: skip
            board.now_ms = self.loop.now_ms  # type: ignore[method-assign]
            machine.postroom = postroom = Postroom(board, machine.log)
            self.rabbit.inboxes[name] = (postroom.take, postroom.lost_some)
            tasks.create_task(self._keep_lease(machine))
            machine.board = board
            while True:
                await asyncio.sleep(1.0)
                board.tick()

    async def _keep_lease(self, machine: Machine) -> None:
        while True:
            try:
                await machine.store.renew_lease(machine.process.name, int(LEASE_S * 1000))
                await asyncio.sleep(LEASE_S / 3)
            except Exception:  # LinkDown: again soon, as the node does
                await asyncio.sleep(0.5)

    def _crashed_chatd(self, machine: Machine) -> None:
        self.ledger.note(b"", f"{machine.process.name} crashes")
        self.faults += 1
        self.rabbit.inboxes.pop(machine.process.name, None)
        if self._is_over:
            return
        for device in self.devices:
            if device.pipe is not None and device.pipe.node is machine:
                device.pipe.cut("its node crashed")
        self.chatds.remove(machine)
        self.loop.call_later(self.random.random() * 2, self._start_chatd)

    def _crashed_broker(self, machine: Machine) -> None:
        self.ledger.note(b"", f"{machine.process.name} crashes")
        self.faults += 1
        if not self._is_over:
            self.brokers.remove(machine)
            self.loop.call_later(self.random.random() * 2, self._start_broker)

    # --- the storm

    async def _storm(self) -> None:
        random, end_s = self.random, self.loop.time() + STORM_S * (3 if self.is_gentle else 1)
        weights = [getattr(self.odds, name) for name in STRIKES]
        while self.loop.time() < end_s:
            await asyncio.sleep(random.expovariate(2.0 if self.is_gentle else 6.0))
            self._stop_if_broken()
            if not self.is_gentle:
                for _ in range(random.choice((1, 1, 1, 4))):
                    self._say()
            if any(weights) and random.random() < (1.0 if self.is_gentle else 0.25):
                self._strike(random.choices(STRIKES, weights)[0])

    def _say(self, to: str = "") -> None:
        """Somebody says something to somebody."""
        device = self.random.choice(self.devices)
        if len(device.waiting) < UNANSWERED_MAX:
            text = b"m%d" % (len(self.ledger.messages) + 1)
            device.say(to or self.random.choice(self.devices).user, text, wants_receipt=self.random.random() < 0.5)

    def on_doorstep(self, user: str) -> None:
        """A device of the user connects. In a gentle world little is said, and most of it just now."""
        if self.is_gentle and any(getattr(self.odds, name) for name in STRIKES):
            self.loop.call_later(self.random.random() * 0.15, self._say, user)

    def _strike(self, name: str) -> None:
        self.faults += 1
        random = self.random
        chatds = [chatd for chatd in self.chatds if chatd.board is not None]
        for_s = random.random() * random.choice((0.3, 3.0))
        if name == "cut":
            device = random.choice(self.devices)
            if random.random() < 0.3:
                device.leave()
            elif device.pipe is not None:
                device.pipe.cut("by the storm")
        elif name == "crash_node" and chatds:
            random.choice(chatds).process.die()
        elif name == "crash_broker" and self.brokers:
            random.choice(self.brokers).process.die()
        elif name == "freeze_broker" and self.brokers:
            self._freeze(random.choice(self.brokers), for_s)
        elif name == "part_inbound":
            machine = random.choice(chatds + self.brokers) if chatds + self.brokers else None
            if machine is not None:
                self.ledger.note(b"", f"{machine.process.name} loses its way to the shards for {for_s:.2f} s")
                machine.inbound.part(for_s)
        elif name == "part_inbox" and chatds:
            self._part_inbox(random.choice(chatds), for_s)
        elif name == "store_outage":
            self.ledger.note(b"", f"the store is away for {for_s:.2f} s")
            for machine in self.chatds + self.brokers:
                machine.process.store_down_until_s = self.loop.time() + for_s
        elif name == "slow_reader":
            self._slow(random.choice(self.devices), for_s)

    def _freeze(self, machine: Machine, for_s: float) -> None:
        self.ledger.note(b"", f"{machine.process.name} freezes for {for_s:.2f} s and loses its shards")
        machine.process.frozen_until_s = self.loop.time() + for_s
        machine.shards.part(for_s + self.random.random())

    def _part_inbox(self, machine: Machine, for_s: float) -> None:
        name = machine.process.name
        inbox = self.rabbit.inboxes.pop(name, None)
        if inbox is None:
            return
        self.ledger.note(b"", f"{name} loses its inbox for {for_s:.2f} s")

        def back() -> None:
            if machine.process.is_alive:
                self.rabbit.inboxes[name] = inbox
                inbox[1]()

        self.loop.call_later(for_s, back)

    def _slow(self, device: Device, for_s: float) -> None:
        pipe = device.pipe
        if pipe is None or not pipe.node.process.is_alive or pipe.line.is_lost:
            return
        pipe.line.pause_writing()

        def again() -> None:
            if pipe.node.process.is_alive and not pipe.line.is_lost:
                pipe.line.resume_writing()

        self.loop.call_later(for_s, again)


def _leaf(fault: BaseException | None) -> BaseException | None:
    while isinstance(fault, BaseExceptionGroup):
        fault = fault.exceptions[0]
    return fault
