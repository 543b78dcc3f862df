"""Where a message is or ended, from what is known of it. Pure: facts in, one sentence out.

What lies in the queue is certain; then come the ends that were noted; what remains is what the dedupe still knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from brokerd.support_ports import Hop, HopKind, Standing
from chatd.ctl.entries import Known, code_name
from protocol.errors import ERRORS, Code

_WAY_IN: Final = (HopKind.TAKEN, HopKind.CONFIRMED, HopKind.REFUSED)


class Place(NamedTuple):
    """The entry in the receiver's queue. `acked`: of each known device, whether it acknowledged it."""

    seq: int
    entry: Known
    expires_ms: int
    acked: Mapping[str, bool]


class Facts(NamedTuple):
    """All that could be found out about one message."""

    user: str  # the receiver, "" = not known
    hops: Sequence[Hop] = ()
    is_user: bool = False
    floor: int = 0  # of the receiver's queue: trimmed up to here
    place: Place | None = None
    standing: Standing = Standing.NEVER
    letters: Sequence[str] = ()  # the dead letters that it lies in
    is_sampled: bool = False
    one_in: int = 0


class Verdict(NamedTuple):
    """One word for scripts, one sentence for people."""

    state: str
    says: str


def judge(facts: Facts) -> Verdict:
    """What became of the message."""
    if facts.place is not None:
        return _in_queue(facts.user, facts.place)
    if facts.letters and facts.standing is not Standing.TAKEN:
        return Verdict("dead", f"it lies in the dead letters: chatctl dead show {facts.letters[0]}")
    return _ended(facts) or _remembered(facts)


def _in_queue(user: str, place: Place) -> Verdict:
    if place.entry.type == "gone":
        reason = place.entry.says
        if reason == Code.TTL_PASSED.name:
            return Verdict("expired", f"its time to live was over before every device of {user} had it")
        return Verdict("removed", f"it was removed from {user}'s queue: {reason}")
    done = [device for device, has_it in place.acked.items() if has_it]
    waits = [device for device, has_it in place.acked.items() if not has_it]
    where = f"in {user}'s queue as seq {place.seq}"
    if not place.acked:
        return Verdict("waiting", f"it waits {where}: no device of {user} has ever logged in")
    if not done:
        return Verdict("waiting", f"it waits {where} for {_listed(waits)}")
    if waits:
        return Verdict("partly_delivered", f"{_listed(done)} acknowledged it; it waits {where} for {_listed(waits)}")
    return Verdict("delivered", f"every device of {user} acknowledged it; its receipt is on its way")


def _ended(facts: Facts) -> Verdict | None:
    """By the last hop that settles something; those of the way in settle nothing while there is another."""
    user = facts.user or "its receiver"
    way_in = [hop for hop in facts.hops if hop.kind in _WAY_IN]
    behind = [hop for hop in facts.hops if hop.kind not in _WAY_IN]
    for hop in (*reversed(behind), *reversed(way_in)):
        kind = hop.kind
        if kind == HopKind.DROPPED:
            return Verdict("dropped", "an operator dropped it from the dead letters")
        if kind == HopKind.REQUEUED:
            return Verdict(
                "on_its_way", "an operator put it back from the dead letters, and no broker has saved it yet"
            )
        if kind == HopKind.DEAD:
            return Verdict("dead", f"its batch went to the dead letters ({hop.detail}), and is not there any more")
        if kind == HopKind.EXPIRED:
            return Verdict("expired", f"its time to live was over before every device of {user} had it")
        if kind == HopKind.BOUNCED:
            return Verdict("bounced", f"not saved for {user}: {_why(hop.code)}; its sender was told FAILED")
        if kind in (HopKind.SAVED, HopKind.REPEAT, HopKind.ACKED, HopKind.RECEIPT) and facts.is_user:
            return _gone(facts, [hop.device for hop in facts.hops if hop.kind == HopKind.ACKED])
        if kind == HopKind.CONFIRMED:
            says = "it is durable, and no broker has saved it yet: is a brokerd running, is its store up?"
            return Verdict("on_its_way", says) if facts.standing is Standing.NEVER else None
        if kind == HopKind.REFUSED and facts.standing is Standing.NEVER:
            return Verdict("refused", f"not taken: {_why(hop.code)}; its sender was told so and may have sent it again")
    return None


def _remembered(facts: Facts) -> Verdict:
    if not facts.user:
        return Verdict("unknown", "nothing is known; with --to USER the queue of its receiver is searched")
    if not facts.is_user:
        return Verdict("unknown", f"there is no user {facts.user}, or not any more")
    if facts.standing is Standing.REFUSED:
        return Verdict("bounced", f"not saved: {facts.user}'s queue was full; its sender was told FAILED")
    if facts.standing is Standing.TAKEN:
        return _gone(facts, [])
    if facts.hops:
        return Verdict("on_its_way", f"it was taken, and {facts.user}'s queue has not seen it yet")
    return Verdict("unknown", f"{facts.user}'s queue has never seen it")


def _gone(facts: Facts, devices: list[str]) -> Verdict:
    """It was saved and is not kept any more. Whatever else would have ended it would be among the hops."""
    by = f" ({_listed(sorted(set(devices)))})" if devices else ""
    return Verdict("delivered", f"every device of {facts.user} acknowledged it{by}, and it is not kept any more")


def notes(facts: Facts) -> list[str]:
    """Why there may be less to see than happened."""
    found: list[str] = []
    if facts.letters and facts.standing is Standing.TAKEN:
        found.append(f"it was saved, and a copy lies in the dead letters: {facts.letters[0]}")
    if facts.is_sampled:
        if not facts.hops:
            found.append("it is in the sample: it is older than traces are kept, or was never taken")
        return found
    every = f"1 in {facts.one_in}" if facts.one_in else "none"
    return [
        *found,
        f"it is not in the sample ({every}), so only failures are noted of it; traces.one_in, in chatd and brokerd, "
        "says how many are, 1 = each",
    ]


def _why(code: int) -> str:
    row = ERRORS.get(Code(code)) if code in Code.__members__.values() else None
    return f"{row.english} ({code_name(code)})" if row is not None else code_name(code)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0]


def told(hop: Hop) -> str:
    """One hop in words."""
    whose = f"{hop.user}/{hop.device}" if hop.device else hop.user
    words = {
        HopKind.TAKEN: f"taken from {hop.detail}, for {hop.user}",
        HopKind.CONFIRMED: "confirmed: durable, the sender was told ACCEPTED",
        HopKind.REFUSED: f"refused: {_why(hop.code)}",
        HopKind.SAVED: f"saved as seq {hop.seq} for {hop.user}",
        HopKind.REPEAT: f"came again for {hop.user}: a repeat, the first result stands",
        HopKind.BOUNCED: f"bounced: {_why(hop.code)}; FAILED goes to the sender",
        HopKind.HANDED: f"handed to {hop.detail} for {whose}",
        HopKind.WRITTEN: f"written to {whose}",
        HopKind.ACKED: f"acknowledged by {whose}",
        HopKind.RECEIPT: "DELIVERED was sent to the sender",
        HopKind.TROUBLE: f"{whose} went before it acknowledged: {_why(hop.code) if hop.code else hop.detail}",
        HopKind.EXPIRED: f"expired in the queue of {hop.user}",
        HopKind.DEAD: f"its batch went to the dead letters: {hop.detail}",
        HopKind.REQUEUED: f"put back to shard {hop.seq} by an operator",
        HopKind.DROPPED: "dropped from the dead letters by an operator",
    }
    return words[HopKind(hop.kind)] if hop.kind in words else f"hop {hop.kind} {hop.detail}"
