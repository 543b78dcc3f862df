"""Metrics: valid OpenMetrics from real daemons, with a figure for every promise that is what really happened."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from bench.cluster import Cluster
from bench.processes import Chatd
from brokerd.links.memory import MemoryQueue
from brokerd.metrics import Buckets, ByLabel, Metrics, Sizes
from protocol.client import Client, ClientClosed
from protocol.errors import Code
from tests.operate.scraping import OPEN_METRICS, families, fetch, sample_names, value

# One for each promise and each bound, in an embedded chatd; in a cluster brokerd has the broker's.
NODE = {
    "chatd_node_accepted_total",
    "chatd_node_delivered_total",
    "chatd_node_acks_total",
    "chatd_node_gaps_total",
    "chatd_node_refused_sends_total",
    "chatd_node_refused_logins_total",
    "chatd_node_closed_sessions_total",
    "chatd_node_sessions",
    "chatd_node_connections_open",
    "chatd_node_outbox_bytes",
    "chatd_doors_strangers",
    "chatd_postbox_waiting_bytes",
    "chatd_postbox_batch_posts_bucket",
    "chatd_loop_lag_seconds_bucket",
    "chatd_parts_up",
    "process_resident_memory_bytes",
}
BROKER = {
    "chatd_broker_stored_total",
    "chatd_broker_repeats_total",
    "chatd_broker_failed_total",
    "chatd_broker_expired_total",
    "chatd_broker_receipts_total",
    "chatd_broker_waiting",
    "chatd_broker_waiting_bytes",
    "chatd_broker_round_posts_bucket",
    "chatd_loop_lag_seconds_bucket",
    "chatd_parts_up",
}


def test_counters_gauges_labels_and_histograms_are_valid_open_metrics() -> None:
    sizes = Sizes(100)
    for size in (1, 2, 3, 4, 100):
        sizes.of_bits[size.bit_length()] += 1
    metrics = Metrics(
        {
            "broker": lambda: {
                "stored": 3,
                "waiting": 2,
                "failed": ByLabel("reason", {"QUEUE_FULL": 4}),
                "round_posts": sizes.buckets(110),
            },
            "loop": lambda: {"lag_seconds": Buckets((0.01, 0.1), (5, 1, 2), 0.7)},
        }
    )
    encoded, kind = metrics.exposition(OPEN_METRICS)
    text = encoded.decode()
    assert kind.startswith("application/openmetrics-text")
    assert value(text, "chatd_broker_stored_total") == 3
    assert families(text)["chatd_broker_waiting"].type == "gauge"
    assert value(text, "chatd_broker_failed_total", reason="QUEUE_FULL") == 4
    at_most = {
        bound: value(text, "chatd_broker_round_posts_bucket", le=bound) for bound in ("1.0", "3.0", "7.0", "127.0")
    }
    assert at_most == {"1.0": 1, "3.0": 3, "7.0": 4, "127.0": 5}
    assert value(text, "chatd_broker_round_posts_sum") == 110
    assert value(text, "chatd_loop_lag_seconds_bucket", le="+Inf") == value(text, "chatd_loop_lag_seconds_count") == 8


def test_what_goes_down_is_no_counter() -> None:
    text = Metrics({"queue": MemoryQueue().statistics}).exposition(OPEN_METRICS)[0].decode()
    assert {it.type for name, it in families(text).items() if name.startswith("chatd_queue")} == {"gauge"}


async def test_a_message_shows_in_the_metrics_of_the_embedded_server(embedded_server: Chatd) -> None:
    port = embedded_server.http_port
    passwords = {name: embedded_server.add_user(name) for name in ("ann", "bob")}
    assert sample_names(fetch(port, "/metrics").text) >= NODE | BROKER

    def client(user: str) -> Client:
        return Client("127.0.0.1", embedded_server.tcp_port, user, "phone", password=passwords[user])

    async with client("ann") as ann, client("bob") as bob:
        for number in range(3):
            await ann.send("bob", b"tea %d" % number)
        taken = [message async for message in _some(bob, 3)]
        assert len(taken) == 3
        text = fetch(port, "/metrics").text
        assert value(text, "chatd_node_sessions") == 2
    assert value(text, "chatd_node_accepted_total") == 3
    assert value(text, "chatd_broker_stored_total") == 3
    assert value(text, "chatd_node_delivered_total") >= 3
    assert value(text, "chatd_postbox_batch_posts_count") == value(text, "chatd_postbox_batches_total")
    assert value(text, "chatd_postbox_batch_posts_sum") == value(text, "chatd_postbox_posted_total")
    assert value(text, "chatd_parts_up", part="store") == 1


async def _some(client: Client, count: int) -> AsyncIterator[object]:
    async for message in client:
        yield message
        count -= 1
        if not count:
            return


async def test_a_refused_login_and_a_failed_message_show_their_reason(embedded_server: Chatd) -> None:
    port = embedded_server.http_port
    password = embedded_server.add_user("ann")
    async with Client("127.0.0.1", embedded_server.tcp_port, "ann", "phone", password="wrong") as stranger:
        with pytest.raises(ClientClosed, match="BAD_CREDENTIALS"):
            await anext(aiter(stranger))
    async with Client("127.0.0.1", embedded_server.tcp_port, "ann", "phone", password=password) as ann:
        await ann.send("nobody-of-that-name", b"tea?")
        text = fetch(port, "/metrics").text
    assert value(text, "chatd_node_refused_logins_total", code=Code.BAD_CREDENTIALS.name) == 1
    assert value(text, "chatd_broker_failed_total", reason=Code.NO_SUCH_USER.name) == 1


async def test_brokerd_has_a_port_of_its_own_for_metrics_and_health(cluster: Cluster) -> None:
    for broker in cluster.brokers:
        told = fetch(broker.http_port, "/metrics")
        assert told.content_type.startswith("application/openmetrics-text")
        assert sample_names(told.text) >= BROKER | {"chatd_shards_redeliveries_total", "chatd_inbound_unconfirmed"}
        assert fetch(broker.http_port, "/livez").status == 200
        ready = fetch(broker.http_port, "/readyz")
        assert (ready.status, json.loads(ready.text)) == (
            200,
            {"ready": True, "parts": {"redis": "up", "rabbitmq": "up"}},
        )
        assert fetch(broker.http_port, "/").status == 404
    for node in cluster.nodes:
        assert sample_names(fetch(node.http_port, "/metrics").text) >= NODE
