"""L04: readers that stop reading while others talk to them."""

from __future__ import annotations

from protocol.errors import Code
from tests.overload.crowd import Child
from tests.overload.site import Row, Site, check_ledger, watched


async def deaf(
    site: Site, readers: int = 50, mib_each: float = 8.0, payload_bytes: int = 16_384, s_max: float = 90.0
) -> Row:
    """Each reader is offered so much and reads nothing; then they come back and get all of it."""
    quota = int(mib_each * 2**20 / payload_bytes)
    spec = site.spec(
        "deaf", f"d{readers}n", 60, senders=readers, receivers=readers, bytes=payload_bytes, window=8, quota=quota,
        seconds=s_max, drain_s=150.0,
    )  # fmt: skip
    name = f"L04 {readers} readers that stop, {mib_each:g} MiB offered to each"
    async with Child(spec) as crowd, watched(site, name, kept_mib=readers * mib_each) as it:
        it.row.check(set((await crowd.line())["answers"]) == {"None"}, "not all could log in")
        crowd.say("go")
        during = await crowd.line()
        it.pair.begin("after")
        crowd.say("wake")
        figures = await crowd.line(s_max=240.0)
        check_ledger(it.row, figures)
        codes = {Code(int(code)).name: count for code, count in figures["reader_codes"].items()}
        it.row.told.append(f"readers: {codes or 'nothing yet'}, {figures['cut']} cut; senders: ACCEPTED")
        it.row.facts |= {
            "accepted": during["accepted"],
            "offered_s": round(during["took_s"], 1),
            "failed": figures["failed"],
            "drained_s": round(figures["drained_s"], 1),
        }
    return it.row
