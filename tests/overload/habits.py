"""L05 and its like: one device that misuses its window, two places with one device name, one user with a huge backlog."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter

from protocol.client import Backoff, Client
from protocol.errors import Code
from protocol.messages import Accepted, Ack, Deliver, Error, Send, Welcome
from tests.faults.raw_client import RawClient, connected, session
from tests.overload.bounds import SLOW_DOWN_AFTER
from tests.overload.crowd import Child
from tests.overload.site import Row, Site, check_ledger, watched

_numbers = itertools.count(int(time.time()))
CREDIT = 64  # what the raw client grants


async def window_abuse(site: Site) -> Row:
    """A device that never acknowledges, acknowledges in reverse, what it never got, and everything twice."""
    number = next(_numbers)
    names = {who: f"{who}{number}" for who in ("sue", "mia")}
    ports = site.nodes[0].tcp_port, site.nodes[-1].tcp_port
    async with (
        watched(site, "L05 a device misuses its window") as it,
        session(ports[1], names["mia"], site.mint.token(names["mia"])) as mia,
        session(ports[0], names["sue"], site.mint.token(names["sue"])) as sue,
    ):
        row, count = it.row, 4 * CREDIT
        await _say(sue, names["mia"], 1, count)
        got = [(await mia.next(Deliver)).ref for _ in range(CREDIT)]
        silence = await mia.still_works()
        row.check(not any(isinstance(message, Deliver) for message in silence), "deliveries go on beyond the window")
        row.told.append(f"never acks: {CREDIT} deliveries, then nothing")
        await mia.send(*(Ack(seq, 0) for seq in reversed(got[: CREDIT // 2])))  # the first counts, the others are old
        heard = [message for message in await mia.still_works() if isinstance(message, Deliver)]
        row.check(not [it for it in heard if it.ref <= got[-1]], "an old ACK made deliveries come again")
        await mia.send(Ack(got[-1] + 10_000, 0))
        error = await mia.next(Error)
        row.check(error.code == Code.BAD_ACK, f"an unknown seq was answered {error.code}")
        row.told.append("acks an unknown seq: BAD_ACK; twice or in reverse: nothing")
        seen = got + [message.ref for message in heard]
        while len(seen) < count:
            await mia.send(Ack(seen[-1], 0), Ack(seen[-1], 0))
            seen.append((await mia.next(Deliver)).ref)
        await mia.send(Ack(seen[-1], 0))
        await mia.still_works()
        row.check(seen == list(range(got[0], got[0] + count)), "a seq was lost, came twice or out of order")
    return row


async def _say(sue: RawClient, to: str, first: int, count: int) -> None:
    await sue.send(*(Send(cid, 0, to, b"%d" % cid) for cid in range(first, first + count)))
    accepted = 0
    while accepted < count:
        accepted += len((await sue.next(Accepted)).cids)


async def two_places(site: Site, s: float = 10.0, enough: int | None = None) -> Row:
    """For `s` seconds, or until `enough` were told RATE_LIMITED. Two installations with one device name, at two nodes where there are two; both come back for ever, as nobody should."""
    name = f"twin{next(_numbers)}"
    token, told = site.mint.token(name), Counter[str]()
    end_s = time.monotonic() + s

    async def place(port: int) -> None:
        while time.monotonic() < end_s and (enough is None or told["RATE_LIMITED"] < enough):
            async with connected(port) as raw:
                answer = await raw.hello(name, token, device="same")
                if isinstance(answer, Welcome):
                    told["WELCOME"] += 1
                    try:
                        error = await raw.next(Error)
                    except (TimeoutError, AssertionError):
                        return
                    told[Code(error.code).name] += 1
                else:
                    told[Code(answer.code).name] += 1
                    await asyncio.sleep(0.01)  # it does not even wait as long as it was told

    async with watched(site, "one device name in two places, for ever") as it:
        await asyncio.gather(*(place(site.nodes[at].tcp_port) for at in (0, -1)), _obedient(site, it.row))
        it.row.told.append(str(dict(told)))
        it.row.check(told["REPLACED"] > 0 and told["RATE_LIMITED"] > 0, "nobody was slowed down")
        most = len({node.tcp_port for node in site.nodes}) * SLOW_DOWN_AFTER + s
        it.row.check(told["WELCOME"] <= most, f"{told['WELCOME']} logins in {s:g} s")
    return it.row


async def _obedient(site: Site, row: Row) -> None:
    """A client that keeps to the rules ends at REPLACED, and does not come back."""
    name = f"good{next(_numbers)}"
    node = site.nodes[0]
    first = Client(
        "127.0.0.1", node.tcp_port, name, "same", token=site.mint.token(name), backoff=Backoff(lambda low, high: 0.05)
    )
    async with first:
        await first.wait_connected()
        async with session(site.nodes[-1].tcp_port, name, site.mint.token(name), "same") as second:
            try:
                async with asyncio.timeout(10):
                    async for _ in first:
                        pass
            except Exception as end:
                row.check("REPLACED" in repr(end) or "replaced" in str(end) or "elsewhere" in str(end), repr(end))
            await second.still_works()
            row.told.append("a client that obeys: REPLACED once, then it stays away")


async def backlog(site: Site, count: int = 100_000, payload_bytes: int = 100, s_max: float = 120.0) -> Row:
    """One user was away while so much was said to him; then he logs in. The servers' queue.count_max must allow it."""
    spec = site.spec(
        "flood", f"bl{count}n", 95, senders=1, receivers=1, bytes=payload_bytes, window=512, quota=count, late=1,
        seconds=s_max, drain_s=s_max,
    )  # fmt: skip
    mia = f"bl{count}nr0"
    async with session(site.nodes[-1].tcp_port, mia, site.mint.token(mia), "d"):
        pass  # now she is known
    async with Child(spec) as crowd, watched(site, f"a backlog of {count:,} at login") as it:
        await crowd.line()
        crowd.say("go")
        during = await crowd.line()
        crowd.say("enough")
        it.row.check(during["accepted"] == count, f"{during['accepted']} were accepted")
        it.row.during = it.pair.begin("during")
        crowd.say("come")
        figures = await crowd.line()
        it.pair.begin("after")
        check_ledger(it.row, figures)
        it.row.check(not figures["failed"], f"{figures['failed']} failed")
        it.row.told.append("DELIVER under credit, then DRAINED")
        it.row.facts |= {"drained_s": round(figures["drained_s"], 1)}
    return it.row
