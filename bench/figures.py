"""From results to figures: the median of the repeats, and the ratio of each to its floor in the same run."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from bench.plan import PEER_SERVERS, Scenario, Servers

Results = Mapping[str, Sequence[Mapping[str, Any]]]

# figure: the scenario that it is from, and where it stands in its result
FIGURES: Final[dict[str, tuple[str, str]]] = {
    "cluster_delivered_per_s": ("cluster", "delivered_per_s"),
    "cluster_cpu_us_per_msg": ("cluster", "server_cpu_us"),
    "cluster_own_cpu_us_per_msg": ("cluster", "own_cpu_us"),
    "embedded_delivered_per_s": ("embedded", "delivered_per_s"),
    "embedded_cpu_us_per_msg": ("embedded", "server_cpu_us"),
    "relay_floor_per_s": ("relay", "delivered_per_s"),
    "relay_floor_cpu_us_per_msg": ("relay", "server_cpu_us"),
    "amqp_floor_per_s": ("amqp", "delivered_per_s"),
    "amqp_floor_cpu_us_per_msg": ("amqp", "server_cpu_us"),
    "cluster_p50_ms_at_1000": ("cluster at 1000", "delivered_ms.p50"),
    "cluster_p99_ms_at_1000": ("cluster at 1000", "delivered_ms.p99"),
    "cluster_accepted_p50_ms_at_1000": ("cluster at 1000", "accepted_ms.p50"),
    "cluster_cpu_us_per_msg_at_1000": ("cluster at 1000", "server_cpu_us"),
    "amqp_floor_p50_ms_at_1000": ("amqp at 1000", "delivered_ms.p50"),
    "amqp_floor_p99_ms_at_1000": ("amqp at 1000", "delivered_ms.p99"),
    "embedded_p50_ms_at_5000": ("embedded at 5000", "delivered_ms.p50"),
    "embedded_p99_ms_at_5000": ("embedded at 5000", "delivered_ms.p99"),
    "relay_floor_p50_ms_at_5000": ("relay at 5000", "delivered_ms.p50"),
    "relay_floor_p99_ms_at_5000": ("relay at 5000", "delivered_ms.p99"),
}
OURS: Final[tuple[Servers, ...]] = ("embedded", "cluster")
COUNTS: Final = ("lost", "duplicates", "misordered")  # of all scenarios and repeats together

# ratio: figure over figure
RATIOS: Final[dict[str, tuple[str, str]]] = {
    "cluster_to_relay": ("cluster_delivered_per_s", "relay_floor_per_s"),
    "cluster_to_amqp": ("cluster_delivered_per_s", "amqp_floor_per_s"),
    "cluster_cpu_to_relay": ("cluster_cpu_us_per_msg", "relay_floor_cpu_us_per_msg"),
    "embedded_to_relay": ("embedded_delivered_per_s", "relay_floor_per_s"),
    "embedded_cpu_to_relay": ("embedded_cpu_us_per_msg", "relay_floor_cpu_us_per_msg"),
    "cluster_p50_to_amqp_at_1000": ("cluster_p50_ms_at_1000", "amqp_floor_p50_ms_at_1000"),
    "cluster_p99_to_amqp_at_1000": ("cluster_p99_ms_at_1000", "amqp_floor_p99_ms_at_1000"),
    "embedded_p50_to_relay_at_5000": ("embedded_p50_ms_at_5000", "relay_floor_p50_ms_at_5000"),
    "embedded_p99_to_relay_at_5000": ("embedded_p99_ms_at_5000", "relay_floor_p99_ms_at_5000"),
}


class Spread(NamedTuple):
    """What repeats gave: the one in the middle, and the extremes."""

    median: float
    low: float
    high: float


def at(result: Mapping[str, Any], path: str) -> float | None:
    """The number at "a.b" in a result, if it is there."""
    value: Any = result
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return float(value) if isinstance(value, int | float) else None


def spread(repeats: Sequence[Mapping[str, Any]], path: str) -> Spread | None:
    """Of the repeats that have the number."""
    values = [value for result in repeats if (value := at(result, path)) is not None]
    return Spread(statistics.median(values), min(values), max(values)) if values else None


def figures(results: Results) -> dict[str, float]:
    """The flat object: what was measured, under names that stay."""
    found: dict[str, float] = {}
    for name, (scenario, path) in FIGURES.items():
        told = spread(results.get(scenario, ()), path)
        if told is not None:
            found[name] = told.median
    for name in COUNTS:
        found[name] = sum(int(result.get(name, 0)) for repeats in results.values() for result in repeats)
    return found


def ratios(of: Mapping[str, float]) -> dict[str, float]:
    """Figures over their floors: what carries over to other machines."""
    return {name: round(of[a] / of[b], 4) for name, (a, b) in RATIOS.items() if of.get(a) is not None and of.get(b)}


def floor_of(scenario: Scenario, plan: Sequence[Scenario]) -> Scenario | None:
    """What a scenario is held against: the bare AMQP at its rate for a cluster's latency, else the relay under the same
    load, or under the usual one where it had no such load."""
    if scenario.servers == "relay" or scenario.work not in ("throughput", "latency"):
        return None
    if scenario.work == "latency":
        work = "amqp_latency" if scenario.servers.startswith("cluster") else "latency"
        there = [
            one
            for one in plan
            if one.work == work and one.rate == scenario.rate and one.servers in ("relay", "cluster")
        ]
        return next((one for one in there if one.work == "amqp_latency" or one.servers == "relay"), None)
    relays = [one for one in plan if one.servers == "relay" and one.work == "throughput"]
    load = (scenario.pairs, scenario.window, scenario.payload_bytes)
    same = [one for one in relays if (one.pairs, one.window, one.payload_bytes) == load]
    return next(iter(same or relays), None)


def to_floor(scenario: Scenario, plan: Sequence[Scenario], results: Results) -> dict[str, Any]:
    """The floor's name, and each number of a scenario as a ratio to the floor's."""
    floor = floor_of(scenario, plan)
    if floor is None:
        return {}
    paths = ("delivered_per_s", "server_cpu_us", "delivered_ms.p50", "delivered_ms.p99", "accepted_ms.p50")
    told: dict[str, Any] = {}
    for path in paths:
        ours, theirs = spread(results[scenario.name], path), spread(results[floor.name], path)
        if ours is not None and theirs is not None and theirs.median:
            told[path] = round(ours.median / theirs.median, 4)
    return {"floor": floor.name, **told} if told else {}


def per_cpu_s(plan: Sequence[Scenario], results: Results) -> dict[tuple[Servers, str], float]:
    """Messages for a CPU second of all server processes, by the servers and the kind of load."""
    told: dict[tuple[Servers, str], float] = {}
    for one in plan:
        cost = spread(results[one.name], "server_cpu_us")
        if one.work in ("throughput", "latency") and cost is not None and cost.median:
            told[one.servers, f"at_{one.rate:g}" if one.rate else "saturated"] = 1e6 / cost.median
    return told


def peer_ratios(plan: Sequence[Scenario], results: Results) -> dict[str, float]:
    """Messages for a CPU second, ours over each peer's, by the kind of load."""
    told: dict[str, float] = {}
    moved = per_cpu_s(plan, results)
    for (servers, load), theirs in moved.items():
        for ours in OURS:
            if servers in PEER_SERVERS and (ours, load) in moved:
                name = f"{ours}_per_cpu_s_to_{servers}_{load}".replace("-", "_")
                told[name] = round(moved[ours, load] / theirs, 3)
    return told
