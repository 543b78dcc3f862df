"""L02: many logins at once: a storm of new sessions, and the herd that the death of a node sends to another."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack

from protocol.errors import Code
from tests.overload.bounds import HERD_S_MAX, LOGIN_MS_P99_MAX, LOGINS_PER_S
from tests.overload.crowd import Child
from tests.overload.site import Row, Site, watched

CROWDS = 2


async def login_storm(site: Site, per_s: float = LOGINS_PER_S, seconds: float = 5.0) -> Row:
    """So many new sessions a second, whatever becomes of those before."""
    async with watched(site, f"L02 {per_s:,.0f} logins a second for {seconds:g} s") as it, AsyncExitStack() as stack:
        crowds = []
        for number in range(CROWDS):
            spec = site.spec("logins", f"lo{number}n", 80 + number, rate=per_s / CROWDS, seconds=seconds)
            crowds.append(await stack.enter_async_context(Child(spec)))
        for crowd in crowds:
            await crowd.line()
        it.pair.begin("during")
        it.row.during = it.pair.phase
        for crowd in crowds:
            crowd.say("go")
        lines = [await crowd.line() for crowd in crowds]
        it.pair.begin("after")
        answers: Counter[str] = Counter()
        for line in lines:
            answers.update(line["answers"])
        total = int(per_s / CROWDS * seconds) * CROWDS
        p99 = max(line["p99_ms"] for line in lines)
        took_s = max(line["took_s"] for line in lines)
        words = {_word(answer): count for answer, count in answers.items()}
        it.row.told.append(f"{words}, retry_after {[line['retry_ms'] for line in lines]}")
        it.row.check(sum(answers.values()) == total, "some had no answer")
        it.row.check(not answers.get("0"), f"{answers.get('0')} were cut without a word")
        it.row.check(p99 <= LOGIN_MS_P99_MAX, f"a login took {p99:.0f} ms at p99")
        it.row.facts |= {
            "offered_per_s": round(total / max(line["offered_s"] for line in lines)),
            "logins_per_s": round(answers["None"] / took_s),
            "login_p50_ms": round(max(line["p50_ms"] for line in lines)),
            "login_p99_ms": round(p99),
        }
        for crowd in crowds:
            crowd.say("end")
    return it.row


def _word(answer: str) -> str:
    return "WELCOME" if answer == "None" else "cut" if answer == "0" else Code(int(answer)).name


async def herd(site: Site, count: int = 4_000) -> Row:
    """A node dies with kill -9, and all its sessions come to the other one."""
    assert site.cluster is not None
    last, first = site.nodes[-1], site.nodes[0]
    spec = site.spec("herd", "hen", 90, count=count) | {"port": last.tcp_port, "to_port": first.tcp_port}
    only = Site(site.name, [first], site.mint, site.cluster, site.before_s)
    async with Child(spec) as crowd:
        await crowd.line()
        async with watched(only, f"L02 {count:,} sessions come over from a node that died") as it:
            last.kill9()
            back = await crowd.line()
            it.pair.begin("after")
            await last.restart()
            await asyncio.to_thread(last.wait_serving)
            it.sampler.moved(site.pids)
            crowd.say("end")
            end = await crowd.line()
            words = {_word(answer): tries for answer, tries in back["answers"].items()}
            it.row.told.append(f"{words}")
            it.row.check(back["answers"]["None"] == count, "not all came back")
            it.row.check(back["max_ms"] <= HERD_S_MAX * 1000, f"the last came back after {back['max_ms'] / 1000:.1f} s")
            it.row.check(not end["lost"], f"{end['lost']} were lost again")
            it.row.facts |= {"back_p50_ms": round(back["p50_ms"]), "back_max_ms": round(back["max_ms"])}
    return it.row
