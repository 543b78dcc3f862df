"""How many brokerd there are. RabbitMQ does not say: of a single active consumer it counts only the active one."""

from __future__ import annotations

from brokerd.links.redis_scripts import Script
from brokerd.links.resp import RespLink
from brokerd.ports import LinkDown

KEY = "brokers"


class RedisBrokers:
    """The key `brokers`: the processes by the time until which each counts (ms, of the clock of Redis)."""

    def __init__(self, link: RespLink, name: str, lease_s: float) -> None:
        """`name` must be of this process alone."""
        self._link = link
        self._present = Script(link, "present", 1)
        self._name, self._lease_ms = name, int(lease_s * 1000)

    async def count(self) -> int:
        """Say that this one is there; how many are, at least 1. A Redis that cannot tell: 1, nobody to share with."""
        try:
            [reply] = await self._link.pipeline([self._present(KEY, self._name, self._lease_ms)])
        except LinkDown:
            return 1
        return max(1, reply) if isinstance(reply, int) else 1
