"""L01: sessions that do nothing but live."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from tests.overload.bounds import IDLE_CPU_MAX, IDLE_SESSIONS, IDLE_TCP_KIB_MAX, IDLE_WS_KIB_MAX
from tests.overload.crowd import Child
from tests.overload.site import Row, Site, watched
from tests.overload.watch import cpu_s, rss_mib

CROWDS = 2  # processes: a process has 20,000 files


async def idle(site: Site, count: int = IDLE_SESSIONS, *, ws: bool = False, rest_s: float = 30.0) -> Row:
    """`count` sessions at the first node, on TCP or WebSocket: memory for each, CPU while they rest."""
    node, wire = site.nodes[0], "WebSocket" if ws else "TCP"
    port = node.http_port if ws else node.tcp_port
    async with watched(site, f"L01 {count:,} idle sessions, {wire}") as it, AsyncExitStack() as stack:
        before_mib = rss_mib(node.pid)
        crowds = []
        for number in range(CROWDS):
            spec = site.spec("idle", f"i{number}w{ws:d}n", 70 + number + 2 * ws, count=count // CROWDS, ws=ws)
            crowds.append(await stack.enter_async_context(Child(spec | {"port": port})))
        answers = [(await crowd.line())["answers"] for crowd in crowds]
        it.row.check(all(set(answer) == {"None"} for answer in answers), f"not all could log in: {answers}")
        kib = (rss_mib(node.pid) - before_mib) * 1024 / count
        cpu_before_s = cpu_s(node.pid)
        await asyncio.sleep(rest_s)
        cpu = (cpu_s(node.pid) - cpu_before_s) / rest_s
        ends = []
        for crowd in crowds:
            crowd.say("end")
            ends.append(await crowd.line())
        most = IDLE_WS_KIB_MAX if ws else IDLE_TCP_KIB_MAX
        it.row.check(kib <= most, f"{kib:.1f} KiB a session; {most:g} are allowed")
        it.row.check(cpu <= IDLE_CPU_MAX, f"{cpu:.0%} of a core at rest; {IDLE_CPU_MAX:.0%} is allowed")
        it.row.check(not any(end["lost"] for end in ends), f"sessions were lost: {ends}")
        it.row.told.append("nothing but PONG")
        it.row.facts |= {"KiB_a_session": round(kib, 1), "cpu_at_rest": f"{cpu:.1%}"}
    return it.row
