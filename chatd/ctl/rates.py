"""What happened between two looks at a running chatd, for `chatctl top`: pure. As values, and in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from chatd.ctl.times import span, utc

Look = Mapping[str, Any]  # what Desk answers to "top"
Frame = dict[str, Any]

RATES: Final = (
    "accepted", "delivered", "acks", "refused", "failed", "expired", "logins", "logins_refused", "bytes_in", "bytes_out",
)  # fmt: skip
LABEL_WIDTH: Final = 14
_SIZES: Final = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def between(before: Look, now: Look) -> Frame:
    """The frame of the time between two looks at the same run of a chatd. Rates are by the second; None: not counted
    there."""
    seconds = max(now["at_s"] - before["at_s"], 1e-3)
    then, counts = before["counts"], now["counts"]
    histograms = {
        name: _fresh(before["histograms"].get(name), of) for name, of in now["histograms"].items() if of is not None
    }
    kept = (
        "at_ms", "node", "uptime_s", "ready", "parts", "sessions", "users", "connections", "waiting", "waiting_bytes",
        "in_flight", "unanswered", "paused", "brake", "slowest", "queues",
    )  # fmt: skip
    return {
        **{key: now[key] for key in kept},
        "seconds": round(seconds, 3),
        "rates": {name: _rate(then[name], counts[name], seconds) for name in RATES},
        "times_ms": {name: _times(*of) for name, of in histograms.items()},
    }


def _rate(before: float | None, now: float | None, seconds: float) -> float | None:
    return None if before is None or now is None else round((now - before) / seconds, 1)


def _fresh(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> tuple[Sequence[float], list[int], float]:
    """Bounds, counts and sum of what came to a histogram since."""
    old, total = (before["counts"], before["total"]) if before is not None else ([0] * len(now["counts"]), 0.0)
    return now["bounds"], [new - was for new, was in zip(now["counts"], old, strict=True)], now["total"] - total


def _times(bounds: Sequence[float], counts: Sequence[int], total: float) -> dict[str, Any] | None:
    """None: nothing was measured."""
    count = sum(counts)
    if not count:
        return None
    return {
        "count": count,
        "mean": round(total / count * 1000, 2),
        "p50": _ms(quantile(bounds, counts, 0.5)),
        "p99": _ms(quantile(bounds, counts, 0.99)),
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 2)


def quantile(bounds: Sequence[float], counts: Sequence[int], share: float) -> float | None:
    """About what this share of the values is at most: inside a bucket they are taken for spread evenly. None: it lies above
    all bounds."""
    due = share * sum(counts)
    for (low, high), count in zip(pairwise((0.0, *bounds)), counts, strict=False):
        if count and due <= count:
            return low + (high - low) * due / count
        due -= count
    return None


# --- in words ------------------------------------------------------------------------------------------------------


def lines(frame: Frame) -> Iterator[str]:
    """The frame for people."""
    amiss = [f"{part}: {said}" for part, said in frame["parts"].items() if said != "up"]
    state = "ready" if frame["ready"] else "not ready: " + "; ".join(amiss)
    yield f"{frame['node']}  {state}  up for {span(int(frame['uptime_s'] * 1000))}  {utc(frame['at_ms'])[:-4]} UTC"
    doors = frame["connections"]
    yield _row("sessions", f"{frame['sessions']} of {frame['users']} users, {frame['paused']} read too slowly")
    yield _row("connections", f"{doors['open']}, {doors['strangers']} said nothing yet")
    yield from _rates(frame["rates"])
    yield from _latencies(frame["times_ms"])
    yield _row("on the way", f"{frame['unanswered']} without an answer yet, batches: {frame['in_flight']}")
    yield _row("", f"{frame['waiting']} not taken by the queue yet ({size(frame['waiting_bytes'])})")
    yield _row("brake", _brake(frame["brake"]))
    yield from _slowest(frame["slowest"])
    yield from _queues(frame["queues"])


def _row(label: str, text: str) -> str:
    return f"{label:<{LABEL_WIDTH}}{text}"


def _rates(rates: Mapping[str, float | None]) -> Iterator[str]:
    words = {
        name: "-" if rate is None else f"{rate:,.0f}" if rate >= 100 else f"{rate:g}" for name, rate in rates.items()
    }
    traffic = {name: size(rates[name] or 0) for name in ("bytes_in", "bytes_out")}
    yield _row(
        "per second", "{accepted} accepted, {delivered} delivered, {acks} ACKs, {refused} refused".format_map(words)
    )
    ended = "" if rates["failed"] is not None else "failed, expired: brokerd counts them"
    yield _row("", ended or "{failed} failed, {expired} expired".format_map(words))
    logins = "{logins} logins, {logins_refused} refused".format_map(words)
    yield _row("", f"{logins}, {traffic['bytes_in']} in, {traffic['bytes_out']} out")


def _latencies(times_ms: Mapping[str, Mapping[str, Any] | None]) -> Iterator[str]:
    late = times_ms.get("loop")
    yield _row("loop", "not measured in this time" if late is None else f"late by {late['mean']:g} ms, {_most(late)}")
    label = "latency"
    for name in ("accepted", "delivered"):
        if (times := times_ms.get(name)) is not None:
            yield _row(label, f"{name} in {times['mean']:g} ms, {_most(times)} ({times['count']} of the canary)")
            label = ""
    if label:
        yield _row(label, "not measured in this time" if "accepted" in times_ms else "no canary runs (canary.every_s)")


def _most(times: Mapping[str, Any]) -> str:
    return "some over all bounds" if times["p99"] is None else f"99 % under {times['p99']:g} ms"


def _brake(brake: Mapping[str, Any]) -> str:
    held = f", {brake['held']} sessions are not read on" if brake["held"] else ""
    return (f"on: brokerd is behind with {brake['shards_behind']} shards" if brake["is_on"] else "off") + held


def _slowest(sessions: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield ""
    yield f"{'slowest readers':<40}{'unread':>8}{'written':>9}{'bytes wait':>12}{'slow for':>10}  from"
    for it in sessions:
        paused = "" if it["paused_s"] is None else span(int(it["paused_s"] * 1000))
        who = f"{it['user']} {it['device']}"
        yield (
            f"  {who:<38}{it['unread']:>8}{it['unacknowledged']:>9}{size(it['waiting_bytes']):>12}{paused:>10}  {it['peer']}"
        )


def _queues(queues: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield ""
    yield f"{'biggest queues, as the sessions here know':<48}{'unread':>8}{'sessions':>10}"
    for it in queues:
        yield f"  {it['user']:<46}{it['unread']:>8}{it['sessions']:>10}"


def size(count: float) -> str:
    """850 B, 12.3 kB."""
    for unit, name in _SIZES:
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count:.0f} B"
