"""A simulated process and its link to the store: slow, broken at times, and dead with its process; what left before it
died may still arrive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

from brokerd.ports import LinkDown
from tests.sim.odds import Odds

STEP_S = 1e-6  # timers of one instant have no order: what must stay in order is this far apart
DELAY_S_MAX = 0.03  # of one way over a link


class Process:
    """One chatd or brokerd. `die` is kill -9: nothing that it does afterwards has an effect."""

    def __init__(
        self, name: str, loop: asyncio.AbstractEventLoop, random: Random, odds: Callable[[], Odds], delay_s_max: float = DELAY_S_MAX
    ) -> None:  # fmt: skip
        self.name, self.loop, self.random, self._odds, self._delay_s_max = name, loop, random, odds, delay_s_max
        self.is_alive = True
        self.frozen_until_s = 0.0
        self.store_down_until_s = 0.0
        self.task: asyncio.Task[None] | None = None
        self.at_death: list[Callable[[], None]] = []

    @property
    def odds(self) -> Odds:
        return self._odds()

    def has(self, ratio: float) -> bool:
        """A throw of this process' own dice."""
        return bool(ratio) and self.random.random() < ratio

    def soon(self, last_s: float) -> float:
        """A little later, behind `last_s`, and not while it is frozen."""
        delay_s = self.random.random() ** 3 * self._delay_s_max
        return max(last_s + STEP_S, self.loop.time() + delay_s, self.frozen_until_s)

    def die(self) -> None:
        if self.is_alive:
            self.is_alive = False
            for tell in self.at_death:
                tell()
            if self.task is not None:
                self.loop.call_soon(self.task.cancel)


class StoreLink:
    """SentQueue and Register of one process: calls arrive in order, answers come in order, either may be lost."""

    def __init__(self, process: Process, store: Any) -> None:
        self._process, self._store = process, store
        self._asked_s = self._answered_s = 0.0
        self._has_ended = False

    def __getattr__(self, name: str) -> Any:
        act = getattr(self._store, name)

        async def call(*args: Any) -> Any:
            loop, answer = self._process.loop, self._process.loop.create_future()
            if self._process.is_alive:  # what a dying task still asks for has never left
                self._asked_s = self._process.soon(self._asked_s)
                loop.call_at(self._asked_s, self._arrive, act, args, answer)
            return await answer

        return call

    def _arrive(self, act: Callable[..., Any], args: Any, answer: asyncio.Future[Any]) -> None:
        process, odds = self._process, self._process.odds
        if not process.is_alive:
            self._has_ended = self._has_ended or process.random.random() < 0.5
            if not self._has_ended:
                act(*args)  # it had left
            return
        fault: Exception | None = None
        result = None
        if process.loop.time() < process.store_down_until_s or process.has(odds.store_down_before):
            fault = LinkDown("lost on its way there")
        else:
            result = act(*args)
            if process.has(odds.store_down_after):
                fault = LinkDown("lost on its way back")
        self._answered_s = process.soon(self._answered_s)
        process.loop.call_at(self._answered_s, self._answer, answer, result, fault)

    def _answer(self, answer: asyncio.Future[Any], result: Any, fault: Exception | None) -> None:
        if self._process.is_alive and not answer.done():
            if fault is not None:
                answer.set_exception(fault)
            else:
                answer.set_result(result)
