"""The sent_queue of one process alone: one SQLite file, fsynced in groups.

The parts: sqlite_schema (tables, statements), sqlite_state and sqlite_ledger (cache, journal and
transaction), sqlite_moves and sqlite_upkeep (what the calls do), sqlite_writer (group commit), file_sync (the wait for the disk).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol

from brokerd.links import sqlite_moves as moves
from brokerd.links import sqlite_upkeep as upkeep
from brokerd.links.sqlite_writer import GroupWriter, Statistics
from brokerd.ports import Ack, Acked, Append, Appended, LinkDown, Opened, Owed, Page, QueueStatus, Seat

COUNT_MAX_DEFAULT: Final = 10_000
BYTES_MAX_DEFAULT: Final = 64 * 1024 * 1024
RETENTION_S_DEFAULT: Final = 30 * 24 * 3600
PROBE_S: Final = 1.0


class Seating(Protocol):
    """A register that answers at once, in this process."""

    def seats_now(self, user: str) -> Sequence[Seat]:
        """The seats of one user at this very moment."""


class SqliteSentQueue:
    """SentQueue in the file `path`. `async with`, or start and close. Other processes may open the same file.

    register: asked for seats by `append`, after the commit; None (chatctl): appends answer without seats.
    count_max, bytes_max: bounds of one user's queue. retention_s: how long a device that stays away holds entries back.

    Measured (2 cores, a virtual SSD; appended and then acknowledged, 150 B, 100 users x 5 entries a batch, one batch in
    flight, the caller included): 94,000 to 129,000 messages a second, 7 to 9 µs of CPU each, an append 2.4 to 3.6 ms at
    the median and 8 ms at the 99th percentile; 65,000 to 101,000 when every message asks for a receipt.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        register: Seating | None = None,
        count_max: int = COUNT_MAX_DEFAULT,
        bytes_max: int = BYTES_MAX_DEFAULT,
        retention_s: float = RETENTION_S_DEFAULT,
    ) -> None:
        self._writer = GroupWriter(Path(path))
        self._register = register
        self._bounds = moves.Bounds(count_max, bytes_max)
        self._retention_ms = int(retention_s * 1000)

    async def start(self) -> None:
        """Open or make the file. Raises StoreTooNew (a newer version wrote it), LinkDown."""
        await self._writer.start()

    async def close(self) -> None:
        """Carry out what waits, then close. Calls that come later raise LinkDown."""
        await self._writer.close()

    async def __aenter__(self) -> SqliteSentQueue:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def trouble(self) -> str:
        """Why the file took no append lately ("database or disk is full"); "" when the last one was taken."""
        return self._writer.trouble

    async def watch(self) -> None:
        """While there is trouble and nobody tries an append, try to write a little, so that `trouble` is of now. Until
        cancelled."""
        failed = 0
        while True:
            await asyncio.sleep(PROBE_S)
            if self.trouble and self._writer.statistics().failed == failed:
                with suppress(LinkDown):
                    await self._writer.call(upkeep.probe, ordered=True)
            failed = self._writer.statistics().failed

    def statistics(self) -> Statistics:
        """Commits, calls answered, calls failed."""
        return self._writer.statistics()

    async def append(self, appends: Sequence[Append], now_ms: int) -> list[Appended]:
        """Save, then look up: the seats are those of the moment after the commit."""
        run = partial(moves.append, appends=appends, bounds=self._bounds, now_ms=now_ms)
        is_warm = partial(moves.append_is_warm, appends=appends)
        saved = await self._writer.call(run, ordered=True, is_warm=is_warm)
        return [
            Appended(results, head, self._seats(item.user))
            for item, (results, head) in zip(appends, saved, strict=True)
        ]

    def _seats(self, user: str) -> Sequence[Seat]:
        return self._register.seats_now(user) if self._register is not None else ()

    async def leave_open(self, user: str, origin: bytes, cid: int, now_ms: int) -> None:
        """Keep a cid that was not taken."""
        run = partial(moves.leave_open, user=user, key=origin, cid=cid, now_ms=now_ms)
        is_warm = partial(moves.leave_open_is_warm, user=user, key=origin)
        await self._writer.call(run, ordered=True, is_warm=is_warm)

    async def acknowledge(self, acks: Sequence[Ack], now_ms: int) -> list[Acked]:
        """Move cursors, trim, and give what is owed (at most moves.OWED_MAX entries for one ack)."""
        run = partial(moves.acknowledge, acks=acks, now_ms=now_ms)
        return await self._writer.call(run, is_warm=partial(moves.acknowledge_is_warm, acks=acks))

    async def open(self, user: str, device: str, fresh_generation: bytes, now_ms: int) -> Opened:
        """Make user and device known; forget the devices that stayed away for too long."""
        return await self._writer.call(
            lambda it: moves.open_device(it, user, device, fresh_generation, self._retention_ms, now_ms)
        )

    async def read(self, user: str, after: int, count_max: int, bytes_max: int) -> Page:
        """The entries behind `after`."""
        return await self._writer.call(lambda it: moves.read(it, user, after, count_max, bytes_max), writes=False)

    async def heads(self, users: Sequence[str]) -> list[int]:
        """The newest seq of each user."""
        return await self._writer.call(lambda it: moves.heads(it, users), writes=False)

    async def note_trouble(self, user: str, device: str, reason: int, at_ms: int) -> None:
        """Keep why delivery to a device last stopped."""
        await self._writer.call(lambda it: upkeep.note_trouble(it, user, device, reason, at_ms))

    async def expired(self, user: str, now_ms: int, count_max: int) -> list[Owed]:
        """Entries whose time is over."""
        return await self._writer.call(lambda it: upkeep.expired(it, user, now_ms, count_max))

    async def bury(self, user: str, seqs: Sequence[int], reason: int, now_ms: int) -> None:
        """Turn entries into tombstones."""
        await self._writer.call(lambda it: upkeep.bury(it, user, seqs, reason))

    async def due(self, now_ms: int, count_max: int) -> list[str]:
        """Users to be swept, the longest due first."""
        return await self._writer.call(lambda it: upkeep.due(it, now_ms, count_max))

    async def create_user(self, user: str, fresh_generation: bytes, now_ms: int) -> bool:
        """Make a user known."""
        return await self._writer.call(lambda it: upkeep.create_user(it, user, fresh_generation))

    async def delete_user(self, user: str) -> bool:
        """Forget a user."""
        return await self._writer.call(lambda it: upkeep.delete_user(it, user))

    async def has_user(self, user: str) -> bool:
        """Whether the user exists."""
        return await self._writer.call(lambda it: upkeep.has_user(it, user), writes=False)

    async def status(self, user: str) -> QueueStatus | None:
        """The state of a user's queue."""
        return await self._writer.call(lambda it: upkeep.status(it, user), writes=False)
