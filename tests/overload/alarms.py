"""F10: RabbitMQ has an alarm (memory, disk) and takes no publishes."""

from __future__ import annotations

import asyncio
import itertools
import time
from contextlib import AsyncExitStack

from protocol.errors import Code
from protocol.messages import Accepted, Ack, Deliver, Error, Send
from tests.faults.raw_client import RawClient, session
from tests.overload.bounds import BUSY_S_MAX, READY_S_MAX, REOPEN_S_MAX
from tests.overload.crowd import Child
from tests.overload.publishers import flooded
from tests.overload.site import Row, Site, wait_readyz, watched

ALARMS = {
    "memory": (("set_vm_memory_high_watermark", "absolute", "1MB"), ("set_vm_memory_high_watermark", "0.4")),
    "disk": (("set_disk_free_limit", "900GB"), ("set_disk_free_limit", "50MB")),
}
_numbers = itertools.count(int(time.time()))


async def rabbit_alarm(site: Site, kind: str = "memory", hold_s: float = 8.0, senders: int = 20) -> Row:
    """An alarm while senders are at it."""
    assert site.cluster is not None
    rabbit, node, number = site.cluster.rabbit, site.nodes[0], next(_numbers)
    names = {who: f"{who}{number}" for who in ("ann", "bob", "cat")}
    begin, end = ALARMS[kind]
    spec = site.spec(
        "flood", f"al{number}n", 50, seconds=hold_s, senders=senders, receivers=senders, window=64, drain_s=90.0
    )
    async with (
        AsyncExitStack() as stack,
        Child(spec) as crowd,
        watched(site, f"F10 RabbitMQ's {kind} alarm", served=False) as it,
    ):
        ann = await stack.enter_async_context(session(node.tcp_port, names["ann"], site.mint.token(names["ann"])))
        await _leave_waiting(site, ann, names["cat"])
        row = it.row
        row.check(set((await crowd.line())["answers"]) == {"None"}, "not all could log in")
        flooding = asyncio.create_task(flooded(crowd, it))
        await asyncio.to_thread(rabbit.ctl, *begin)
        try:
            busy_s, error = await _until_busy(ann, names["bob"])
            row.told.append(
                f"SEND: {Code(error.code).name} after {busy_s:.1f} s, retry_after {error.retry_after_ms} ms"
            )
            row.check(busy_s <= BUSY_S_MAX, f"BUSY came after {busy_s:.1f} s")
            is_told, _ = await wait_readyz(node, "rabbitmq", "blocked: low on " + kind, READY_S_MAX)
            row.check(is_told, "/readyz does not say which alarm")
            row.told.append(f"/readyz: rabbitmq blocked: low on {kind}")
            async with session(site.nodes[-1].tcp_port, names["cat"], site.mint.token(names["cat"])) as cat:
                heard = await cat.next(Deliver)
                row.check(heard.payload == b"waits", "what waited was not delivered")
                await cat.send(Ack(heard.ref, 0))
            await asyncio.sleep(hold_s)
        finally:
            await asyncio.to_thread(rabbit.ctl, *end)
        open_s = await _until_accepted(ann, names["bob"], error.ref)
        row.check(open_s <= REOPEN_S_MAX, f"a SEND was accepted {open_s:.1f} s after the end of the alarm")
        row.facts |= {"busy_s": round(busy_s, 2), "accepted_again_s": round(open_s, 2)}
        row.check((await wait_readyz(node, None, "", READY_S_MAX))[0], "/readyz does not become ready again")
        await flooding
    return row


async def _leave_waiting(site: Site, ann: RawClient, cat: str) -> None:
    """Something that cat can fetch while the alarm lasts."""
    async with session(site.nodes[-1].tcp_port, cat, site.mint.token(cat)) as other:
        await other.still_works()
    await ann.send(Send(1, 0, cat, b"waits"))
    await ann.next(Accepted)


async def _until_busy(ann: RawClient, to: str) -> tuple[float, Error]:
    """Send until it is refused. What was taken before stays without an answer, or is accepted later."""
    begun_s = time.monotonic()
    await ann.send(Send(2, 0, to, b"2"))
    for cid in itertools.count(3):
        try:
            async with asyncio.timeout(0.2):
                message = await ann.message()
        except TimeoutError:
            await ann.send(Send(cid, 0, to, b"%d" % cid))
            continue
        if isinstance(message, Error):
            return time.monotonic() - begun_s, message
        assert message is not None
    raise AssertionError("never")


async def _until_accepted(ann: RawClient, to: str, cid: int) -> float:
    """Resend what was refused first, as a client does, until it is accepted."""
    begun_s = time.monotonic()
    await ann.still_works()
    while True:
        await ann.send(Send(cid, 0, to, b"%d" % cid))
        while not isinstance(message := await ann.message(), Accepted | Error):
            assert message is not None
        if isinstance(message, Accepted) and cid in message.cids:
            return time.monotonic() - begun_s
        await asyncio.sleep(0.2)
