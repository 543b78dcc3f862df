"""One world: a few nodes and brokers, the real ones, on simulated links, and the devices of a few users, under faults
that one seed decides. `World(seed).run()` raises Broken (ledger.py) when a promise does not hold.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any, Final

from protocol.wire import TTL_S_MAX, Flag
from tests.sim import promises
from tests.sim.clock import VirtualLoop
from tests.sim.device import UNANSWERED_MAX, Device
from tests.sim.ledger import Broken, Ledger
from tests.sim.machines import SHARDS, BrokerMachine, Machine, NodeMachine
from tests.sim.odds import GENTLE_EVERY, STRIKES, Odds, draw
from tests.sim.promises import Owed
from tests.sim.rabbit import Rabbit
from tests.sim.store import Store
from tests.sim.storm import strike

STORM_S: Final = 6.0
GENTLE_S: Final = 60.0  # long and quiet: nothing comes by soon that would repair a lost hand-over
HEAL_S_MAX: Final = 150.0
SLOW_S_MAX: Final = 3.0
DOORSTEP_S: Final = 0.04  # about what a message takes to the store, or a login
USERS: Final = ("ann", "bob", "cid")
TTLS_S: Final = (1, 3, 10)


class World:
    """`run` once."""

    def __init__(self, seed: int) -> None:
        self.loop = VirtualLoop()
        self.random = Random(seed)
        self.storm_odds, self.shape = draw(self.random, is_gentle=seed % GENTLE_EVERY == 0)
        self.odds = Odds()
        self.ledger = Ledger(self.loop.time, self.loop.now_ms)
        self.store = Store(self.loop.time, count_max=self.shape.count_max)
        self.rabbit = Rabbit(SHARDS, self.loop)
        self.nodes: list[NodeMachine] = []
        self.brokers: list[BrokerMachine] = []
        self.devices: list[Device] = []
        self.heard: set[tuple[str, bytes]] = set()  # signals
        self.faults = 0
        self.broken: Broken | None = None
        self._births = 0
        self._is_over = False

    def run(self) -> None:
        """The whole life of it."""
        asyncio.set_event_loop(self.loop)
        self.loop.set_exception_handler(self._fault)
        try:
            self.loop.run_until_complete(self._live())
        finally:
            self._is_over = True
            for machine in [*self.nodes, *self.brokers]:
                machine.process.die()
            rest = asyncio.all_tasks(self.loop)
            for task in rest:
                task.cancel()
            self.loop.run_until_complete(asyncio.gather(*rest, return_exceptions=True))
            self.loop.close()
            asyncio.set_event_loop(None)
        if self.broken is not None:
            raise self.broken

    def break_(self, why: str, id_: bytes = b"") -> None:
        """The first fault counts."""
        if self.broken is None and not self._is_over:
            self.broken = Broken(why, id_)

    def _fault(self, loop: Any, context: dict[str, Any]) -> None:
        fault = context.get("exception")
        if isinstance(fault, Broken):
            self.break_(fault.why, fault.id)
        else:
            self.break_(f"{context.get('message')}: {fault!r}")

    # --- the life of it

    async def _live(self) -> None:
        self._build()
        await self._until(self._are_all_in, "not all could log in")
        self.odds = self.storm_odds
        await self._storm()
        self.odds = Odds()
        if self.ledger.emptied:
            await self._until(self._are_all_in, "not all came back to the empty store")
            self.ledger.settled()
            await self._last_words()
        await self._be_done(lambda: promises.unanswered(self.ledger))
        await self._be_done(lambda: promises.unseen(self.ledger, self.store))
        await self._until(self._is_idle, "the queues do not run empty")
        await self._until(self._is_level, "not every device stands at the end of its queue")
        await self._receipts()
        if not self.ledger.emptied:  # a new device may be told of by the next PING only
            await self._be_done(lambda: promises.uncopied(self.ledger, self.store))
        await self._register()
        await self._signals()
        await self._depart()
        promises.check_order(self.ledger, self.rabbit.nacked)

    def _build(self) -> None:
        shape = self.shape
        for _ in range(shape.nodes):
            self._start_node()
        for _ in range(shape.brokers):
            self._start_broker()
        for user in USERS[: shape.users]:
            if shape.devices > 1:
                self.ledger.shared.add(user)
            for device in ("a", "b")[: shape.devices]:
                self._add_device(user, device)

    def _add_device(self, user: str, device: str) -> None:
        self.devices.append(Device(self, user, device, self.random.getrandbits(32)))
        self.devices[-1].connect()

    async def _storm(self) -> None:
        random, shape = self.random, self.shape
        begin_s = self.loop.time()
        end_s = begin_s + (GENTLE_S if shape.is_gentle else STORM_S)
        weights = [getattr(self.odds, name) for name in STRIKES]
        has_late = not shape.late_device
        while self.loop.time() < end_s:
            await asyncio.sleep(random.expovariate(0.4 if shape.is_gentle else 6.0))
            self._stop_if_broken()
            if not has_late and self.loop.time() > (begin_s + end_s) / 2:
                has_late = True
                self._add_device(random.choice(USERS[: shape.users]), "late")
            if not shape.is_gentle:
                for _ in range(random.choice((1, 1, 1, 4))):
                    self.say()
            if any(weights) and random.random() < (1.0 if shape.is_gentle else 0.25):
                strike(self, random.choices(STRIKES, weights)[0])

    def say(self, to: str = "") -> None:
        """Somebody says something to somebody."""
        random = self.random
        device, to = random.choice(self.devices), to or random.choice(USERS[: self.shape.users])
        text = b"m%d" % (len(self.ledger.said) + 1)
        if random.random() < 0.1:
            device.signal(to, b"signal " + text)
        elif len(device.outgoing) < UNANSWERED_MAX:
            ttl_s = random.choice(TTLS_S) if random.random() < self.shape.ttl else None
            device.say(to, text, flags=random.choice((0, Flag.RECEIPT, Flag.READ_RECEIPT, Flag.RECEIPT | Flag.READ_RECEIPT)),
                       ttl_s=ttl_s)  # fmt: skip

    def on_doorstep(self, user: str, at_s: float) -> None:
        """A device of the user connects at that time. In a gentle world little is said, and most of it just then."""
        if self.shape.is_gentle and self.odds is self.storm_odds:
            self.loop.call_at(at_s + self.random.uniform(-DOORSTEP_S, DOORSTEP_S), self.say, user)

    def replaced(self, device: Device) -> None:
        """A device was told REPLACED on the only connection that it has: a real one would not come back."""
        if not self.ledger.emptied:
            self.break_(f"{device.name} was told REPLACED, and has no other session")

    # --- the end of it

    async def _until(self, is_so: Callable[[], bool], why: str) -> None:
        await self._be_done(lambda: None if is_so() else (why, b""))

    async def _be_done(self, owed: Callable[[], Owed]) -> None:
        end_s = self.loop.time() + HEAL_S_MAX
        while (what := owed()) is not None:
            self._stop_if_broken()
            if self.loop.time() > end_s:
                raise Broken(f"{what[0]}, {HEAL_S_MAX:.0f} s after the last fault", what[1])
            await asyncio.sleep(0.25)
        self._stop_if_broken()

    def _stop_if_broken(self) -> None:
        if self.rabbit.dead:
            self.break_(f"a batch was buried: {self.rabbit.dead[0][1]}")
        if self.broken is not None:
            raise self.broken

    def _are_all_in(self) -> bool:
        queues = self.store.queues
        return all(
            device.is_in and device.user in queues and device.place.generation == queues[device.user].generation
            for device in self.devices
        )  # fmt: skip

    def _is_idle(self) -> bool:
        return self.rabbit.is_empty() and all(device.is_quiet for device in self.devices)

    def _is_level(self) -> bool:
        return self._are_all_in() and all(
            device.place.processed == self.store.queues[device.user].head for device in self.devices
        )

    async def _last_words(self) -> None:
        """What was said before the store came back empty may be lost; now everything holds again."""
        for device in self.devices:
            for user in USERS[: self.shape.users]:
                device.say(user, b"last words %d" % len(self.ledger.said), flags=Flag.RECEIPT)

    async def _receipts(self) -> None:
        """Those that a crash left owed come with the sweep, at the latest when the message would have expired."""
        await asyncio.sleep(2)
        if promises.untold(self.ledger, self.store) is not None:
            self.loop.leap_ms += (TTL_S_MAX + 60) * 1000
        await self._be_done(lambda: promises.untold(self.ledger, self.store))

    async def _signals(self) -> None:
        """While nothing goes wrong, signals come through."""
        await self._until(self._are_all_in, "not all are in")
        await asyncio.sleep(SLOW_S_MAX)  # slow readers are not signalled to
        wanted = set()
        for user in USERS[: self.shape.users]:
            text = b"hello " + user.encode()
            self.devices[0].signal(user, text)
            wanted |= {(device.name, text) for device in self.devices if device.user == user}
        await self._until(lambda: wanted <= self.heard, "a signal was lost, though nothing went wrong")

    async def _register(self) -> None:
        """The register has the live sessions, and nothing else; what was lost of it is found by the PINGs."""
        await self._be_done(self._untrue_register)

    async def _depart(self) -> None:
        """One device goes for good: its entry does too."""
        await self._until(self._are_all_in, "not all are in")
        self.devices[0].leave(for_good=True)
        await self._be_done(self._untrue_register)

    def _untrue_register(self) -> Owed:
        users = USERS[: self.shape.users]
        found = sorted((f"{user}/{seat.device}", seat.node) for user in users for seat in self.store.seats_of(user))
        there = sorted((device.name, device.pipe.node.name) for device in self.devices if device.is_in and device.pipe)
        return (f"the register has {found}, and there are {there}", b"") if found != there else None

    # --- machines

    def any_node(self, random: Random) -> NodeMachine | None:
        """One that takes connections."""
        open_ = [node for node in self.nodes if node.process.is_alive and node.board is not None]
        return random.choice(open_) if open_ else None

    def _start_node(self) -> None:
        self._births += 1
        self._start(NodeMachine(self, f"n{self._births}"), self.nodes, self._start_node)

    def _start_broker(self) -> None:
        self._births += 1
        self._start(BrokerMachine(self, f"b{self._births}"), self.brokers, self._start_broker)

    def _start(self, machine: Any, those: list[Any], again: Callable[[], None]) -> None:
        those.append(machine)
        machine.process.at_death.append(lambda: self._ended(machine, those, again))
        machine.begin()

    def _ended(self, machine: Machine, those: list[Any], again: Callable[[], None]) -> None:
        those.remove(machine)
        if self._is_over:
            return
        self.ledger.note(b"", f"{machine.name} {'ends' if machine.is_stopping else 'crashes'}")
        for device in self.devices:
            if device.pipe is not None and device.pipe.node is machine:
                device.pipe.cut("its node is gone")
        self.loop.call_later(self.random.random() * 2, again)
