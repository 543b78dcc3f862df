"""Loses one machine after the other under load, and says what the senders and the receivers noticed of it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.chaos.crowd import Crowd, Habits
from tests.chaos.ledger import Ledger
from tests.chaos.quiet import noise
from tests.multi.town import MultiTown

AWAY_S: Final = 6.0  # a machine stays lost for so long, and until somebody else took its place
SETTLED_S: Final = 2.0  # watched after all is whole again
WHOLE_S_MAX: Final = 180.0
DRAIN_S_MAX: Final = 120.0
CALM_S: Final = 8.0
FROZEN_S: Final = 15.0  # less than RabbitMQ's net_ticktime, so that the cluster stays one
LOOK_S: Final = 0.2
TWO_RABBITS: Final = "two RabbitMQ nodes of three"


class Row(NamedTuple):
    """What one loss did. Seconds; `silence_s`: nobody at all got an ACCEPTED for so long."""

    what: str
    silence_s: float
    accepted_s_max: float  # a message from post to ACCEPTED
    dark_s: float  # nobody saw a message for so long
    seen_s_max: float  # a message from post to its first sight
    whole_s: float  # from the kill until nothing was missing any more


@dataclass(slots=True)
class Verdict:
    """The end of a run."""

    ledger: Ledger
    rows: list[Row] = field(default_factory=list)
    noise: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Nothing lost, doubled, misordered, and all quiet in the end."""
        return not self.ledger.breaches and not self.noise

    @property
    def line(self) -> str:
        """The run in one line."""
        counts = self.ledger.counts
        lost = counts["lost"] + counts["gap"] + len(self.ledger.unfinished())
        return (
            f"messages {counts['accepted']}, seen {counts['seen']}, lost {lost}, "
            f"duplicates {counts['duplicate']}, misordered {counts['misordered']}"
        )

    @property
    def story(self) -> str:
        """What was wrong."""
        breaches = [f"{breach.kind}: {breach.text}" for breach in self.ledger.breaches]
        labels = dict.fromkeys(breach.label for breach in self.ledger.breaches if breach.label)
        traces = [line for label in list(labels)[:5] for line in self.ledger.trace(label)]
        return "\n".join([*breaches[:30], *(f"still: {text}" for text in self.noise[:30]), *traces])

    @property
    def table(self) -> str:
        """The rows, for people."""
        lines = [
            "| lost | nobody ACCEPTED for | longest wait for ACCEPTED | nobody saw a message for | longest way to a receiver | whole after |",
            "|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {row.what} | {row.silence_s:.1f} s | {row.accepted_s_max:.1f} s | {row.dark_s:.1f} s "
            f"| {row.seen_s_max:.1f} s | {row.whole_s:.0f} s |"
            for row in self.rows
        ]
        return "\n".join(lines)


class Losses:
    """`async with Losses(folder) as losses:` starts everything and a crowd that talks; then lose, and `await end()`."""

    def __init__(
        self, folder: Path, habits: Habits, *, tell: Callable[[str], None] = lambda text: None, **town: Any
    ) -> None:
        self.town = MultiTown(folder, **town)
        self.crowd = Crowd(self.town, habits, 1)
        self.rows: list[Row] = []
        self._tell = tell
        self._life: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Losses:
        try:
            self._tell("starting three RabbitMQ nodes, three Redis, three sentinels, two chatd, two brokerd")
            await self.town.start()
            await self.crowd.gather()
        except BaseException:
            await self.town.close()
            raise
        self.crowd.is_settling.set()  # everybody stays where they are: what is measured is the loss
        self.crowd.is_talking = True
        self._life = asyncio.create_task(self.crowd.live())
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._life is not None
        self._life.cancel()
        await asyncio.wait([self._life])
        await self.town.close()

    # --- losses

    async def calm(self) -> None:
        """Nothing is lost: what is usual here."""
        begun_s = self.crowd.ledger.now_s()
        await asyncio.sleep(CALM_S)
        self._note("nothing", begun_s, 0.0)

    async def lose_rabbit(self, number: int, *, comes_back: bool = True) -> None:
        """One RabbitMQ node dies, whoever is connected to it and whatever it leads."""
        node = self.town.rabbit.nodes[number]
        await self._lose(f"RabbitMQ node {number + 1}", node, asyncio.sleep(AWAY_S), comes_back=comes_back)

    async def lose_two_rabbits(self) -> None:
        """Two RabbitMQ nodes of three die: there is no quorum, and nothing may be accepted."""
        begun_s = self._begin(TWO_RABBITS)
        nodes = self.town.rabbit.nodes[:2]
        await asyncio.gather(*(asyncio.to_thread(node.kill9) for node in nodes))
        await asyncio.sleep(AWAY_S)
        await asyncio.gather(*(asyncio.to_thread(node.start) for node in nodes))
        await self.town.wait_whole(WHOLE_S_MAX)
        await self._finish(TWO_RABBITS, begun_s)

    async def freeze_rabbit(self, number: int) -> None:
        """One RabbitMQ node stands still, as behind a cut cable, and goes on later."""
        node = self.town.rabbit.nodes[number]
        await self._freeze(f"RabbitMQ node {number + 1} frozen for {FROZEN_S:.0f} s", node.pid, asyncio.sleep(FROZEN_S))

    async def lose_redis(self, number: int) -> None:
        """One Redis dies; when it was the primary, the sentinels must find another."""
        server = self.town.redis.servers[number]
        if server is await asyncio.to_thread(self.town.redis.wait_primary):
            await self.lose_primary()
        else:
            await self._lose("Redis replica", server, asyncio.sleep(AWAY_S))

    async def lose_primary(self, *, comes_back: bool = True) -> None:
        """The Redis that is the primary now."""
        redis = self.town.redis
        server = await asyncio.to_thread(redis.wait_primary)
        follows = asyncio.to_thread(redis.wait_primary, server, WHOLE_S_MAX)
        await self._lose("Redis primary", server, follows, comes_back=comes_back)

    async def freeze_primary(self) -> None:
        """The Redis primary stands still until there is another one, goes on, and takes itself for the primary still."""
        redis = self.town.redis
        server = await asyncio.to_thread(redis.wait_primary)

        async def follows() -> None:
            await asyncio.to_thread(redis.wait_primary, server, WHOLE_S_MAX)
            await asyncio.sleep(SETTLED_S)

        await self._freeze("Redis primary frozen until another one is", server.pid, follows())

    async def lose_sentinel(self, number: int) -> None:
        """One sentinel."""
        await self._lose(f"sentinel {number + 1}", self.town.redis.sentinels[number], asyncio.sleep(AWAY_S))

    async def _lose(self, what: str, part: Any, away: Awaitable[Any], *, comes_back: bool = True) -> None:
        begun_s = self._begin(what)
        await asyncio.to_thread(part.kill9)
        await away
        if comes_back:
            await asyncio.to_thread(part.start)
            await self.town.wait_whole(WHOLE_S_MAX)
        await self._finish(what, begun_s)

    async def _freeze(self, what: str, pid: int, away: Awaitable[Any]) -> None:
        begun_s = self._begin(what)
        os.kill(pid, signal.SIGSTOP)
        try:
            await away
        finally:
            os.kill(pid, signal.SIGCONT)
        await self.town.wait_whole(WHOLE_S_MAX)
        await self._finish(what, begun_s)

    def _begin(self, what: str) -> float:
        self._tell(f"lost: {what}")
        return self.crowd.ledger.now_s()

    async def _finish(self, what: str, begun_s: float) -> None:
        now_s = self.crowd.ledger.now_s()
        await self._heard_again(now_s)
        await asyncio.sleep(SETTLED_S)
        self._note(what, begun_s, now_s - begun_s)

    async def _heard_again(self, since_s: float) -> None:
        """Until a message that was posted after that has been seen."""
        ledger = self.crowd.ledger

        def is_heard() -> bool:
            recent = list(ledger.messages.values())[-200:]
            return any(message.seen and message.accepted_s and message.posted_s > since_s for message in recent)

        if not await self.crowd.until(is_heard, WHOLE_S_MAX):
            ledger.breach("stuck", f"nothing is delivered {WHOLE_S_MAX:.0f} s after the loss")

    def _note(self, what: str, begun_s: float, whole_s: float) -> None:
        ledger, end_s = self.crowd.ledger, self.crowd.ledger.now_s()
        of_now = [message for message in ledger.messages.values() if message.posted_s >= begun_s - 1.0]
        accepted = [message.accepted_s for message in of_now if message.accepted_s is not None]
        seen = [min(at_s for at_s, _ in message.seen.values()) for message in of_now if message.seen]
        waits = [m.accepted_s - m.posted_s for m in of_now if m.accepted_s is not None]
        ways = [min(at_s for at_s, _ in m.seen.values()) - m.posted_s for m in of_now if m.seen]
        silence_s, dark_s = _widest(accepted, begun_s, end_s), _widest(seen, begun_s, end_s)
        row = Row(what, silence_s, max(waits, default=0.0), dark_s, max(ways, default=0.0), whole_s)
        self.rows.append(row)
        self._tell(f"{what}: nobody ACCEPTED for {silence_s:.1f} s, nobody saw a message for {dark_s:.1f} s")

    # --- the end

    async def end(self) -> Verdict:
        """No more talk: everything that was accepted must come, and then all must be quiet."""
        self._tell("draining")
        crowd = self.crowd
        crowd.settle()
        end_s = crowd.ledger.now_s() + DRAIN_S_MAX
        while (loud := await noise(self.town, crowd)) and crowd.ledger.now_s() < end_s:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_S)
        return Verdict(crowd.ledger, self.rows, loud)


def _widest(times_s: Iterable[float], from_s: float, to_s: float) -> float:
    """The longest time between two of them, or between one of them and an end."""
    inside = sorted(at_s for at_s in times_s if from_s <= at_s <= to_s)
    edges = [from_s, *inside, to_s]
    return max(after - before for before, after in pairwise(edges))
