"""Redis behind the ports: one connection, one SentQueue, one Register."""

from __future__ import annotations

from brokerd.links.redis_queue import RedisSentQueue
from brokerd.links.redis_register import RedisRegister


class RedisStore(RedisSentQueue, RedisRegister):
    """SentQueue and Register on one RespLink, which the owner runs: `tasks.create_task(link.run())`.

    Arguments: see RedisSentQueue.
    """
