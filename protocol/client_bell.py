"""Waiting for a condition: the loop that waits checks it again after each ring."""

from __future__ import annotations

import asyncio
from collections import deque


class Bell:
    """`while not condition: await bell.wait()`; who changes the condition rings. First come, first woken."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def wait(self) -> None:
        """Until the next ring that reaches this waiter."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.ring(1)  # this ring was for somebody who can use it
            elif waiter in self._waiting:
                self._waiting.remove(waiter)
            raise

    def ring(self, count: int | None = None) -> None:
        """Wake `count` waiters, or all."""
        while self._waiting and count != 0:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                count = None if count is None else count - 1
