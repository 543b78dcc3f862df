"""Who the primary is, as the sentinels say. Asked all at once; the newest configuration among their answers counts, so
that a sentinel that was away for a while misleads nobody once more than half have answered.
"""

from __future__ import annotations

import asyncio
import ssl
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


async def find_primary(url: RedisUrl, tls: ssl.SSLContext | None = None) -> Primary:
    """Ask the sentinels of `url`. Raises LinkDown when none of them knows a primary of that name."""
    told: list[Primary] = []
    faults: list[str] = []
    is_enough = asyncio.Event()

    async def ask(sentinel: Address) -> None:
        try:
            told.append(await _ask(url, sentinel, tls))
        except (OSError, LinkDown) as down:
            faults.append(str(down) or type(down).__name__)
        if len(told) > len(url.sentinels) // 2 or len(told) + len(faults) == len(url.sentinels):
            is_enough.set()

    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(ask(sentinel)) for sentinel in url.sentinels]
        await is_enough.wait()
        for task in asked:
            task.cancel()
    if not told:
        raise LinkDown(f"no sentinel knows where the primary is ({faults[-1]})")
    return max(told)


async def _ask(url: RedisUrl, sentinel: Address, tls: ssl.SSLContext | None) -> Primary:
    shown = f"{sentinel[0]}:{sentinel[1]}"
    async with asyncio.timeout(ASK_S_MAX):
        loop = asyncio.get_running_loop()
        _, stream = await loop.create_connection(lambda: RespStream(_LIMITS, f"sentinel {shown}"), *sentinel, ssl=tls)
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
