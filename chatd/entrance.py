"""The entrance of a node whose register and sent_queue are not one store: one step behind the other."""

from __future__ import annotations

from collections.abc import Sequence

from brokerd.ports import Entered, Register, Seat, SentQueue


class InTurn:
    """brokerd.ports.Entrance on any register and sent_queue."""

    def __init__(self, register: Register, sent_queue: SentQueue) -> None:
        self._register = register
        self._sent_queue = sent_queue

    async def enter(
        self, user: str, seat: Seat, former: Seat | None, fresh_generation: bytes, now_ms: int
    ) -> Entered:  # fmt: skip
        """See Entrance."""
        other = await self._register.claim(user, seat, former)
        opened = await self._sent_queue.open(user, seat.device, fresh_generation, now_ms)
        [seats] = await self._register.seats([user])
        return Entered(other, opened, seats)

    async def leave(self, places: Sequence[tuple[str, Seat]]) -> None:
        """See Entrance."""
        for user, seat in places:
            await self._register.release(user, seat)
