"""A rolling restart under load: every chatd, then every brokerd, one by one, while a crowd talks through a balancer.

What is looked at: nothing lost, doubled or out of order (the ledger of the chaos runs); how long any device was away;
and how the logins that a stop causes are spread (the window in GOAWAY paces them: no thundering herd).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from types import SimpleNamespace
from typing import Final, NamedTuple, cast

from bench.cluster import Cluster
from bench.processes import Chatd, Daemon
from bench.tokens import Mint
from protocol.client import Connected
from tests.chaos.crowd import Crowd, Habits
from tests.chaos.ledger import DeviceName
from tests.chaos.town import Town
from tests.rolling.balancer import Balancer, balanced

LOOK_S: Final = 0.01
SLOT_S: Final = 0.1  # logins are counted in slots of so much
SETTLE_S_MAX: Final = 60.0


class Step(NamedTuple):
    """One daemon's turn."""

    name: str
    exit_code: int
    drain_s: float  # from SIGTERM to its end
    away_s: float  # from its end to its being ready again
    moved: int  # logins that followed
    absence_s_max: float  # the longest that any device was away
    peak: int  # logins in one slot
    mean: float  # logins a slot, from the first to the last of them


@dataclass(slots=True)
class Roll:
    """What came of it."""

    steps: list[Step] = field(default_factory=list)
    breaches: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    messages: int = 0
    logins: int = 0
    lost: int = 0
    duplicates: int = 0
    misordered: int = 0

    def table(self) -> str:
        """For people."""
        head = f"{'restarted':12}{'exit':>5}{'drain s':>9}{'away s':>8}{'moved':>7}{'absence ms':>12}{'logins/100 ms: peak':>21}{'mean':>7}"
        rows = [
            f"{step.name:12}{step.exit_code:>5}{step.drain_s:>9.1f}{step.away_s:>8.1f}{step.moved:>7}"
            f"{1000 * step.absence_s_max:>12.0f}{step.peak:>21}{step.mean:>7.1f}"
            for step in self.steps
        ]
        told = f"messages {self.messages}, lost {self.lost}, duplicates {self.duplicates}, misordered {self.misordered}"
        return "\n".join([head, *rows, told, *self.breaches[:10], *self.unfinished[:10]])


class Watch:
    """Who is connected, looked at a hundred times a second."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._away_since_s: dict[DeviceName, float] = {}
        self._absences_s: list[float] = []

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            now_s = time.monotonic()
            for device in self._crowd.devices:
                here = device.client is not None and isinstance(device.client.state, Connected)
                since_s = self._away_since_s.get(device.name)
                if not here:
                    self._away_since_s.setdefault(device.name, now_s)
                elif since_s is not None:
                    self._absences_s.append(now_s - since_s)
                    del self._away_since_s[device.name]
            await asyncio.sleep(LOOK_S)

    @property
    def are_all_here(self) -> bool:
        """Nobody is away now."""
        return not self._away_since_s

    def longest_s(self) -> float:
        """The longest absence that ended since the last call."""
        absences_s, self._absences_s = self._absences_s, []
        return max(absences_s, default=0.0)


@asynccontextmanager
async def gathered(cluster: Cluster, habits: Habits, seed: int) -> AsyncIterator[tuple[Crowd, Watch, Balancer]]:
    """A crowd that stays, talks, and reaches the nodes through a balancer."""
    async with balanced([node.tcp_port for node in cluster.nodes]) as balancer:
        any_node = SimpleNamespace(
            chatds={"any": SimpleNamespace(tcp_port=balancer.port)},
            doors={"clients-any": SimpleNamespace(port=balancer.port)},
            mint=Mint(cluster.nodes[0].data_dir),
        )
        crowd = Crowd(cast(Town, any_node), habits, seed)
        watch = Watch(crowd)
        await crowd.gather()
        crowd.is_settling.set()  # everybody stays
        async with asyncio.TaskGroup() as tasks:
            beside = [tasks.create_task(crowd.live()), tasks.create_task(watch.run())]
            try:
                await until(lambda: len(crowd.sessions) == len(crowd.devices))
                crowd.is_talking = True
                yield crowd, watch, balancer
            finally:
                for task in beside:
                    task.cancel()


async def until(is_so: object) -> None:
    """Until it is so."""
    assert callable(is_so)
    async with asyncio.timeout(SETTLE_S_MAX):
        while not is_so():  # noqa: ASYNC110 - looked at from outside
            await asyncio.sleep(LOOK_S)


async def roll(cluster: Cluster, habits: Habits, seed: int) -> Roll:
    """Restart everything of ours once."""
    outcome = Roll()
    async with gathered(cluster, habits, seed) as (crowd, watch, balancer):
        await until(lambda: watch.are_all_here)
        watch.longest_s()
        for daemon in (*cluster.nodes, *cluster.brokers):
            outcome.steps.append(await restarted(cluster, daemon, watch, balancer))
        crowd.is_talking = False
        ledger = crowd.ledger
        try:
            await until(lambda: watch.are_all_here and not ledger.unfinished())
        except TimeoutError:
            outcome.unfinished = [f"{label}: {', '.join(what)}" for label, what in ledger.unfinished().items()]
    counts = ledger.counts
    outcome.messages = counts["accepted"]
    outcome.lost = counts["lost"] + counts["gap"] + len(outcome.unfinished)
    outcome.duplicates, outcome.misordered = counts["duplicate"], counts["misordered"]
    outcome.breaches = [breach.text for breach in ledger.breaches]
    return outcome


async def restarted(cluster: Cluster, daemon: Daemon, watch: Watch, balancer: Balancer) -> Step:
    """SIGTERM, wait for its end, start it, wait until it serves and everybody is there again. The balancer sends nobody to
    it meanwhile, as one that asks for /readyz."""
    if isinstance(daemon, Chatd):
        balancer.out.add(daemon.tcp_port)
    begun_at, begun_s = time.time(), time.monotonic()
    code = await asyncio.to_thread(daemon.stop)
    ended_s = time.monotonic()
    await daemon.restart()
    if isinstance(daemon, Chatd):
        await asyncio.to_thread(daemon.wait_serving)
        balancer.out.clear()
    ready_s = time.monotonic()
    await until(lambda: watch.are_all_here)
    slots = Counter(int((at - begun_at) / SLOT_S) for at in logins(cluster, begun_at))
    moved = slots.total()
    span = max(slots) - min(slots) + 1 if slots else 1
    return Step(
        daemon.log_path.stem, code, ended_s - begun_s, ready_s - ended_s, moved, watch.longest_s(),
        max(slots.values(), default=0), moved / span,
    )  # fmt: skip


def logins(cluster: Cluster, since: float) -> Iterator[float]:
    """When sessions were opened, by the nodes' logs (Unix time)."""
    for node in cluster.nodes:
        for line in node.log_path.read_text(errors="replace").splitlines():
            if '"session_opened"' in line:
                at = datetime.fromisoformat(json.loads(line)["time"]).timestamp()
                if at >= since:
                    yield at
