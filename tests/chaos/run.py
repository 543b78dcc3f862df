"""One run of chaos, from its servers to its verdict."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.throughput import rss_mib
from tests.chaos import acts
from tests.chaos.crowd import Crowd, Habits
from tests.chaos.ledger import Ledger
from tests.chaos.nemesis import Fault, Nemesis, schedule
from tests.chaos.quiet import noise
from tests.chaos.town import Town

DRAIN_S_MAX: Final = 60.0  # from the end of the last fault to a quiet town
WATCH_S: Final = 0.5
RSS_MIB_MAX: Final = {"chatd": 300.0, "brokerd": 300.0, "redis": 400.0, "rabbitmq": 1200.0}
TRACES_MAX: Final = 5


@dataclass(slots=True)
class Outcome:
    """What came of a run."""

    seed: int
    seconds: float
    ledger: Ledger
    fired: Counter[str]
    never_fired: list[str]
    diary: list[str]
    ends: Counter[str]
    drained_s: float | None = None
    noise: list[str] = field(default_factory=list)
    rss_mib: dict[str, float] = field(default_factory=dict)

    @property
    def is_good(self) -> bool:
        """Nothing broken, everything drained, every fault fired."""
        return not self.ledger.breaches and self.drained_s is not None and not self.noise and not self.never_fired

    @property
    def line(self) -> str:
        """The run in one line."""
        counts = self.ledger.counts
        lost = counts["lost"] + counts["gap"] + len(self.ledger.unfinished())
        others = {
            kind: counts[kind]
            for kind in ("phantom", "early", "stranded", "stale", "stuck", "died", "memory")
            if counts[kind]
        }
        drained = "not drained" if self.drained_s is None else f"drained in {self.drained_s:.1f} s"
        return (
            f"seed {self.seed}, seconds {self.seconds:.0f}, messages {counts['accepted']}, faults {self.fired.total()}, "
            f"lost {lost}, duplicates {counts['duplicate']}, misordered {counts['misordered']}, {drained}"
            + "".join(f", {kind} {count}" for kind, count in others.items())
        )

    @property
    def story(self) -> str:
        """The details, for somebody who looks for the cause."""
        labels = [breach.label for breach in self.ledger.breaches if breach.label]
        labels += self.ledger.unfinished()
        lines = [f"{breach.kind}: {breach.text}" for breach in self.ledger.breaches]
        lines += [f"still: {text}" for text in self.noise[:50]] + [f"never fired: {kind}" for kind in self.never_fired]
        for label in list(dict.fromkeys(labels))[:TRACES_MAX]:
            lines += self.ledger.trace(label)
        return "\n".join([*lines, "The faults:", *self.diary])

    @property
    def figures(self) -> str:
        """What is worth knowing of a good run."""
        counts = self.ledger.counts
        rss = ", ".join(f"{name} {mib:.0f}" for name, mib in sorted(self.rss_mib.items()))
        fired = ", ".join(f"{kind} {count}" for kind, count in sorted(self.fired.items()))
        return (
            f"seen {counts['seen']}, receipts {counts['receipts']}, expired seqs {counts['gone']}, refused {counts['refused']}\n"
            f"RSS MiB at most: {rss}\nfaults: {fired}\nclients ended by: {dict(self.ends)}"
        )


Tell = Callable[[float, str], None]  # seconds of the run, what is going on


class Run:
    """`await run()` once."""

    def __init__(
        self, folder: Path, seed: int, seconds: float, *, nodes: int = 3, brokers: int = 2, habits: Habits | None = None,
        tell: Tell = lambda at_s, text: None, faults: list[Fault] | None = None, has_power_cuts: bool = False,
    ) -> None:  # fmt: skip
        self.seed, self.seconds = seed, seconds
        self._town = Town(folder, nodes, brokers, has_power_cuts=has_power_cuts)
        self._crowd = Crowd(self._town, habits or Habits(), seed)
        dealt = schedule(seed, seconds, nodes, brokers, has_power_cuts=has_power_cuts)
        self._faults = dealt if faults is None else faults
        self._tell = tell
        self._rss: dict[str, float] = {}
        ledger = self._crowd.ledger
        self._nemesis = Nemesis(self._town, ledger.now_s, ledger.breach)

    async def run(self) -> Outcome:
        """Start, hurt, heal, look."""
        crowd, nemesis = self._crowd, self._nemesis
        self._tell(0, "starting the servers")
        try:
            await self._town.start()
            await crowd.gather()
            drained_s, loud = await self._live()
        finally:
            await self._town.close()
        kinds = {fault.kind for fault in self._faults}
        never = sorted(kind for kind in kinds if not nemesis.fired[kind])
        return Outcome(
            self.seed, self.seconds, crowd.ledger, nemesis.fired, never if self._faults else ["no fault at all"],
            nemesis.diary, crowd.ends, drained_s, loud, self._rss,
        )  # fmt: skip

    async def _live(self) -> tuple[float | None, list[str]]:
        crowd = self._crowd
        async with asyncio.TaskGroup() as tasks:
            beside = [tasks.create_task(crowd.live()), tasks.create_task(self._watch())]
            crowd.is_talking = True
            await self._nemesis.run(self._faults)
            crowd.settle()
            drained = await self._drain()
            if drained[0] is not None:
                drained = drained[0], await self._act()
            for task in beside:
                task.cancel()
        return drained

    async def _act(self) -> list[str]:
        """The acts after the storm; what is not quiet behind them."""
        dice = random.Random(self.seed)
        self._tell(self.seconds, "the doorstep")
        await acts.doorstep(self._town, self._crowd, dice)
        if len(self._town.chatds) > 1 and (await self._drain())[0] is not None:
            self._tell(self.seconds, "the dead house")
            with self._nemesis.hurting(*self._town.chatds):
                await acts.dead_house(self._town, self._crowd, dice)
        return (await self._drain())[1]

    async def _drain(self) -> tuple[float | None, list[str]]:
        begun_s = self._crowd.ledger.now_s()
        while True:
            loud = await noise(self._town, self._crowd)
            taken_s = self._crowd.ledger.now_s() - begun_s
            if not loud:
                return taken_s, []
            if taken_s > DRAIN_S_MAX:
                return None, loud
            self._tell(self.seconds, f"draining: {len(loud)} to go")
            await asyncio.sleep(0.2)

    async def _watch(self) -> None:
        """Memory, and processes that die by themselves."""
        ledger, dead = self._crowd.ledger, set[str]()
        while True:
            await asyncio.sleep(WATCH_S)
            for name, part in self._town.parts.items():
                if self._nemesis.busy[name] or name in dead:
                    continue
                if not _lives(part.pid):
                    dead.add(name)
                    ledger.breach("died", f"{name} died by itself")
                    continue
                mib = rss_mib(part.pid)
                self._rss[name] = max(mib, self._rss.get(name, 0.0))
                most = RSS_MIB_MAX[name.rstrip("0123456789")]
                if mib > most:
                    ledger.breach("memory", f"{name} has {mib:.0f} MiB, more than {most:.0f}")
            counts = ledger.counts
            self._tell(ledger.now_s(), f"{counts['accepted']} accepted, {self._nemesis.fired.total()} faults")


def _lives(pid: int) -> bool:
    """Neither gone nor a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
