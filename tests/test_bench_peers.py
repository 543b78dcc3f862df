"""The other servers of the bench: each one's pair works end to end where its program is to be had, and a run goes on without
one that is not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from bench import targets, throughput
from bench.crowd import Target
from bench.figures import OURS
from bench.output import document, faults
from bench.peers.packages import Missing, is_here
from bench.peers.xmpp import XmppReceiver, XmppSender
from bench.plan import PEER_SERVERS, PEERS, PROMISES, Scenario, Servers
from bench.runner import Runner
from bench.targets import opened

KEEPERS: Final = [
    servers for servers in PEER_SERVERS if servers != "socketio"
]  # which promises nothing, and loses some
PROGRAMS: Final = {"mosquitto": "mosquitto", "nats": "nats-server", "ejabberd": "ejabberdctl", "prosody": "prosody"}
PAYLOAD_BYTES: Final = 40


@pytest.mark.parametrize("servers", KEEPERS)
async def test_what_a_peer_acknowledged_comes_once_and_in_order(servers: Servers, tmp_path: Path) -> None:
    program = PROGRAMS.get(servers)
    if program is not None and not is_here(program):
        pytest.skip(f"{program} is neither installed nor unpacked: make bench-peers fetches it")
    plan = Scenario(servers, "throughput", servers, pairs=3, window=8, warmup_s=0.1, seconds=0.4)
    try:
        with opened(servers, tmp_path) as target:
            result = await throughput.run(plan, target, "x")
            assert set(result["processes"]) > set(target.pids) > set()
    except Missing as reason:
        pytest.skip(str(reason))
    assert faults({servers: [result]}) == []
    assert result["delivered"] >= result["accepted"] > 3 * 8, "the windows were filled, and opened again"


# --- XMPP ----------------------------------------------------------------------------------------------------------


class Wire:
    """A transport that keeps what was written."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        """Nothing to close."""


FEATURES: Final = b"<stream:features><mechanisms xmlns='m'><mechanism>PLAIN</mechanism></mechanisms></stream:features>"
HEAD: Final = b"<?xml version='1.0'?><stream:stream id='1' from='localhost' xmlns='jabber:client'>"
LOGIN: Final = (
    HEAD + FEATURES + b"<iq type='result' id='new'/><success xmlns='s'/>" + HEAD + FEATURES
    + b"<iq type='result' id='bind'><bind xmlns='b'><jid>bob@localhost/1</jid></bind></iq><enabled xmlns='sm'/>"
)  # fmt: skip
SENT_TO_BOB: Final = b"".join(
    b"<message to='bob@localhost' id='%d' type='chat'><body>%020dxx</body></message>" % (number, number)
    for number in (0, 1, 1, 3)
)


@pytest.mark.parametrize("piece", [1, 7, 10_000])
async def test_an_xmpp_receiver_acknowledges_what_came_however_the_stream_was_cut(piece: int) -> None:
    bob, wire = XmppReceiver("bob"), Wire()
    bob.connection_made(wire)  # type: ignore[arg-type]
    stream = LOGIN + b"<presence from='bob@localhost/1'><x xmlns='p'/></presence>" + SENT_TO_BOB + b"<r xmlns='sm'/>"
    for at in range(0, len(stream), piece):
        bob.data_received(stream[at : at + piece])
    assert bob.ready.done()
    assert (bob.delivered, bob.duplicates, bob.misordered, bob.errors) == (3, 1, 1, [])
    assert wire.written.endswith(b"<a xmlns='urn:xmpp:sm:3' h='5'/>"), "four messages and a presence"


async def test_an_xmpp_sender_counts_what_the_servers_acknowledgement_covers() -> None:
    ann, wire = XmppSender("ann", "b<'b", PAYLOAD_BYTES, 4), Wire()
    ann.connection_made(wire)  # type: ignore[arg-type]
    ann.data_received(LOGIN)
    wire.written = b""
    ann.begin()
    assert wire.written.count(b'<message to="b&lt;\'b@localhost"') == 4
    assert wire.written.endswith(b"</message><r xmlns='urn:xmpp:sm:3'/>")
    assert len(wire.written.split(b"<body>")[1].split(b"</body>")[0]) == PAYLOAD_BYTES
    ann.data_received(b'<a xmlns="sm" h="3"/>')
    assert (ann.accepted, ann.sent) == (3, 7)
    ann.data_received(b"<message type='error' id='5'><body>x</body><error type='cancel'/></message>")
    assert len(ann.errors) == 1


# --- the run and its result ----------------------------------------------------------------------------------------


def test_a_peer_that_is_not_to_be_had_is_left_out_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def nowhere(home: Path) -> Iterator[Target]:
        raise Missing("prosody is not installed, and cannot be fetched")
        yield

    monkeypatch.setitem(targets.OPENS_PEER, "prosody", nowhere)
    plan = [
        Scenario(servers, "throughput", servers, pairs=1, window=1, warmup_s=0.0, seconds=0.1)
        for servers in ("prosody", "relay")
    ]
    runner = Runner(plan, 1, tmp_path)
    results = runner.run()
    assert runner.left_out == {"prosody": "prosody is not installed, and cannot be fetched"}
    assert results["prosody"] == []
    assert results["relay"][0]["delivered"] > 0


def peers_run() -> dict[str, Any]:
    """A run in which every peer cost twice what ours did."""
    took = dict.fromkeys(("p50", "p90", "p99", "p99_9", "max"), 1.0)
    results = {}
    for one in PEERS:
        cost_us = 10.0 if one.servers in OURS else 20.0
        processes = {one.servers: {"cpu_us_per_msg": cost_us}}
        results[one.name] = [{"server_cpu_us": cost_us, "delivered_ms": took, "processes": processes}]
    return document(PEERS, results, {"repeats": 1, "left_out": {}}, 1.0)


def test_every_peer_has_its_promise_and_its_ratios_to_ours() -> None:
    told = peers_run()
    for peer in PEER_SERVERS:
        assert PROMISES[peer]
        for ours in OURS:
            for load in ("saturated", "at_1000"):
                assert told["ratios"][f"{ours}_per_cpu_s_to_{peer.replace('-', '_')}_{load}"] == 2.0


def test_the_page_shows_ours_beside_peers_and_says_who_was_left_out() -> None:
    report = pytest.importorskip("bench.report", reason="matplotlib is not installed")
    run = peers_run()
    run["settings"]["left_out"] = {"prosody": "it is nowhere"}
    page = report.page(run)
    assert "Ours beside peers" in page
    assert all(f"<td>{peer}</td>" in page and peer in page for peer in PEER_SERVERS)
    assert "Left out: prosody: it is nowhere" in page
    assert {"ejabberd", "prosody", "rabbitmq-mqtt", "nats", "mosquitto"} <= set(report.COLOURS)
