"""What the dedupe in Redis remembers of one message: reads the hashes that brokerd/links/redis_queue.py describes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from brokerd.links.redis_queue import MONTH_MS
from brokerd.links.redis_scripts import is_broken
from brokerd.links.resp import RespLink
from brokerd.ports import LinkDown
from brokerd.support_ports import Standing
from protocol.wire import DEVICE_TAG_BYTES

_MONTHS_BACK: Final = (-1, 0, 1)  # the next one too: a clock may have been ahead
_KEY_CID: Final = 1  # what a key without a number counts as


class RedisMemory:
    """Memory behind a RespLink."""

    def __init__(self, link: RespLink) -> None:
        self._link = link

    async def standing(self, user: str, id_: bytes, now_ms: int) -> Standing:
        """See the port. An id does not say whether it was made of a cid or of a key: both are looked for."""
        month = now_ms // MONTH_MS
        places = [(b"=" + id_, _KEY_CID), (id_[:DEVICE_TAG_BYTES], int.from_bytes(id_[DEVICE_TAG_BYTES:], "big"))]
        commands = [
            ("HMGET", f"u:{{{user}}}:d:{month - back}", field, b"?" + field, b"!%b%d" % (field, cid))
            for field, cid in places
            for back in _MONTHS_BACK
        ]
        replies = await self._link.pipeline(commands)
        for reply in replies:
            if is_broken(reply):
                raise LinkDown(f"redis: {reply}")
        for at, (_, cid) in enumerate(places):
            found = _standing(cid, replies[at * len(_MONTHS_BACK) : (at + 1) * len(_MONTHS_BACK)])
            if found is not Standing.NEVER:
                return found
        return Standing.NEVER


def _standing(cid: int, months: Sequence[Sequence[bytes | None]]) -> Standing:
    """Of the months, the newest first, each: the highest cid, its gaps, whether this one was refused."""
    high, gaps = (next((month[at] for month in months if month[at] is not None), b"") for at in (0, 1))
    if cid > int(high or b"0") or _is_in_gap(cid, [int(word) for word in (gaps or b"").split()]):
        return Standing.NEVER
    return Standing.REFUSED if any(month[2] is not None for month in months) else Standing.TAKEN


def _is_in_gap(cid: int, gaps: Sequence[int]) -> bool:
    """Whether it can still be taken; for `gaps` see brokerd/links/gaps.py."""
    return any(first <= cid <= last for first, last in zip(gaps[::2], gaps[1::2], strict=True))
