"""A run as one page that needs nothing else: tables, and plots as SVG in it. Drawn by matplotlib (the extra `bench`)."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.figures import RATIOS, spread
from bench.output import beside_peers
from bench.plan import PEER_SERVERS, Scenario

PERCENTILES: Final = ("p50", "p90", "p99", "p99_9", "max")
SWARM: Final = "swarm"
COLOURS: Final = {
    "chatd": "#2166ac", "chatd1": "#2166ac", "chatd2": "#67a9cf", "brokerd1": "#1b7837", "redis": "#b2182b",
    "rabbitmq": "#ef8a62", "relay": "#777777", "mosquitto": "#762a83", "nats": "#9970ab", "ejabberd": "#c51b7d",
    "prosody": "#e9a3c9", "rabbitmq-mqtt": "#b35806", "socketio1": "#01665e", "socketio2": "#5ab4ac",
}  # fmt: skip
STYLE: Final = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem; color: #1c1c1c; background: #fff }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem } figure { margin: 1rem 0 } svg { max-width: 100%; height: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .88rem } td, th { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #ddd }
td:first-child, th:first-child { text-align: left } .bad { color: #b2182b; font-weight: 600 } .note { color: #555 } .scroll { overflow-x: auto }
"""
Scenarios = Sequence[Mapping[str, Any]]

mpl.rcParams.update({"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9, "svg.hashsalt": "chatd"})


def page(run: Mapping[str, Any]) -> str:
    """The whole document."""
    parts = [
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>chatd bench {run['made_at']}</title>",
        f"<style>{STYLE}</style><h1>chatd, measured {html.escape(run['made_at'])}</h1>",
        _where(run),
        "<h2>Figures</h2>"
        + _table(("figure", "median"), [(name, _shown(value)) for name, value in run["figures"].items()]),
    ]
    rows = [(name, f"{value:g}") for name, value in run["ratios"].items() if name in RATIOS]
    if rows:
        parts.append("<h2>Ratios to the floors</h2>" + _table(("ratio", ""), rows))
    parts += _beside(run)
    for title, note, draw, chosen in _plots(run["scenarios"]):
        if chosen:
            parts.append(f"<h2>{title}</h2><p class='note'>{note}</p><figure>{_svg(draw, chosen)}</figure>")
    parts.append("<h2>Every scenario</h2>" + _scenario_table(run["scenarios"]))
    return "\n".join(parts) + "</html>\n"


def _beside(run: Mapping[str, Any]) -> list[str]:
    """Ours beside peers, where there are any."""
    plan = [Scenario(**one["plan"]) for one in run["scenarios"]]
    left_out = run["settings"].get("left_out", {})
    parts = [f"<p class='note'>Left out: {html.escape(f'{name}: {reason}')}</p>" for name, reason in left_out.items()]
    if any(one.servers in PEER_SERVERS for one in plan):
        head, rows = beside_peers(plan, {one["name"]: one["repeats"] for one in run["scenarios"]})
        says = "Messages for a CPU second of all server processes; × is how many of them ours moves for each of that server's."
        parts = ["<h2>Ours beside peers</h2>", f"<p class='note'>{says}</p>", _table(head, rows), *parts]
    return parts


def _where(run: Mapping[str, Any]) -> str:
    machine, commit = run["machine"], run["commit"]
    changed = f" and {commit['changed_files']} changed files" if commit["changed_files"] else ""
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    text = (
        f"{machine['cores']} cores of {machine['cpu']}, {machine['memory_mib'] // 1024} GiB, {machine['system']}; load "
        f"{machine['load_before']:.1f} at the end. Commit {commit['id'][:12]}{changed}. {versions}. "
        f"{run['settings']['repeats']} repeats, {run['seconds']:.0f} s in all."
    )
    figures = run["figures"]
    wrong = [name for name in ("lost", "duplicates", "misordered") if figures[name]]
    counts = f"lost {figures['lost']}, duplicates {figures['duplicates']}, misordered {figures['misordered']}"
    return f"<p>{html.escape(text)}</p><p class='{'bad' if wrong else 'note'}'>{counts}</p>"


# --- plots ---------------------------------------------------------------------------------------------------------

Draw = Callable[[Axes, Scenarios], None]


def _plots(scenarios: Scenarios) -> list[tuple[str, str, Draw, Scenarios]]:
    through = [
        one for one in scenarios if one["plan"]["work"] in ("throughput", "laden") and one["plan"]["devices"] == 1
    ]
    plain = [one for one in through if one["plan"]["transport"] == "tcp" and one["plan"]["payload_bytes"] == 100]
    usual = [one for one in plain if one["plan"]["servers"] in ("relay", "embedded", "cluster")]
    slow = [one for one in scenarios if one["plan"]["work"] in ("latency", "amqp_latency")]
    several = len({one["plan"]["pairs"] for one in usual}) > 1
    return [
        ("Throughput against concurrency", "100 B payloads, TCP; w is the window. Bars from the least to the most of the repeats.",
         _concurrency, usual if several else []),
        ("Throughput", "Delivered and acknowledged messages a second.", _throughput, through),
        ("Latency", "From the intended time to the delivery, by percentile.", _latency, slow),
        ("CPU by process, as much as goes through", "µs a message, user and system.", _cpu, through),
        ("CPU by process, at fixed rates", "µs a message, user and system.", _cpu, slow),
    ]  # fmt: skip


def _svg(draw: Draw, scenarios: Scenarios) -> str:
    figure = Figure(
        figsize=(8.6, max(3.2, 1.2 + 0.3 * len(scenarios)) if draw in (_cpu, _throughput) else 4.2), layout="tight"
    )
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    draw(axes, scenarios)
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    return re.sub(r"^.*?(?=<svg)", "", out.getvalue(), flags=re.DOTALL)


def _concurrency(axes: Axes, scenarios: Scenarios) -> None:
    lines: dict[str, list[tuple[int, Any]]] = {}
    for one in scenarios:
        told = spread(one["repeats"], "delivered_per_s")
        if told is not None:
            plan = one["plan"]
            lines.setdefault(f"{plan['servers']}, w {plan['window']}", []).append((plan["pairs"], told))
    for name, points in sorted(lines.items()):
        points.sort()
        pairs, values = [at for at, _ in points], [told for _, told in points]
        ends = [[told.median - told.low for told in values], [told.high - told.median for told in values]]
        style = "--" if name.startswith("relay") else "-"
        axes.errorbar(pairs, [told.median for told in values], yerr=ends, fmt="o" + style, ms=4, capsize=2, label=name)
    axes.set(xscale="log", yscale="log", xlabel="pairs", ylabel="delivered a second")
    axes.grid(which="both", alpha=0.25)
    axes.legend(frameon=False, fontsize=8)


def _throughput(axes: Axes, scenarios: Scenarios) -> None:
    told = [(one["name"], found) for one in reversed(scenarios) if (found := spread(one["repeats"], "delivered_per_s"))]
    values = [found.median for _, found in told]
    ends = [[found.median - found.low for _, found in told], [found.high - found.median for _, found in told]]
    colours = [_bar_colour(name) for name, _ in told]
    bars = axes.barh([name for name, _ in told], values, xerr=ends, color=colours, capsize=2)
    axes.bar_label(bars, labels=[f" {value:,.0f}" for value in values], fontsize=8)
    axes.margins(x=0.15)
    axes.set_xlabel("delivered a second")


def _bar_colour(name: str) -> str:
    if name in PEER_SERVERS:
        return COLOURS.get(name, COLOURS["socketio1"])
    return "#bbbbbb" if name.startswith(("relay", "amqp")) else "#2166ac"


def _latency(axes: Axes, scenarios: Scenarios) -> None:
    for one in scenarios:
        values = [spread(one["repeats"], f"delivered_ms.{name}") for name in PERCENTILES]
        if all(values):
            is_floor = one["plan"]["servers"] == "relay" or one["plan"]["work"] == "amqp_latency"
            axes.plot(PERCENTILES, [told.median for told in values if told], "o--" if is_floor else "o-", ms=4, label=one["name"])  # fmt: skip
    axes.set(yscale="log", ylabel="ms")
    axes.grid(which="both", alpha=0.25)
    axes.legend(frameon=False, fontsize=8, bbox_to_anchor=(1, 1), loc="upper left")


def _cpu(axes: Axes, scenarios: Scenarios) -> None:
    names = [one["name"] for one in reversed(scenarios)]
    processes = dict.fromkeys(
        process for one in scenarios for process in one["repeats"][0].get("processes", {}) if process != SWARM
    )
    left = [0.0] * len(names)
    for process in processes:
        path = f"processes.{process}.cpu_us_per_msg"
        used = [found.median if (found := spread(one["repeats"], path)) else 0.0 for one in reversed(scenarios)]
        axes.barh(names, used, left=left, label=process, color=COLOURS.get(process))
        left = [before + more for before, more in zip(left, used, strict=True)]
    for at, total in enumerate(left):
        axes.text(total, at, f" {total:.1f}", va="center", fontsize=8)
    axes.margins(x=0.1)
    axes.set_xlabel("µs of CPU a message")
    axes.legend(frameon=False, fontsize=8, bbox_to_anchor=(1, 1), loc="upper left")


# --- tables --------------------------------------------------------------------------------------------------------

_COLUMNS: Final = (
    ("delivered/s", "delivered_per_s", "{:,.0f}"),
    ("accepted/s", "accepted_per_s", "{:,.0f}"),
    ("stored/s", "stored_per_s", "{:,.0f}"),
    ("drained/s", "drained_per_s", "{:,.0f}"),
    ("logins/s", "logins_per_s", "{:,.0f}"),
    ("bytes/session", "bytes_per_session", "{:,.0f}"),
    ("accepted p50 ms", "accepted_ms.p50", "{:.2f}"),
    ("p50 ms", "delivered_ms.p50", "{:.2f}"),
    ("p99 ms", "delivered_ms.p99", "{:.2f}"),
    ("CPU µs", "server_cpu_us", "{:.1f}"),
    ("ours µs", "own_cpu_us", "{:.1f}"),
)


def _scenario_table(scenarios: Scenarios) -> str:
    used = [column for column in _COLUMNS if any(spread(one["repeats"], column[1]) for one in scenarios)]
    rows = []
    for one in scenarios:
        cells = [shape.format(told.median) if (told := spread(one["repeats"], path)) else "" for _, path, shape in used]
        of_floor = one["to_floor"].get("delivered_per_s") or one["to_floor"].get("delivered_ms.p50")
        promise = one["promise"]
        rows.append((one["name"] + (f" ({promise})" if promise else ""), *cells, f"{of_floor:.2f}" if of_floor else ""))
    return _table(("scenario", *(title for title, _, _ in used), "of floor"), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(row: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) + "</tr>"

    return f"<div class='scroll'><table>{line(head, 'th')}{''.join(line(row, 'td') for row in rows)}</table></div>"


def _shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:,.2f}"
