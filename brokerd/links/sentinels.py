"""Who the primary is, as the sentinels say. Asked all at once; the newest configuration among their answers counts, so
that a sentinel that was away for a while misleads nobody once more than half have answered.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, NamedTuple

import hiredis

from brokerd.links.resp_stream import Command, Limits, RespStream
from brokerd.links.resp_url import Address, RedisUrl
from brokerd.ports import LinkDown

ASK_S_MAX: Final = 1.0  # a sentinel that is silent for longer is left out
_LIMITS: Final = Limits(call_s_max=ASK_S_MAX)


class Primary(NamedTuple):
    """Where it is; `epoch` grows with every failover."""

    epoch: int
    address: Address


async def find_primary(url: RedisUrl) -> Primary:
    """Ask the sentinels of `url`. Raises LinkDown when none of them knows a primary of that name."""
    asked = [asyncio.get_running_loop().create_task(_ask(url, sentinel)) for sentinel in url.sentinels]
    told: list[Primary] = []
    why = ""
    try:
        for one in asyncio.as_completed(asked):
            try:
                told.append(await one)
            except (OSError, LinkDown) as down:
                why = str(down) or type(down).__name__
            if len(told) > len(asked) // 2:
                break
    finally:
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
    if not told:
        raise LinkDown(f"no sentinel knows where the primary is ({why})")
    return max(told)


async def _ask(url: RedisUrl, sentinel: Address) -> Primary:
    shown = f"{sentinel[0]}:{sentinel[1]}"
    async with asyncio.timeout(ASK_S_MAX):
        loop = asyncio.get_running_loop()
        _, stream = await loop.create_connection(lambda: RespStream(_LIMITS, f"sentinel {shown}"), *sentinel)
        try:
            login: list[Command] = [] if url.sentinel_password is None else [("AUTH", url.sentinel_password)]
            replies, _ = await stream.call(
                [
                    *login,
                    ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", url.primary),
                    ("SENTINEL", "MASTER", url.primary),
                ]
            )
        finally:
            stream.abort("answered")
    return _read(shown, *replies[-2:])


def _read(shown: str, address: Any, master: Any) -> Primary:
    for reply in (address, master):
        if isinstance(reply, hiredis.ReplyError) or not reply:
            raise LinkDown(f"sentinel {shown}: {reply or 'does not know that name'}")
    about = dict(zip(master[::2], master[1::2], strict=True))
    return Primary(int(about[b"config-epoch"]), (address[0].decode(), int(address[1])))
