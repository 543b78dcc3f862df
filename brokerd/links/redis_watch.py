"""Looks at Redis once a second: is there room, does it take writes.

Redis with `maxmemory` and `noeviction` refuses what may grow it once it is full. Senders should hear BUSY before that: a
store that is full takes no append, and what was accepted then waits in RabbitMQ, in front of the ACKs of its shard.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from hiredis import ReplyError

from brokerd.links.resp import RespLink
from brokerd.ports import LinkDown

LOOK_S: Final = 1.0
FULL_FROM: Final = 0.90  # of maxmemory: no new messages
FULL_UNTIL: Final = 0.80  # until so little is used again


class RedisWatch:
    """`run` is its task; the rest is what it saw last."""

    def __init__(self, link: RespLink, log: Any) -> None:
        self.full = ""  # why no new messages should be taken; "" = there is room
        self._refuses = ""  # why Redis takes no writes
        self._link = link
        self._log = log

    @property
    def state(self) -> str:
        """For people: "up" or what is wrong."""
        if not self._link.is_ready:
            return "not connected"
        return self._refuses or self.full or "up"

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                ping, info = await self._link.pipeline([("PING",), ("INFO", "memory")])
            except LinkDown:
                self._see("", "")  # which is a trouble of its own
            else:
                # PING answers MISCONF when the append-only file cannot be written
                refuses = f"takes no writes: {str(ping).partition(' ')[0]}" if isinstance(ping, ReplyError) else ""
                self._see(refuses, "" if isinstance(info, ReplyError) else self._fullness(info))
            await asyncio.sleep(LOOK_S)

    def _fullness(self, info: bytes) -> str:
        fields = dict(line.split(b":", 1) for line in info.splitlines() if b":" in line)
        used, bound = int(fields.get(b"used_memory", 0)), int(fields.get(b"maxmemory", 0))
        mark = FULL_UNTIL if self.full else FULL_FROM
        return f"nearly full: {used} of maxmemory {bound} bytes" if bound and used >= mark * bound else ""

    def _see(self, refuses: str, full: str) -> None:
        if (bool(refuses), bool(full)) != (bool(self._refuses), bool(self.full)):
            self._log.warning("redis_state_changed", state=refuses or full or "there is room")
        self._refuses, self.full = refuses, full
