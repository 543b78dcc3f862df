"""The nemesis: a schedule of faults, the same for the same seed, and what carries them out.

The faults are drawn like cards from a shuffled pack, so that every kind comes before one comes again; some come while
others last. A fault that could not be done (nothing to cut) is not counted, and a kind that never fired fails the run.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from bench.processes import Daemon
from tests.chaos.network import DOWN, UP, Door
from tests.chaos.town import Town

GAP_S: Final = (0.3, 2.2)  # from one fault to the next
REDIS_STOP_S_MAX: Final = 6.0
LONG_STOP_S: Final = 25.0  # longer than two AMQP heartbeats
LONG_STOP_IN: Final = 6  # one in so many, when there is time for it
TRAP_S: Final = 1.5  # frozen so long before the others are killed
MEET_S: Final = 0.02  # a fault of a link waits for somebody to meet, looking so often
MEETINGS_MAX: Final = 1000
WORDS_MAX: Final = 100  # looks for something that is said, to come late
RABBIT_EVERY_S: Final = 45.0  # it takes 6 to 19 seconds to come back


class Fault(NamedTuple):
    """One card, dealt. `what`: kill, stop, term, power, cut, half-cut, hold, hold-up, hold-down, slow, shake, thin, late,
    trap."""

    at_s: float
    what: str
    names: tuple[str, ...]  # parts or doors
    hold_s: float

    @property
    def kind(self) -> str:
        """What is counted: the deed and whom it met."""
        return f"{self.what} {'+'.join(sorted({_without_number(name) for name in self.names}))}"

    def __str__(self) -> str:
        return f"{self.at_s:7.2f} s  {self.what} {' '.join(self.names)} for {self.hold_s:.1f} s"


def _without_number(name: str) -> str:
    return "".join(char for char in name if not char.isdigit())


PACK: Final = (
    ("kill", "chatd"), ("kill", "brokerd"), ("kill", "redis"), ("kill", "chatd chatd"), ("kill", "brokerd brokerd"),
    ("kill", "brokerd redis"), ("kill", "chatd brokerd"), ("stop", "chatd"), ("stop", "brokerd"), ("stop", "redis"),
    ("term", "chatd"), ("term", "brokerd"), ("term", "redis"),
    ("cut", "clients-chatd"), ("half-cut", "clients-chatd"), ("hold", "clients-chatd"), ("hold-up", "clients-chatd"),
    ("hold-down", "clients-chatd"), ("slow", "clients-chatd"),
    ("cut", "chatd-redis"), ("hold", "chatd-redis"), ("cut", "chatd-rabbitmq"), ("hold", "chatd-rabbitmq"),
    ("half-cut", "chatd-rabbitmq"), ("cut", "brokerd-redis"), ("hold", "brokerd-redis"), ("slow", "brokerd-redis"),
    ("trap", "redis brokerd brokerd"), ("trap", "redis chatd"), ("trap", "redis brokerd brokerd"),
    ("thin", "clients-chatd"), ("late", "clients-chatd"), ("shake", "chatd-rabbitmq"), ("shake", "brokerd-redis"),
    ("late", "chatd-rabbitmq"), ("late", "brokerd-rabbitmq"), ("late", "brokerd-redis"),
    ("cut", "brokerd-rabbitmq"), ("hold-down", "brokerd-rabbitmq"), ("hold-up", "brokerd-rabbitmq"),
)  # fmt: skip
RABBIT_PACK: Final = (("kill", "rabbitmq"), ("stop", "rabbitmq"), ("term", "rabbitmq"), ("kill", "redis rabbitmq"))
POWER_PACK: Final = (("power", "redis rabbitmq"),)
SLOW_S: Final = 0.3
JITTER_S: Final = 0.2
THIN_BYTES_PER_S: Final = 20_000.0


def schedule(seed: int, seconds: float, nodes: int, brokers: int, *, has_power_cuts: bool = False) -> list[Fault]:
    """The faults of a run, by time. The last one ends before `seconds`. With power cuts, these stand for all that can
    befall RabbitMQ's process."""
    dice = random.Random(seed)
    free_s: dict[str, float] = {}
    faults: list[Fault] = []
    pack: list[tuple[str, str]] = []
    at_s, rabbit_s = 1.0, dice.uniform(4.0, 12.0)
    while at_s < seconds - 4.0:
        if at_s >= rabbit_s and seconds >= 30:
            rabbit_s = at_s + RABBIT_EVERY_S * dice.uniform(0.8, 1.5)
            what, kinds = dice.choice(POWER_PACK if has_power_cuts else RABBIT_PACK)
        else:
            if not pack:
                pack = dice.sample(PACK, len(PACK))
            what, kinds = pack.pop()
        hold_s = _hold_s(dice, what, kinds, seconds - at_s)
        names = _names(dice, kinds, at_s, free_s, {"chatd": nodes, "brokerd": brokers})
        faults.append(Fault(at_s, what, names, hold_s))
        for name in names:
            free_s[name] = at_s + hold_s + 1.0
        at_s += dice.uniform(*GAP_S)
    return faults


def _hold_s(dice: random.Random, what: str, kinds: str, left_s: float) -> float:
    if what in ("cut", "half-cut"):
        hold_s = dice.uniform(0.0, 1.0)
    elif what in ("kill", "term", "power"):
        hold_s = dice.choice((0.0, dice.uniform(0.0, 4.0)))
    elif "redis" in kinds.split() or "rabbitmq" in kinds.split():
        hold_s = dice.uniform(0.5, REDIS_STOP_S_MAX)
    elif left_s > LONG_STOP_S + 10 and dice.randrange(LONG_STOP_IN) == 0:
        hold_s = LONG_STOP_S
    else:
        hold_s = dice.uniform(0.5, 8.0)
    return min(hold_s, max(left_s - 4.0, 0.5))


def _names(
    dice: random.Random, kinds: str, at_s: float, free_s: dict[str, float], counts: dict[str, int]
) -> tuple[str, ...]:
    """Which ones: of those of a kind that are well, if there is one."""
    chosen: list[str] = []
    for kind in kinds.split():
        base, dash, end = kind.partition("-")
        if base == "clients":
            all_of = [f"clients-{end}{number}" for number in range(1, counts[end] + 1)]
        else:
            all_of = [f"{base}{number}{dash}{end}" for number in range(1, counts.get(base, 0) + 1)] or [kind]
        left = [name for name in all_of if name not in chosen]
        chosen.append(dice.choice([name for name in left if free_s.get(name, 0) <= at_s] or left))
    return tuple(chosen)


class Nemesis:
    """`run` carries a schedule out. `fired` counts by kind, `diary` says what was done and when, `now_s` is the ledger's."""

    def __init__(self, town: Town, now_s: Callable[[], float], breach: Callable[[str, str], None]) -> None:
        self._town, self._now_s, self._breach = town, now_s, breach
        self.fired: Counter[str] = Counter()
        self.diary: list[str] = []
        self.busy: Counter[str] = Counter()  # parts that are being hurt
        self._locks: dict[str, asyncio.Lock] = {}

    @contextmanager
    def hurting(self, *names: str) -> Iterator[None]:
        """Somebody else hurts these parts: nobody is to wonder."""
        self.busy.update(names)
        yield
        self.busy.subtract(names)

    async def run(self, faults: list[Fault]) -> None:
        """All of them; returns when everything is mended."""
        begun_s = self._now_s()
        async with asyncio.TaskGroup() as tasks:
            for fault in faults:
                await asyncio.sleep(max(0.0, begun_s + fault.at_s - self._now_s()))
                tasks.create_task(self._do(fault))

    async def _do(self, fault: Fault) -> None:
        if fault.what == "trap":
            await self._trap(fault)
        elif fault.what == "power":
            await self._cut_power(fault)
        else:
            async with asyncio.TaskGroup() as tasks:
                for name in fault.names:
                    tasks.create_task(self._hurt(fault, name))

    async def _trap(self, fault: Fault) -> None:
        """The first is frozen, so that the others are full of what they have begun; then these are killed."""
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(
                self._hurt(Fault(fault.at_s, "stop", fault.names[:1], TRAP_S + 1.0), fault.names[0])
            )
            await asyncio.sleep(TRAP_S)
            for name in fault.names[1:]:
                tasks.create_task(self._hurt(Fault(fault.at_s, "kill", (name,), 0.0), name))
        self.fired[fault.kind] += first.result()

    async def _cut_power(self, fault: Fault) -> None:
        """The machine of Redis and RabbitMQ stands still at one moment, and what they had not fsynced is gone."""
        async with AsyncExitStack() as stack:
            for name in sorted(fault.names):
                await stack.enter_async_context(self._locks.setdefault(name, asyncio.Lock()))
            stack.enter_context(self.hurting(*fault.names))
            begun_s = self._now_s()
            await asyncio.to_thread(self._town.cut_power)
            await asyncio.sleep(fault.hold_s)
            starts = (self._town.parts[name].start for name in fault.names)
            await asyncio.gather(*(asyncio.to_thread(start) for start in starts))
            self.fired[fault.kind] += 1
            self.diary.append(f"{begun_s:9.3f} s to {self._now_s():9.3f} s  power of {' and '.join(fault.names)}")

    async def _hurt(self, fault: Fault, name: str) -> bool:
        """Whether it met somebody."""
        async with self._locks.setdefault(name, asyncio.Lock()):  # one at a time of the same
            self.busy[name] += 1
            begun_s = self._now_s()
            if name in self._town.doors:
                has_fired = await self._hurt_door(fault, self._town.doors[name])
            else:
                has_fired = await self._hurt_part(fault, name)
            self.busy[name] -= 1
            self.fired[fault.kind] += has_fired
            note = "" if has_fired else "  (met nobody)"
            self.diary.append(f"{begun_s:9.3f} s to {self._now_s():9.3f} s  {fault.what} {name}{note}")
        return has_fired

    async def _hurt_door(self, fault: Fault, door: Door) -> bool:
        for _ in range(MEETINGS_MAX):
            if door.links:
                break
            await asyncio.sleep(MEET_S)  # nobody is connected at this moment
        match fault.what:
            case "cut" | "half-cut":
                met = door.cut(half=fault.what == "half-cut")
            case "slow":
                met = door.slow(SLOW_S)
            case "shake":
                met = door.shake(JITTER_S)
            case "thin":
                met = door.thin(THIN_BYTES_PER_S)
            case "late":
                met = await self._strand(door)
            case _:
                ways = {"hold": (UP, DOWN), "hold-up": (UP,), "hold-down": (DOWN,)}[fault.what]
                met = door.hold(*ways)
        await asyncio.sleep(fault.hold_s)
        door.mend()
        return met > 0

    async def _strand(self, door: Door) -> int:
        """With what was said meanwhile: who has nothing to do (a broker without a shard) loses no more than a link."""
        door.hold(UP)
        for _ in range(WORDS_MAX):
            if door.has_kept:
                break
            await asyncio.sleep(MEET_S)
        return door.strand()

    async def _hurt_part(self, fault: Fault, name: str) -> bool:
        part = self._town.parts[name]
        if fault.what == "stop":
            return await self._freeze(part.pid, fault.hold_s)
        if fault.what == "kill":
            await asyncio.to_thread(part.kill9)
        else:
            await self._end(name)
        await asyncio.sleep(fault.hold_s)
        await asyncio.to_thread(part.start)
        return True

    async def _end(self, name: str) -> None:
        part = self._town.parts[name]
        try:
            code = await asyncio.to_thread(part.stop)
        except subprocess.TimeoutExpired:
            self._breach("stuck", f"{name} did not end after SIGTERM")
        else:
            if isinstance(part, Daemon) and code:
                self._breach("stuck", f"{name} ended after SIGTERM with code {code}")

    async def _freeze(self, pid: int, hold_s: float) -> bool:
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(min(hold_s, 0.1))
            is_stopped = _is_stopped(pid)
            await asyncio.sleep(max(0.0, hold_s - 0.1))
        finally:
            os.kill(pid, signal.SIGCONT)
        return is_stopped


def _is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"
