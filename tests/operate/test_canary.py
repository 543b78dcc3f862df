"""The canary: what it measures is the way of every message, nobody sees it as a person, and an outage shows and passes."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from bench.cluster import Cluster
from bench.processes import Chatd
from chatd.auth.keys import parse_keys
from chatd.auth.own import own_names
from chatd.auth.tokens import Expected, mint
from protocol.client import Client, ClientClosed
from tests.operate.scraping import families, fetch, value
from tests.tcp_proxy import proxied

OFTEN = {"CHATD_CANARY_EVERY_S": "0.2"}
WAIT_S = 60  # the client of the canary comes back after a BUSY in its own time


class Seen(NamedTuple):
    """What a scraper sees of a canary."""

    accepted: float
    delivered: float
    late: float
    age_s: float


def look(server: Chatd) -> Seen:
    text = fetch(server.http_port, "/metrics").text
    names = ("accepted_seconds_count", "delivered_seconds_count", "late_total", "age_seconds")
    return Seen(*(value(text, f"chatd_canary_{name}") for name in names))


async def seen(server: Chatd, is_so: Callable[[Seen], bool]) -> Seen:
    """The first look at which it is so."""
    end_s = time.monotonic() + WAIT_S
    while not is_so(now := await asyncio.to_thread(look, server)):
        assert time.monotonic() < end_s, now
        await asyncio.sleep(0.05)
    return now


async def test_it_measures_on_a_server_that_nobody_uses_and_is_no_person(tmp_path: Path) -> None:
    server = Chatd(tmp_path / "chatd", env={**OFTEN, "CHATD_DRAIN_S_MAX": "600"})  # a stop that waited would be late
    server.start()
    try:
        now = await seen(server, lambda now: now.delivered >= 4)
        assert now.accepted >= 3
        assert now.age_s < WAIT_S
        text = fetch(server.http_port, "/metrics").text
        assert value(text, "chatd_node_sessions") == 0
        assert value(text, "chatd_node_accepted_total") >= 4, "it takes the way of everybody"
        assert json.loads(server.ctl("who", "--json")) == []
        assert json.loads(server.ctl("sessions", "--json")) == []
        status = json.loads(server.ctl("status", "--json"))
        assert (status["sessions"], status["users"]) == (0, 0)
        assert [len(json.loads(server.ctl("sessions", name, "--json"))) for name in own_names("chatd")] == [1, 1]
    finally:
        assert server.stop() == 0
    for name in own_names("chatd"):
        assert len(json.loads(server.ctl("queue", name, "--json"))["waiting"]) <= 1, "nothing piles up"


def test_without_it_nothing_is_said_of_it(embedded_server: Chatd) -> None:
    assert [name for name in families(fetch(embedded_server.http_port, "/metrics").text) if "canary" in name] == []


async def test_nobody_comes_in_under_its_name(tmp_path: Path) -> None:
    server = Chatd(tmp_path / "chatd", env=OFTEN)
    server.ctl("keys", "init")
    ring = parse_keys((server.data_dir / "keys.toml").read_text(), server.data_dir)
    assert ring.active is not None
    name = own_names("chatd")[0]
    token = mint(ring.keys[ring.active], name, Expected("chatd"), time.time(), 60)
    for words in (["user", "add", name, "--generate"], ["token", name]):
        with pytest.raises(subprocess.CalledProcessError) as refused:
            server.ctl(*words)
        assert "chatd's own" in refused.value.stderr
    server.start()
    try:
        for user in (name, ""):
            async with Client("127.0.0.1", server.tcp_port, user, "phone", token=token) as stranger:
                with pytest.raises(ClientClosed, match="BAD_CREDENTIALS"):
                    await anext(aiter(stranger))
        before = await seen(server, lambda now: now.delivered >= 1)
        await seen(server, lambda now: now.delivered > before.delivered)
    finally:
        server.stop()


def third_node(cluster: Cluster, folder: Path, name: str, rabbit_port: int) -> Chatd:
    """Another chatd of the cluster, with a canary; it finds RabbitMQ at a port of its own."""
    env = {key: text for key, text in cluster.nodes[0].env.items() if key.startswith("CHATD_")}
    ours = {"CHATD_NODE", "CHATD_DATA_DIR", "CHATD_TCP_PORT", "CHATD_HTTP_PORT"}
    env = {key: text for key, text in env.items() if key not in ours} | OFTEN
    env["CHATD_RABBIT_URL"] = env["CHATD_RABBIT_URL"].replace(str(cluster.rabbit.port), str(rabbit_port))
    return Chatd(folder / name, name, env)


async def test_rabbitmq_away_shows_and_passes(cluster: Cluster, tmp_path: Path) -> None:
    async with proxied(cluster.rabbit.port) as rabbit:
        node = third_node(cluster, tmp_path, "canary-r", rabbit.port)
        await node.restart()
        try:
            await seen(node, lambda now: now.delivered >= 2)
            rabbit.stall()
            rabbit.part()
            before = await seen(node, lambda now: now.age_s > 1)
            away = await seen(node, lambda now: now.late >= before.late + 3)
            assert away.delivered == before.delivered
            assert away.age_s > before.age_s
            rabbit.go_on()
            await seen(node, lambda now: now.delivered >= away.delivered + 3 and now.age_s < away.age_s)
        finally:
            await asyncio.to_thread(node.stop)


async def test_its_way_leads_through_brokerd(cluster: Cluster, tmp_path: Path) -> None:
    node = third_node(cluster, tmp_path, "canary-b", cluster.rabbit.port)
    await node.restart()
    try:
        await seen(node, lambda now: now.delivered >= 2)
        try:
            for broker in cluster.brokers:
                await asyncio.to_thread(broker.stop)
            before = await asyncio.to_thread(look, node)
            away = await seen(node, lambda now: now.late >= before.late + 5)
            assert away.delivered <= before.delivered + 1
            assert away.accepted > away.delivered, "it is durable, and waits"
        finally:
            for broker in cluster.brokers:
                await broker.restart()
        back = await seen(node, lambda now: now.delivered >= away.delivered + 3)
        text = await asyncio.to_thread(lambda: fetch(node.http_port, "/metrics").text)
        assert value(text, "chatd_canary_given_up_total") == 0
        assert back.accepted >= away.accepted
    finally:
        assert await asyncio.to_thread(node.stop) == 0
