"""What a node asks of the sent_queues for its sessions, without making them wait: pages to deliver, and ACKs that cannot wait
for their shard. All that the switchboard awaits is here: it is compiled, and what is compiled awaits nothing (setup.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from brokerd.ports import Ack, LinkDown
from chatd.effects import ReadQueue
from chatd.feed import PAGE_BYTES_MAX

if TYPE_CHECKING:
    from chatd.line import Line
    from chatd.switchboard import Switchboard

READS_MAX: Final = 64  # backlog reads on their way: 64 pages of 256 KiB = 16 MiB


class Pages:
    """One for a switchboard."""

    def __init__(self, board: Switchboard) -> None:
        self._board = board
        self._reads = asyncio.Semaphore(READS_MAX)
        self._stalled: set[Line] = set()  # whose read failed: the store is down

    def lost(self, line: Line) -> None:
        """It asks for nothing any more."""
        self._stalled.discard(line)

    def take_stalled(self) -> set[Line]:
        """Whose page was not to be had; they may ask again."""
        stalled, self._stalled = self._stalled, set()
        return stalled

    async def read(self, line: Line, effect: ReadQueue) -> None:
        """Give the session its page."""
        board, session = self._board, line.session
        try:
            async with self._reads:
                if line.is_lost:
                    return
                page = await board.sent_queue.read(session.user, effect.after, effect.entries_max, PAGE_BYTES_MAX)
        except LinkDown:
            self._stalled.add(line)
            return
        if board.is_doubtful:
            self._stalled.add(line)
            return
        before = session.feed.expected
        session.page(page)
        board.tracer.paged(line, page, before)
        board.counts.delivered += len(page.entries)
        board.attend(line)

    async def acknowledge(self, acks: Sequence[Ack]) -> None:
        """Tell the store at once. What is owed for them is found when they come by the shard."""
        try:
            await self._board.sent_queue.acknowledge(acks, self._board.now_ms())
        except LinkDown as down:
            self._board.log.info("acks_put_off", error=str(down))
