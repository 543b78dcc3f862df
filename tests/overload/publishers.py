"""Publishers that are faster than the system, and crowds that meet at one place (L03)."""

from __future__ import annotations

from typing import Any

from protocol.errors import Code
from tests.overload.crowd import Child
from tests.overload.site import Row, Site, Watched, check_ledger, watched


async def too_fast(site: Site, seconds: float = 10.0, pairs: int = 50) -> Row:
    """Senders that write whatever their sockets take, without waiting for any answer."""
    return await _flood(site, "publishers without a window", 10, seconds=seconds, senders=pairs, receivers=pairs)


async def noisy(site: Site, seconds: float = 10.0) -> Row:
    """One user alone does the same."""
    return await _flood(site, "L03 one noisy user", 20, seconds=seconds, senders=1, receivers=1)


async def many_to_one(site: Site, seconds: float = 10.0, senders: int = 200) -> Row:
    """All talk to one device, each with a window as clients have it."""
    name = f"L03 {senders} senders to one device"
    return await _flood(site, name, 30, seconds=seconds, senders=senders, receivers=1, window=64)


async def one_to_many(site: Site, seconds: float = 10.0, receivers: int = 1000) -> Row:
    """One talks to all."""
    name = f"L03 one sender to {receivers} devices"
    return await _flood(site, name, 40, seconds=seconds, senders=1, receivers=receivers)


async def _flood(site: Site, name: str, net: int, **spec: Any) -> Row:
    async with (
        Child(site.spec("flood", f"f{net}n", net, **spec)) as crowd,
        watched(site, name) as it,
    ):
        it.row.check(set((await crowd.line())["answers"]) == {"None"}, "not all could log in")
        await flooded(crowd, it)
    return it.row


async def flooded(crowd: Child, it: Watched) -> dict[str, Any]:
    """Let a flood run to its end; its figures."""
    crowd.say("go")
    during = await crowd.line()
    it.pair.begin("after")
    figures = await crowd.line()
    check_ledger(it.row, figures)
    rate = during["accepted"] / during["took_s"]
    it.row.told.append(_words(figures))
    it.row.facts |= {"accepted_per_s": round(rate), "drained_s": figures["drained_s"], "failed": figures["failed"]}
    it.row.check(not figures["ended"], f"{figures['ended']} senders were cut")
    return figures


def _words(figures: dict[str, Any]) -> str:
    codes = [f"{Code(int(code)).name} {count}x" for code, count in sorted(figures["codes"].items())]
    if figures["failed"]:
        codes.append(f"FAILED in a RECEIPT {figures['failed']}x")
    return ", ".join(codes) if codes else "nothing: their sockets are read more slowly"
