"""Redis behind the ports: one connection, one SentQueue, one Register."""

from __future__ import annotations

from typing import Any

from brokerd.links.redis_queue import BYTES_MAX_DEFAULT, COUNT_MAX_DEFAULT, RETENTION_S_DEFAULT, RedisSentQueue
from brokerd.links.redis_register import RedisRegister
from brokerd.links.resp import RespLink


class RedisStore(RedisSentQueue, RedisRegister):
    """SentQueue and Register on one RespLink, which the owner runs: `tasks.create_task(link.run())`.

    For the arguments see RedisSentQueue.
    """

    def __init__(
        self, link: RespLink, *, log: Any,
        count_max: int = COUNT_MAX_DEFAULT, bytes_max: int = BYTES_MAX_DEFAULT, retention_s: float = RETENTION_S_DEFAULT,
    ) -> None:  # fmt: skip
        RedisSentQueue.__init__(self, link, log=log, count_max=count_max, bytes_max=bytes_max, retention_s=retention_s)
        RedisRegister.__init__(self, link)
