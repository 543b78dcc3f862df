"""Redis behind the ports: one connection, one SentQueue, one Register."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from brokerd.links.redis_queue import BYTES_MAX_DEFAULT, COUNT_MAX_DEFAULT, RETENTION_S_DEFAULT, RedisSentQueue
from brokerd.links.redis_register import RedisRegister
from brokerd.links.resp import RespLink
from brokerd.ports import NO_USER, Append, Appended, Opened


class RedisStore(RedisSentQueue, RedisRegister):
    """SentQueue and Register on one RespLink, which the owner runs: `tasks.create_task(link.run())`.

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

    async def has_user(self, user: str) -> bool:
        """See RedisSentQueue."""
        is_there = await super().has_user(user)
        if not is_there:
            await self._link.check()
        return is_there
