"""Starts the servers of a scenario and describes them: where they listen, which processes count, what they count."""

from __future__ import annotations

import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from bench.cluster import Cluster
from bench.crowd import Target
from bench.peers.ejabberd import ejabberd
from bench.peers.mqtt import mosquitto, rabbitmq_mqtt
from bench.peers.nats import nats
from bench.peers.prosody import prosody
from bench.peers.socketio import socketio_servers
from bench.plan import Servers
from bench.ports import free_port
from bench.processes import Chatd, end_with_parent
from bench.servers import Fsync, RedisServer
from bench.tokens import Mint
from bench.transports import Door, make_certificate

NODES: Final = 2
BROKERS: Final = 1
SESSIONS_MAX: Final = 20_000  # all of them come from one address
_LIMITS: Final = {
    "CHATD_LIMITS_CONNECTIONS_MAX": str(SESSIONS_MAX),
    "CHATD_LIMITS_CONNECTIONS_PER_ADDRESS_MAX": str(SESSIONS_MAX),
}
_CLASSIC: Final = ("bench.inside.classic_chatd", "bench.inside.classic_brokerd")
OPENS_PEER: Final = {
    "mosquitto": mosquitto,
    "nats": nats,
    "ejabberd": ejabberd,
    "prosody": prosody,
    "rabbitmq-mqtt": rabbitmq_mqtt,
    "socketio": socketio_servers,
}


@contextmanager
def opened(servers: Servers, folder: Path, *, nodes: int = NODES, brokers: int = BROKERS) -> Iterator[Target]:
    """The servers run until the block ends; their data go with it."""
    home = folder / f"{servers}-{free_port()}"
    home.mkdir()
    try:
        if servers == "relay":
            with _relay() as target:
                yield target
        elif servers in OPENS_PEER:
            with OPENS_PEER[servers](home) as target:
                yield target
        elif servers in ("embedded", "embedded-tls"):
            with _embedded(home, servers.endswith("-tls")) as target:
                yield target
        else:
            with _cluster(home, servers, nodes, brokers) as target:
                yield target
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def _relay() -> Iterator[Target]:
    port = free_port()
    words = [sys.executable, "-m", "bench.floor_relay", str(port)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, preexec_fn=end_with_parent) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield Target([Door(port)], {"relay": process.pid}, dict, lambda user: user)
        finally:
            process.kill()


def _doors(nodes: Sequence[Chatd], certificate: Path | None) -> list[Door]:
    return [Door(node.tcp_port, node.http_port, certificate) for node in nodes]


def _tls(home: Path) -> tuple[Path, dict[str, str]]:
    certificate, key = make_certificate(home)
    return certificate, {"CHATD_TCP_TLS_CERT": str(certificate), "CHATD_TCP_TLS_KEY": str(key)}


@contextmanager
def _embedded(home: Path, has_tls: bool) -> Iterator[Target]:
    certificate, env = _tls(home) if has_tls else (None, {})
    mint = Mint(home / "chatd")
    server = Chatd(home / "chatd", env={**_LIMITS, **env})
    with ExitStack() as stack:
        stack.callback(server.stop)
        server.start()
        counters = partial(counted, [server])
        yield Target(_doors([server], certificate), {"chatd": server.pid}, counters, mint.token)


@contextmanager
def _cluster(home: Path, servers: Servers, nodes: int, brokers: int) -> Iterator[Target]:
    certificate, env = _tls(home) if servers == "cluster-tls" else (None, {})
    mint = Mint(home / "chatd")
    fsync: Fsync = "everysec" if servers == "cluster-everysec" else "always"
    modules = _CLASSIC if servers == "cluster-classic" else ("chatd", "brokerd")
    env = {**_LIMITS, **env}
    with Cluster(home, nodes=nodes, brokers=brokers, fsync=fsync, env=env, modules=modules) as cluster:
        counters = partial(counted, cluster.nodes, cluster.redis)
        yield Target(_doors(cluster.nodes, certificate), cluster.pids, counters, mint.token, cluster.rabbit.url)


def counted(nodes: Sequence[Chatd], redis: RedisServer | None = None) -> dict[str, float]:
    """The counters of all nodes together, from /metrics, and how many scripts Redis was asked to run."""
    total: dict[str, float] = {}
    for node in nodes:
        with urllib.request.urlopen(f"http://127.0.0.1:{node.http_port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        for line in text.splitlines():
            name, _, value = line.partition(" ")
            if name.endswith("_total"):
                total[name] = total.get(name, 0.0) + float(value)
    if redis is not None:
        total["redis_commands"] = redis_commands(redis)
    return total


def redis_commands(redis: RedisServer) -> float:
    """How many scripts clients called so far (all that the hot path sends). What they call inside is counted as one."""
    answer = redis.command("INFO", "commandstats").decode()
    calls = {line.partition(":")[0]: line.partition("calls=")[2].partition(",")[0] for line in answer.splitlines()}
    return sum(float(calls.get(f"cmdstat_{name}", 0)) for name in ("evalsha", "eval", "fcall"))
