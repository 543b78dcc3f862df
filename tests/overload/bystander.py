"""Two users who have nothing to do with it: one says a line now and then, the other hears it. How long both take counts
from when the line *should* have been said (an open loop), so a server that stalls cannot hide its stall.

They use the client that everybody uses: it waits, resends and reconnects by itself. In the end every line that was accepted
must have been heard, once and in order: the ledger.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from hdrh.histogram import HdrHistogram

from bench.tokens import Mint
from protocol.client import Backoff, Client, ClientClosed, OutgoingFull
from protocol.messages import Deliver
from tests.overload.bounds import BYSTANDER_PER_S, BYSTANDER_SETTLE_S_MAX

HOST: Final = "127.0.0.1"
US_MAX: Final = 600_000_000
_LINE: Final = struct.Struct(">Qd")  # its number, and when it should have been said
_numbers = itertools.count(int(time.time()))


def _histogram() -> HdrHistogram:
    return HdrHistogram(1, US_MAX, 3)


@dataclass(slots=True)
class Phase:
    """What was seen of the lines that were due in one phase (before, during, after)."""

    name: str
    said: int = 0
    accepted: HdrHistogram = field(default_factory=_histogram)
    delivered: HdrHistogram = field(default_factory=_histogram)

    def ms(self, what: str, percentile: float) -> float:
        """Of "accepted" or "delivered", in milliseconds; 0 when there was none."""
        histogram: HdrHistogram = getattr(self, what)
        return float(histogram.get_value_at_percentile(percentile)) / 1000 if histogram.total_count else 0.0


class Bystanders:
    """`async with bystanders(...) as pair:`; `pair.begin("during")` opens the next phase."""

    def __init__(self, speaker: Client, hearer: Client, hearer_name: str, per_s: float) -> None:
        self.phases: dict[str, Phase] = {}
        self.phase = Phase("warm-up")
        self.accepted: set[int] = set()
        self.heard: list[int] = []
        self.late_ms_max = 0.0  # how far this process was behind its own plan
        self.skipped = 0  # lines that the client had no room for any more
        self._speaker, self._hearer, self._to = speaker, hearer, hearer_name
        self._step_s = 1 / per_s
        self._open = 0
        self._is_talking = True
        self._of_line: dict[int, Phase] = {}
        self._news = asyncio.Event()

    def begin(self, name: str) -> Phase:
        """What is due from now on counts for this phase."""
        self.phase = self.phases[name] = Phase(name)
        return self.phase

    async def talk(self) -> None:
        """The speaker, until `settle`."""
        next_s = time.monotonic()
        for number in itertools.count():
            next_s += self._step_s
            await asyncio.sleep(max(0.0, next_s - time.monotonic()))
            if not self._is_talking:
                return
            self.late_ms_max = max(self.late_ms_max, (time.monotonic() - next_s) * 1e3)
            self._say(number, next_s)

    def _say(self, number: int, due_s: float) -> None:
        phase = self.phase
        try:
            answer = self._speaker.post(self._to, _LINE.pack(number, due_s))
        except OutgoingFull:
            self.skipped += 1
            return
        phase.said += 1
        self._of_line[number] = phase
        self._open += 1
        answer.add_done_callback(lambda done: self._answered(done, number, due_s))

    def _answered(self, done: asyncio.Future[bytes], number: int, due_s: float) -> None:
        self._open -= 1
        self._news.set()
        if not done.cancelled() and done.exception() is None:
            self.accepted.add(number)
            self._of_line[number].accepted.record_value(_us(due_s))

    async def hear(self) -> None:
        """The hearer."""
        async for message in self._hearer:
            if isinstance(message, Deliver):
                number, due_s = _LINE.unpack(message.payload)
                self.heard.append(number)
                self._of_line[number].delivered.record_value(_us(due_s))
                self._news.set()

    async def settle(self, s_max: float = BYSTANDER_SETTLE_S_MAX) -> list[str]:
        """Say no more; wait until all is answered and heard. What is wrong then, one line each."""
        self._is_talking = False
        try:
            async with asyncio.timeout(s_max):
                while self._open or len(self.heard) < len(self.accepted):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            pass
        return list(self._judge())

    def _judge(self) -> list[str]:
        wrong = []
        if self._open:
            wrong.append(f"bystanders: {self._open} lines have no answer")
        if lost := self.accepted - set(self.heard):
            wrong.append(f"bystanders: {len(lost)} accepted lines were lost")
        if len(set(self.heard)) != len(self.heard):
            wrong.append(f"bystanders: {len(self.heard) - len(set(self.heard))} lines came twice")
        if self.heard != sorted(self.heard):
            wrong.append("bystanders: lines came out of order")
        return wrong


def _us(due_s: float) -> int:
    return min(US_MAX, max(1, int((time.monotonic() - due_s) * 1e6)))


@asynccontextmanager
async def bystanders(
    speaker_port: int, hearer_port: int, mint: Mint, per_s: float = BYSTANDER_PER_S
) -> AsyncIterator[Bystanders]:
    """Two new users, connected and talking."""
    number = next(_numbers)
    names = [f"by{number}s", f"by{number}h"]

    def client(name: str, port: int) -> Client:
        backoff = Backoff(random.uniform, base_s=0.1, cap_s=1.0)
        return Client(HOST, port, name, "phone", token=mint.token(name), backoff=backoff, unanswered_max=10_000)

    async with client(names[0], speaker_port) as speaker, client(names[1], hearer_port) as hearer:
        await speaker.wait_connected()
        await hearer.wait_connected()
        pair = Bystanders(speaker, hearer, names[1], per_s)
        loops = [asyncio.create_task(pair.talk()), asyncio.create_task(pair.hear())]
        try:
            yield pair
        finally:
            for task in loops:
                task.cancel()
            ends = await asyncio.gather(*loops, return_exceptions=True)
    for end in ends:
        if isinstance(end, Exception) and not isinstance(end, ClientClosed):
            raise end
