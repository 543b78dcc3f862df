"""chatctl trace: the way of one message, hop by hop, and where it is or ended."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from typing import Any, Final

from brokerd.ports import LinkDown, Page, QueueStatus, SentQueue
from brokerd.support_ports import Hop, HopKind, Standing
from brokerd.tracing import Sample
from chatd.config import ChatConfig
from chatd.ctl import Refused, say
from chatd.ctl.entries import code_name, known, trouble
from chatd.ctl.letters import letters_with
from chatd.ctl.times import span, times, utc
from chatd.ctl.verdicts import Facts, Place, judge, notes, told
from chatd.stores import open_records, open_store
from protocol.names import NAME_ALLOWED, is_name
from protocol.wire import MESSAGE_ID_BYTES

PAGE_ENTRIES: Final = 500
PAGE_BYTES: Final = 1024 * 1024
_NAMES_RECEIVER: Final = (HopKind.TAKEN, HopKind.SAVED, HopKind.BOUNCED, HopKind.DEAD, HopKind.EXPIRED)


def show_trace(config: ChatConfig, options: argparse.Namespace) -> None:
    """chatctl trace"""
    id_ = _id(options.id)
    if options.to is not None and not is_name(options.to):
        raise Refused(f"--to {options.to!r} is no user name: it is {NAME_ALLOWED}")
    facts, status, more = asyncio.run(find_out(config, id_, options.to))
    if options.json:
        say(json.dumps(as_json(id_, facts, status, more)))
    else:
        _print(id_, facts, status, more)


def _id(text: str) -> bytes:
    try:
        id_ = bytes.fromhex(text)
    except ValueError:
        id_ = b""
    if len(id_) != MESSAGE_ID_BYTES:
        raise Refused(f"{text!r} is no message id: it is {2 * MESSAGE_ID_BYTES} hexadecimal digits")
    return id_


# --- finding out


async def find_out(config: ChatConfig, id_: bytes, to: str | None) -> tuple[Facts, QueueStatus | None, list[str]]:
    """The facts, the receiver's queue, and what could not be looked at."""
    more: list[str] = []
    sample = Sample(config.traces.one_in)
    async with open_records(config) as records, open_store(config) as store:
        hops = await records.traces.find(id_)
        user = to or _receiver(hops)
        facts = Facts(user, hops, is_sampled=sample.has(id_), one_in=config.traces.one_in)
        status = await store.status(user) if user else None
        if status is not None:
            standing = await records.memory.standing(user, id_, time.time_ns() // 1_000_000)
            place = await _place(store, user, status, id_, hops)
            facts = facts._replace(is_user=True, floor=status.floor, standing=standing, place=place)
    if facts.place is None and _may_be_dead(facts):
        try:
            facts = facts._replace(letters=await letters_with(config, id_))
        except LinkDown as down:
            more.append(f"the dead letters could not be looked through: {down}")
    return facts, status, more


def _receiver(hops: list[Hop]) -> str:
    return next((hop.user for kind in _NAMES_RECEIVER for hop in hops if hop.kind == kind and hop.user), "")


def _may_be_dead(facts: Facts) -> bool:
    kinds = {hop.kind for hop in facts.hops}
    return HopKind.DEAD in kinds or not kinds & {HopKind.SAVED, HopKind.BOUNCED, HopKind.EXPIRED}


async def _place(store: SentQueue, user: str, status: QueueStatus, id_: bytes, hops: list[Hop]) -> Place | None:
    """The entry with this id: at the seq that was noted, or wherever it stands in the queue."""
    noted = [hop.seq for hop in hops if hop.kind in (HopKind.SAVED, HopKind.EXPIRED) and hop.user == user and hop.seq]
    after, last = (noted[0] - 1, noted[0]) if noted else (status.floor, status.head)
    while after < last:
        page: Page = await store.read(user, after, min(PAGE_ENTRIES, last - after), PAGE_BYTES)
        for seq, entry in enumerate(page.entries, page.first):
            told_ = known(entry.type, entry.body)
            is_it = told_.id == id_.hex() and told_.type in ("DELIVER", "SENT")
            if is_it or (noted and seq == noted[0] and told_.type == "gone"):
                acked = {device: cursor >= seq for device, cursor in sorted(status.cursors.items())}
                return Place(seq, told_, entry.expires_ms, acked)
        if not page.entries:
            return None
        after = page.first + len(page.entries) - 1
    return None


# --- telling


def _print(id_: bytes, facts: Facts, status: QueueStatus | None, more: list[str]) -> None:
    say(f"message {id_.hex()}" + (f" for {facts.user}" if facts.user else ""))
    width = max((len(hop.by) for hop in facts.hops), default=0)
    for hop in facts.hops:
        say(f"  {utc(hop.at_ms)}  {hop.by:{width}}  {told(hop)}")
    verdict = judge(facts)
    say(f"{verdict.state}: {verdict.says}")
    now_ms = time.time_ns() // 1_000_000
    if facts.place is not None and facts.place.entry.type != "gone":
        entry = facts.place.entry
        expires = f", expires in {span(facts.place.expires_ms - now_ms)}" if facts.place.expires_ms > now_ms else ""
        say(
            f"  {entry.bytes} bytes from {entry.peer}, sent {utc(entry.since_ms)} ({span(now_ms - entry.since_ms)}){expires}"
        )
        for device, has_it in facts.place.acked.items():
            say(f"  {device}: " + ("acknowledged" if has_it else "not acknowledged" + _stopped(status, device)))
    for note in notes(facts) + more:
        say(f"({note})")


def _stopped(status: QueueStatus | None, device: str) -> str:
    if status is None or device not in status.troubles:
        return ""
    reason, at_ms, attempts = trouble(status.troubles[device])
    return f"; stopped {times(attempts)}, last with {reason} at {utc(at_ms)}"


def as_json(id_: bytes, facts: Facts, status: QueueStatus | None, more: list[str]) -> dict[str, Any]:
    """What --json prints."""
    verdict = judge(facts)
    now: dict[str, Any] = verdict._asdict()
    if facts.place is not None:
        devices: dict[str, Any] = {}
        for device, has_it in facts.place.acked.items():
            devices[device] = {"acknowledged": has_it, "cursor": status.cursors[device] if status else 0}
            if status is not None and device in status.troubles:
                devices[device]["trouble"] = trouble(status.troubles[device])._asdict()
        now |= {"seq": facts.place.seq, **facts.place.entry._asdict(), "expires_ms": facts.place.expires_ms}
        now |= {"says": verdict.says, "devices": devices}  # over the entry's own
    return {
        "id": id_.hex(),
        "to": facts.user,
        "sampled": facts.is_sampled,
        "hops": [_hop(hop) for hop in facts.hops],
        "now": now,
        "dedupe": facts.standing.value if facts.standing is not Standing.NEVER else None,
        "dead_letters": list(facts.letters),
        "notes": notes(facts) + more,
    }


def _hop(hop: Hop) -> dict[str, Any]:
    kind = HopKind(hop.kind).name if hop.kind in HopKind.__members__.values() else str(hop.kind)
    fields = {**hop._asdict(), "kind": kind, "says": told(hop), "code": code_name(hop.code) if hop.code else ""}
    return {name: value for name, value in fields.items() if name != "id" and value not in ("", 0)}
