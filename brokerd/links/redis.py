"""Redis behind the ports: one connection; SentQueue, Register, and Entrance, which asks both in one round trip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from brokerd.links.redis_queue import BYTES_MAX_DEFAULT, COUNT_MAX_DEFAULT, RETENTION_S_DEFAULT, RedisSentQueue
from brokerd.links.redis_register import RedisRegister, seat_of, seats_command, seats_of
from brokerd.links.redis_scripts import is_broken
from brokerd.links.resp import RespLink
from brokerd.links.resp_stream import Command
from brokerd.ports import NO_USER, Append, Appended, Entered, LinkDown, Opened, Seat


class RedisStore(RedisSentQueue, RedisRegister):
    """SentQueue, Register and Entrance on one RespLink, which the owner runs: `tasks.create_task(link.run())`.

    For the arguments see RedisSentQueue. Before it says that a user is not there, it asks whether this is still the store
    that was known (RespLink.check): a Redis that was emptied under us must not make strangers of all our users.
    """

    def __init__(
        self, link: RespLink, *, log: Any,
        count_max: int = COUNT_MAX_DEFAULT, bytes_max: int = BYTES_MAX_DEFAULT, retention_s: float = RETENTION_S_DEFAULT,
    ) -> None:  # fmt: skip
        RedisSentQueue.__init__(self, link, log=log, count_max=count_max, bytes_max=bytes_max, retention_s=retention_s)
        RedisRegister.__init__(self, link)
        self._link = link

    async def append(self, appends: Sequence[Append], now_ms: int) -> list[Appended]:
        """See RedisSentQueue."""
        appended = await super().append(appends, now_ms)
        if any(NO_USER in answer.results[:1] for answer in appended):  # all entries of a user, or none
            await self._link.check()
        return appended

    async def open(self, user: str, device: str, fresh_generation: bytes, now_ms: int) -> Opened:
        """See RedisSentQueue."""
        opened = await super().open(user, device, fresh_generation, now_ms)
        if opened.generation == fresh_generation:  # it was not there until now
            await self._link.check()
        return opened

    async def enter(
        self, user: str, seat: Seat, former: Seat | None, fresh_generation: bytes, now_ms: int
    ) -> Entered:  # fmt: skip
        """See ports.Entrance. One round trip; a second one for the leases, of a user who sits on other nodes as well."""
        commands = (
            self._claim_command(user, seat, former),
            self._open_command(user, seat.device, fresh_generation, now_ms),
            seats_command(user),
        )
        old, opening, flat = await self._asked(commands, is_save=True)
        other = None if old is None else seat_of(seat.device, old)
        if former is not None and old is not None and other is None:  # what stands in the way is no seat
            return await self.enter(user, seat, None, fresh_generation, now_ms)
        opened = Opened(*opening)
        if opened.generation == fresh_generation:  # it was not there until now
            await self._link.check()
        seats = seats_of(flat)
        if others := {one.node for one in seats} - {seat.node}:
            living = {seat.node, *await self._living(others)}
            seats = [one for one in seats if one.node in living]
        return Entered(other, opened, seats)

    async def leave(self, places: Sequence[tuple[str, Seat]]) -> None:
        """See ports.Entrance. One round trip."""
        await self._asked([self._release_command(user, seat) for user, seat in places])

    async def _asked(self, commands: Sequence[Command], *, is_save: bool = False) -> list[Any]:
        replies = await self._link.pipeline(commands, is_save=is_save)
        for reply in replies:
            if is_broken(reply):
                raise LinkDown(f"redis: {reply}")
        return replies

    async def has_user(self, user: str) -> bool:
        """See RedisSentQueue."""
        is_there = await super().has_user(user)
        if not is_there:
            await self._link.check()
        return is_there
