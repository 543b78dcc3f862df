"""Every queue of a Redis begins another life: for a store that was restored from an older copy.

Its queues end before the seqs that devices know, and the next messages get those seqs again. With the old generations a
device that comes back once its queue has grown past its position would take them for seen, and nobody would ever know.
"""

from __future__ import annotations

import os
from typing import Final

from brokerd.links.redis_scripts import Script, ask, is_broken
from brokerd.links.resp import RespLink
from protocol.wire import GENERATION_BYTES

KEYS_AT_ONCE: Final = 1000
_QUEUES: Final = "u:{*}:m"


async def renew_queues(link: RespLink) -> int:
    """Give each queue a generation that none had; how many. Raises LinkDown: then do it again."""
    renew = Script(link, "renew", keys=1, frees=True)
    cursor, count = b"0", 0
    while True:
        cursor, keys = await ask(link, ("SCAN", cursor, "MATCH", _QUEUES, "COUNT", KEYS_AT_ONCE))
        replies = await link.pipeline([renew(key, os.urandom(GENERATION_BYTES)) for key in keys], is_save=True)
        count += sum(int(reply) for reply in replies if not is_broken(reply))
        if cursor == b"0":
            return count
