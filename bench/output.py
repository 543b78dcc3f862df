"""What a run leaves: one JSON document (its schema is in docs/performance.md), and tables for people."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from bench.figures import OURS, Results, figures, peer_ratios, per_cpu_s, ratios, spread, to_floor
from bench.machine import ROOT, described
from bench.plan import PEER_SERVERS, PROMISES, Scenario

SCHEMA: Final = 1
OUT: Final = ROOT / "bench" / "out"
LATEST: Final = OUT / "latest.json"
Row = Sequence[str]

_COUNTS: Final = ("lost", "duplicates", "misordered")


def document(plan: Sequence[Scenario], results: Results, settings: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """All that is known of a run."""
    told = figures(results)
    return {
        "schema": SCHEMA,
        "made_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        **described(),
        "settings": dict(settings),
        "seeds": {},  # the load has no chance in it
        "scenarios": [
            {
                "name": scenario.name,
                "plan": asdict(scenario),
                "promise": PROMISES.get(scenario.servers, ""),
                "to_floor": to_floor(scenario, plan, results),
                "repeats": list(results[scenario.name]),
            }
            for scenario in plan
        ],
        "ratios": ratios(told) | peer_ratios(plan, results),
        "figures": told,
    }


def write(told: Mapping[str, Any], path: Path) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(told, indent=1) + "\n")
    part.replace(path)


def read(path: Path) -> dict[str, Any]:
    """A document that `write` wrote. Raises ValueError for one of another schema."""
    told: dict[str, Any] = json.loads(path.read_text())
    if told.get("schema") != SCHEMA:
        raise ValueError(f"{path}: schema {told.get('schema')}, this is {SCHEMA}")
    return told


def faults(results: Results) -> list[str]:
    """What must not be: errors, and messages that were lost, came twice or out of order."""
    wrong = []
    for name, repeats in results.items():
        for result in repeats:
            wrong += [f"{name}: {error}" for error in result.get("errors", ())]
            wrong += [f"{name}: {result[count]} {count}" for count in _COUNTS if result.get(count)]
    return wrong


# --- tables --------------------------------------------------------------------------------------------------------


def table(head: Row, rows: Sequence[Row]) -> str:
    """Columns as wide as they must be; all but the first to the right."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]

    def line(row: Row) -> str:
        cells = [cell.ljust(width) if not at else cell.rjust(width) for at, (cell, width) in enumerate(zip(row, widths, strict=True))]  # fmt: skip
        return "  ".join(cells).rstrip()

    return "\n".join([line(head), "  ".join("─" * width for width in widths), *map(line, rows)])


def tables(plan: Sequence[Scenario], results: Results) -> str:
    """Everything, by kind of work."""
    parts = []
    for works, make in _TABLES:
        chosen = [scenario for scenario in plan if scenario.work in works and any(results[scenario.name])]
        if chosen:
            parts.append(make(chosen, plan, results))
    return "\n\n".join(parts)


def beside_peers(plan: Sequence[Scenario], results: Results) -> tuple[Row, list[Row]]:
    """Head and rows: what a CPU second of each server moves by the kind of load, ours over it, and what its acknowledgement
    promises a sender."""
    moved = per_cpu_s(plan, results)
    loads = tuple(dict.fromkeys(load for _, load in moved))
    head, rows = ["messages a CPU second"], list[Row]()
    for load in loads:
        head += [load.replace("_", " "), *(f"{ours} ×" for ours in OURS)]
    for servers in dict.fromkeys(servers for servers, _ in moved):
        cells: list[str] = []
        for load in loads:
            theirs = moved.get((servers, load))
            cells.append(f"{theirs:,.0f}" if theirs else "")
            over = (moved.get((ours, load)) if theirs and servers in PEER_SERVERS else None for ours in OURS)
            cells += [f"{ours / theirs:.2f}" if ours and theirs else "" for ours in over]
        rows.append((servers, *cells, PROMISES.get(servers, "")))
    return (*head, "acknowledged means"), rows


def _throughput_table(chosen: Sequence[Scenario], plan: Sequence[Scenario], results: Results) -> str:
    head = ("throughput", "delivered/s", "of floor", "CPU µs/msg", "ours", "posts/batch", "drain s", "lost dup mis")
    rows = []
    for one in chosen:
        repeats = results[one.name]
        of_floor = to_floor(one, plan, results).get("delivered_per_s")
        rows.append((
            one.name,
            _range(repeats, "delivered_per_s", "{:,.0f}"),
            f"{of_floor:.2f}" if of_floor else "",
            _range(repeats, "server_cpu_us", "{:.1f}"),
            _number(repeats, "own_cpu_us", "{:.1f}"),
            _number(repeats, "per_message.posts_per_batch", "{:.0f}"),
            _number(repeats, "drain_s", "{:.2f}"),
            _counted(repeats),
        ))  # fmt: skip
    return table(head, rows)


def _latency_table(chosen: Sequence[Scenario], plan: Sequence[Scenario], results: Results) -> str:
    head = ("latency, ms", "accepted p50", "p99", "delivered p50", "p99", "p99.9", "max", "p50 of floor", "CPU µs/msg", "swarm late p99", "lost dup mis")  # fmt: skip
    rows = []
    for one in chosen:
        repeats = results[one.name]
        of_floor = to_floor(one, plan, results).get("delivered_ms.p50")
        rows.append((
            one.name + (" (held awake)" if any(result.get("held_awake") for result in repeats) else ""),
            _number(repeats, "accepted_ms.p50", "{:.2f}"),
            _number(repeats, "accepted_ms.p99", "{:.2f}"),
            _range(repeats, "delivered_ms.p50", "{:.2f}"),
            _range(repeats, "delivered_ms.p99", "{:.2f}"),
            _number(repeats, "delivered_ms.p99_9", "{:.1f}"),
            _number(repeats, "delivered_ms.max", "{:.1f}"),
            f"{of_floor:.1f}" if of_floor else "",
            _number(repeats, "server_cpu_us", "{:.0f}"),
            _number(repeats, "late_ms.p99", "{:.2f}"),
            _counted(repeats),
        ))  # fmt: skip
    return table(head, rows)


def _crowd_table(chosen: Sequence[Scenario], plan: Sequence[Scenario], results: Results) -> str:
    head = ("crowds", "accepted/s", "stored/s", "drained/s", "logins/s", "bytes/session", "CPU µs each", "lost dup mis")
    paths = ("accepted_per_s", "stored_per_s", "drained_per_s", "logins_per_s", "bytes_per_session")
    rows = []
    for one in chosen:
        repeats = results[one.name]
        cells = [_number(repeats, path, "{:,.0f}") for path in paths]
        rows.append((one.name, *cells, _number(repeats, "server_cpu_us", "{:.0f}"), _counted(repeats)))
    return table(head, rows)


_TABLES: Final = (
    (("throughput", "laden", "amqp_throughput"), _throughput_table),
    (("latency", "amqp_latency"), _latency_table),
    (("offline", "logins", "idle"), _crowd_table),
)


def process_table(chosen: Sequence[Scenario], results: Results) -> str:
    """What each process of these scenarios used, for 100,000 messages (the first repeat)."""
    head = ("for 100,000 messages", "user s", "system s", "µs/msg", "waits", "preempted", "read+write", "RSS MiB")
    paths = ("user_s_per_100k", "system_s_per_100k", "cpu_us_per_msg", "waits_per_100k", "preemptions_per_100k", "io_calls_per_100k", "rss_mib")  # fmt: skip
    shapes = ("{:.2f}", "{:.2f}", "{:.1f}", "{:,.0f}", "{:,.0f}", "{:,.0f}", "{:.0f}")
    rows = []
    for one in chosen:
        for name, used in results[one.name][0].get("processes", {}).items():
            cells = [
                shape.format(used[path]) if path in used else "" for path, shape in zip(paths, shapes, strict=True)
            ]
            rows.append((f"{one.name}: {name}", *cells))
    return table(head, rows)


def _number(repeats: Sequence[Mapping[str, Any]], path: str, shape: str) -> str:
    told = spread(repeats, path)
    return shape.format(told.median) if told is not None else ""


def _range(repeats: Sequence[Mapping[str, Any]], path: str, shape: str) -> str:
    told = spread(repeats, path)
    if told is None:
        return ""
    around = f" [{shape.format(told.low)}…{shape.format(told.high)}]" if len(repeats) > 1 else ""
    return shape.format(told.median) + around


def _counted(repeats: Sequence[Mapping[str, Any]]) -> str:
    return " ".join(str(sum(int(result.get(name, 0)) for result in repeats)) for name in _COUNTS)
