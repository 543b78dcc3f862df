"""The bench is believed only if it finds what is wrong: lost, doubled and misordered messages, a server that stalls, a change
that is larger than the noise, and none that is not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench import latency, throughput
from bench.compare import changes, compare
from bench.crowd import Target
from bench.figures import COUNTS, FIGURES, figures, ratios
from bench.floor_relay import Relay
from bench.output import SCHEMA, document, faults, read, write
from bench.plan import FULL, PEERS, QUICK, TOGETHER, Scenario
from bench.transports import Door
from protocol.wire import HEAD, Type

PROMISED = {
    "cluster_delivered_per_s", "cluster_cpu_us_per_msg", "cluster_own_cpu_us_per_msg", "embedded_delivered_per_s",
    "embedded_cpu_us_per_msg", "relay_floor_per_s", "relay_floor_cpu_us_per_msg", "cluster_p50_ms_at_1000",
    "cluster_p99_ms_at_1000", "amqp_floor_p50_ms_at_1000", "embedded_p50_ms_at_5000", "embedded_p99_ms_at_5000", "lost",
    "duplicates", "misordered",
}  # fmt: skip
SHORT = Scenario("relay", "throughput", "relay", pairs=4, window=8, warmup_s=0.05, seconds=0.2)
PACED = replace(SHORT, work="latency", rate=200.0, pairs=2, seconds=0.5)
STALL_S = 0.3


# --- the load ------------------------------------------------------------------------------------------------------


class Spoilt(Relay):
    """A relay that does to every 50th delivery what `deed` says."""

    deed = ""
    passed = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        write = self.write

        def spoil(data: bytes) -> None:
            write(b"".join(self.spoilt(frame) for frame in frames(data)))

        self.write = spoil

    def spoilt(self, frame: bytes) -> bytes:
        """One frame to a client."""
        if frame[4] != Type.DELIVER or not self.deed:
            return frame
        Spoilt.passed += 1
        if Spoilt.passed % 50 == 0:
            return {"drop": b"", "double": frame + frame}.get(self.deed, frame)
        return frame


def frames(data: bytes) -> list[bytes]:
    """Whole frames."""
    out, at = [], 0
    while at < len(data):
        stop = at + HEAD.size + HEAD.unpack_from(data, at)[0]
        out.append(data[at:stop])
        at = stop
    return out


@asynccontextmanager
async def relay(deed: str = "") -> AsyncIterator[Target]:
    """A relay in this process."""
    Relay.users.clear()
    kind = type("Deed", (Spoilt,), {"deed": deed})
    server = await asyncio.get_running_loop().create_server(kind, "127.0.0.1", 0)
    async with server:
        yield Target([Door(server.sockets[0].getsockname()[1])], {}, dict, lambda user: user)


async def test_a_good_server_is_found_good() -> None:
    async with relay() as target:
        result = await throughput.run(SHORT, target, "x")
    assert (result["lost"], result["duplicates"], result["misordered"], result["errors"]) == (0, 0, 0, [])
    assert result["delivered"] == result["accepted"] > 100
    assert result["delivered_per_s"] > 0


@pytest.mark.parametrize(("deed", "found"), [("drop", ("lost", "misordered")), ("double", ("duplicates",))])
async def test_a_server_that_loses_or_doubles_messages_is_found_out(
    deed: str, found: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.crowd.DRAIN_S_MAX", 0.2)
    async with relay(deed) as target:
        result = await throughput.run(SHORT, target, "x")
    assert all(result[name] > 0 for name in found)
    assert faults({"relay": [result]}) != []


async def test_a_stall_of_the_server_is_in_every_latency_that_it_delayed(monkeypatch: pytest.MonkeyPatch) -> None:
    held: dict[Relay, bytes] = {}
    whole = Relay.data_received
    is_stalled = False

    def data_received(self: Relay, data: bytes) -> None:
        if is_stalled:
            held[self] = held.get(self, b"") + data
        else:
            whole(self, data)

    def stall(begins: bool) -> None:
        nonlocal is_stalled
        is_stalled = begins
        for line, data in () if begins else tuple(held.items()):
            whole(line, data)

    monkeypatch.setattr(Relay, "data_received", data_received)
    async with relay() as target:
        loop = asyncio.get_running_loop()
        loop.call_later(0.4, stall, True)
        loop.call_later(0.4 + STALL_S, stall, False)
        result = await latency.run(PACED, target, "x")
    assert held, "the stall fell into the measurement"
    assert result["delivered_ms"]["max"] >= STALL_S * 800
    assert result["delivered_ms"]["p90"] >= STALL_S * 250, "a closed loop would have seen one slow message"
    assert result["lost"] == 0


# --- the plan and its figures --------------------------------------------------------------------------------------


def test_every_figure_that_is_promised_is_measured_by_the_quick_run() -> None:
    assert set(FIGURES) | set(COUNTS) >= PROMISED
    assert {scenario for scenario, _ in FIGURES.values()} <= {one.name for one in QUICK}
    results = {name: [{}] for name in {one.name for one in QUICK}}
    for scenario, path in FIGURES.values():
        part: dict[str, Any] = results[scenario][0]
        *parents, last = path.split(".")
        for parent in parents:
            part = part.setdefault(parent, {})
        part[last] = 2.0
    told = figures(results)
    assert set(told) >= PROMISED
    assert set(ratios(told).values()) == {1.0}


def test_the_servers_of_every_scenario_are_started_by_some_group() -> None:
    started = {servers for group in TOGETHER for servers in group}
    assert {one.servers for one in (*FULL, *PEERS)} <= started


# --- comparing -----------------------------------------------------------------------------------------------------


def run_of(tmp_path: Path, name: str, cluster: list[float], relay_: list[float]) -> Path:
    """A document of the quick run's shape in which these were delivered."""
    plan = [one for one in QUICK if one.name in ("cluster", "relay")]
    results = {"cluster": [{"delivered_per_s": value} for value in cluster], "relay": [{"delivered_per_s": value} for value in relay_]}  # fmt: skip
    path = tmp_path / f"{name}.json"
    write(document(plan, results, {"repeats": len(cluster)}, 1.0), path)
    return path


@pytest.mark.parametrize(
    ("after", "floor_after", "verdict"),
    [
        ([50_000, 51_000, 49_000], [200_000, 200_000, 200_000], "same"),
        ([25_000, 25_500, 24_500], [100_000, 100_000, 100_000], "same"),  # the machine is slower, not the server
        ([40_000, 41_000, 39_500], [200_000, 200_000, 200_000], "worse"),
        ([62_000, 61_000, 62_500], [200_000, 200_000, 200_000], "better"),
        ([40_000, 70_000, 30_000], [200_000, 200_000, 200_000], "same"),  # too noisy to say anything
    ],
)
def test_a_change_counts_when_it_is_larger_than_the_noise_and_not_the_machines(
    tmp_path: Path, after: list[float], floor_after: list[float], verdict: str
) -> None:
    before = run_of(tmp_path, "before", [50_000, 51_500, 49_500], [200_000, 201_000, 199_000])
    later = run_of(tmp_path, "after", after, floor_after)
    [change] = [one for one in changes(read(before), read(later)) if one.name == "cluster_delivered_per_s"]
    assert change.verdict == verdict


def test_runs_of_another_schema_are_not_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = run_of(tmp_path, "good", [1.0], [1.0])
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps({"schema": SCHEMA + 1}))
    assert compare(good, bad) == 2
    assert "cannot be compared" in capsys.readouterr().out
