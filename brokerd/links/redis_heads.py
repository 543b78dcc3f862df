"""Up to which seq entries were handed out, kept beside the store: a server that lacks some of them is mended, and told of.

Replicas lag. When one of them becomes the primary, or when a server comes back without its last second, what was saved
there last is gone, and without this its seqs would be given to other messages, which devices then take for seen.
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from typing import Any, Final

from brokerd.links.redis_scripts import Script
from brokerd.links.resp import Ask, RespLink
from brokerd.links.resp_stream import Command
from protocol.errors import Code
from protocol.wire import GENERATION_BYTES

USERS_MAX: Final = 20_000  # whose heads are known: those who were sent something last
TOMBSTONES_MAX: Final = 10_000  # of one user; whoever lacks more begins a new generation
USERS_AT_ONCE: Final = 500


class Heads:
    """The newest heads that one brokerd gave out. It is the only one that appends for these users."""

    def __init__(self, link: RespLink, log: Any) -> None:
        self._log = log
        self._heads: OrderedDict[str, int] = OrderedDict()
        self._mend = Script(link, "mend", keys=2)
        link.on_other_server(self.mend)

    def note(self, user: str, head: int) -> None:
        """The user's queue reaches up to `head`."""
        heads = self._heads
        heads[user] = head
        heads.move_to_end(user)
        if len(heads) > USERS_MAX:
            heads.popitem(last=False)

    async def mend(self, ask: Ask) -> None:
        """Compare with what this server has. Raises LinkDown."""
        known = list(self._heads.items())
        lost: dict[str, int] = {}
        for at in range(0, len(known), USERS_AT_ONCE):
            some = known[at : at + USERS_AT_ONCE]
            missing = await asyncio.gather(*(ask(self._command(user, head)) for user, head in some))
            lost.update((user, count) for (user, _), count in zip(some, missing, strict=True) if count)
        if lost:
            self._log.error(
                "store_went_back", entries=sum(lost.values()), users=len(lost), some=sorted(lost)[:10], of=len(known)
            )

    def _command(self, user: str, head: int) -> Command:
        base = "u:{" + user + "}:"
        return self._mend(
            base + "m", base + "q", head, int(Code.INTERNAL), TOMBSTONES_MAX, os.urandom(GENERATION_BYTES)
        )
