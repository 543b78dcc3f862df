"""Traces in Redis: a list of hops for each message, and one sorted set by which the oldest are found.

t:{ID in hex}   list   hops, msgpack; expires by itself
traces          zset   id in hex → time of the last hop (ms)
"""

from __future__ import annotations

from collections.abc import Sequence

import msgpack

from brokerd.links.redis_scripts import Script, ask
from brokerd.links.resp import RespLink
from brokerd.support_ports import HOPS_MAX, Hop, in_order


class RedisTraces:
    """Traces behind a RespLink. See brokerd.support_ports.Traces for the contract."""

    def __init__(self, link: RespLink, *, messages_max: int, keep_s: float) -> None:
        self._link = link
        self._bounds = (messages_max, int(keep_s * 1000), HOPS_MAX)
        self._trace = Script(link, "trace", keys=1)

    async def add(self, hops: Sequence[Hop]) -> None:
        """One script for all."""
        args: list[str | int | bytes] = []
        for hop in hops:
            args += (hop.id.hex(), hop.at_ms, msgpack.packb(hop[1:]))
        await ask(self._link, self._trace("traces", *self._bounds, *args))

    async def find(self, id_: bytes) -> list[Hop]:
        """The hops of one message."""
        packed = await ask(self._link, ("LRANGE", f"t:{id_.hex()}", 0, -1))
        return in_order([Hop(id_, *msgpack.unpackb(hop)[: len(Hop._fields) - 1]) for hop in packed])
