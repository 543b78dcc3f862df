"""Judges two runs: each figure as a ratio to its floor where it has one, with the noise of its repeats.

Two runs of one commit differ, and so do two machines. A figure that has a floor is divided by it first, which takes the
machine out; then a change counts only when it is larger than what the repeats of both runs differ by among themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from bench.figures import COUNTS, FIGURES, Spread, at, spread
from bench.output import read, table

NOISE_MIN: Final = 0.05  # two medians that are closer than this are the same
_FLOORS: Final = {  # figure: the figure of the floor under the same name of a number
    "cluster_delivered_per_s": "relay_floor_per_s",
    "cluster_cpu_us_per_msg": "relay_floor_cpu_us_per_msg",
    "cluster_own_cpu_us_per_msg": "relay_floor_cpu_us_per_msg",
    "embedded_delivered_per_s": "relay_floor_per_s",
    "embedded_cpu_us_per_msg": "relay_floor_cpu_us_per_msg",
    "cluster_p50_ms_at_1000": "amqp_floor_p50_ms_at_1000",
    "cluster_p99_ms_at_1000": "amqp_floor_p99_ms_at_1000",
    "embedded_p50_ms_at_5000": "relay_floor_p50_ms_at_5000",
    "embedded_p99_ms_at_5000": "relay_floor_p99_ms_at_5000",
}


class Change(NamedTuple):
    """One figure in two runs. `noise`: how far apart the repeats of a run are, as a share of the median."""

    name: str
    before: Spread
    after: Spread
    ratio: float
    noise: float
    verdict: str


def compare(before: Path, after: Path) -> int:
    """Print the comparison; 1 when something is worse, 2 when the files cannot be compared."""
    try:
        runs = read(before), read(after)
    except (OSError, ValueError) as fault:
        print(f"cannot be compared: {fault}")
        return 2
    found = changes(*runs)
    wrong = [name for name in COUNTS if runs[1]["figures"].get(name)]
    print(told(before, after, runs, found))
    for name in wrong:
        print(f"{after} has {runs[1]['figures'][name]} {name}: no speed makes up for that")
    worse = [change.name for change in found if change.verdict == "worse"]
    better = sum(change.verdict == "better" for change in found)
    same = len(found) - len(worse) - better
    print(f"verdict: {len(worse)} worse, {better} better, {same} within the noise" + "".join(f"\n  worse: {name}" for name in worse))  # fmt: skip
    return 1 if worse or wrong else 0


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """Every figure that both runs have."""
    found = []
    for name, (scenario, path) in FIGURES.items():
        one, other = _values(before, scenario, path, name), _values(after, scenario, path, name)
        if one is not None and other is not None and one.median and other.median:
            found.append(_change(name, one, other))
    return found


def _values(run: Mapping[str, Any], scenario: str, path: str, name: str) -> Spread | None:
    """The figure's repeats, each divided by the floor's of the same repeat."""
    repeats = _repeats(run, scenario)
    floor = _FLOORS.get(name)
    if floor is None:
        return spread(repeats, path)
    floor_scenario, floor_path = FIGURES[floor]
    pairs = zip(repeats, _repeats(run, floor_scenario), strict=False)
    divided = [
        {"ratio": ours / theirs}
        for mine, its in pairs
        if (ours := at(mine, path)) is not None and (theirs := at(its, floor_path))
    ]
    return spread(divided, "ratio") or spread(repeats, path)


def _repeats(run: Mapping[str, Any], scenario: str) -> Sequence[Mapping[str, Any]]:
    return next((one["repeats"] for one in run["scenarios"] if one["name"] == scenario), ())


def _change(name: str, before: Spread, after: Spread) -> Change:
    ratio = after.median / before.median
    noise = max(NOISE_MIN, *((one.high - one.low) / one.median for one in (before, after)))
    is_more_better = name.endswith("_per_s")
    if abs(ratio - 1) <= noise or before.low <= after.median <= before.high:
        verdict = "same"
    else:
        verdict = "better" if (ratio > 1) == is_more_better else "worse"
    return Change(name, before, after, ratio, noise, verdict)


def told(before: Path, after: Path, runs: Sequence[Mapping[str, Any]], found: Sequence[Change]) -> str:
    """For people."""
    lines = [
        f"{label}: {path}, commit {run['commit']['id'][:10]}"
        + (f" and {run['commit']['changed_files']} changed files" if run["commit"]["changed_files"] else "")
        + f", {run['made_at']}, {run['machine']['cores']} cores of {run['machine']['cpu']}"
        for label, path, run in zip(("before", "after "), (before, after), runs, strict=True)
    ]
    if any(len(one["repeats"]) < 2 for run in runs for one in run["scenarios"]):
        lines.append("a run without repeats does not know its own noise: repeat it (--repeats 3)")
    rows = [
        (
            change.name + (" / its floor" if change.name in _FLOORS else ""),
            _shown(change.before),
            _shown(change.after),
            f"× {change.ratio:.2f}",
            f"± {change.noise:.0%}",
            change.verdict,
        )
        for change in found
    ]
    return "\n".join([*lines, "", table(("figure", "before", "after", "change", "noise", "verdict"), rows), ""])


def _shown(values: Spread) -> str:
    return f"{values.median:.4g} [{values.low:.4g}…{values.high:.4g}]"
