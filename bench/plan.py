"""What is measured: scenarios as data. A scenario names its servers and its work; nothing here does anything."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

from bench.transports import Transport

Work = Literal["throughput", "latency", "offline", "laden", "logins", "idle", "amqp_throughput", "amqp_latency"]
Servers = Literal[
    "relay", "embedded", "embedded-tls", "cluster", "cluster-tls", "cluster-everysec", "cluster-classic",
    "mosquitto", "nats", "ejabberd", "prosody", "rabbitmq-mqtt", "socketio",
]  # fmt: skip

WARMUP_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """One measurement. What a work has no use for is left at its default."""

    name: str
    work: Work
    servers: Servers
    pairs: int = 100  # senders, each with a receiver of its own
    devices: int = 1  # of each receiver
    window: int = 32  # a sender's messages without ACCEPTED
    payload_bytes: int = 100
    transport: Transport = "tcp"
    rate: float = 0.0  # messages a second over all pairs (latency)
    count: int = 0  # messages (offline, laden), logins, or sessions (idle)
    warmup_s: float = WARMUP_S  # dropped
    seconds: float = 8.0  # measured
    held_awake: bool = True  # latency: keep the processor out of idle states, where permitted
    fresh: bool = False  # on servers of its own, which have served nobody yet


# Servers that run at the same time, so that repeats of their scenarios can be interleaved; the others stay idle.
TOGETHER: Final[tuple[tuple[Servers, ...], ...]] = (
    ("relay", "embedded", "cluster", "mosquitto", "nats", "ejabberd", "prosody", "rabbitmq-mqtt", "socketio"),
    ("embedded-tls", "cluster-tls"),
    ("cluster-everysec",),
    ("cluster-classic",),
)

# The figures of a run come from these, and `bench-quick` runs nothing else.
CORE: Final = (
    Scenario("relay", "throughput", "relay"),
    Scenario("embedded", "throughput", "embedded"),
    Scenario("cluster", "throughput", "cluster"),
    Scenario("amqp", "amqp_throughput", "cluster"),
    Scenario("relay at 5000", "latency", "relay", rate=5000),
    Scenario("embedded at 5000", "latency", "embedded", rate=5000),
    Scenario("cluster at 1000", "latency", "cluster", rate=1000),
    Scenario("amqp at 1000", "amqp_latency", "cluster", rate=1000),
)

QUICK: Final = tuple(replace(scenario, warmup_s=1.0, seconds=3.5) for scenario in CORE)
_MODES: Final[tuple[Servers, ...]] = ("embedded", "cluster")
_WITH_FLOOR: Final[tuple[Servers, ...]] = ("relay", *_MODES)


def _concurrency() -> list[Scenario]:
    return [
        Scenario(f"{mode}, {pairs} pairs, window {window}", "throughput", mode, pairs=pairs, window=window, seconds=6)
        for mode in _WITH_FLOOR
        for pairs in (1, 10, 100, 1000)
        for window in (1, 32)
        if (pairs, window) != (100, 32)  # is in CORE
    ]


def _payloads_and_transports() -> list[Scenario]:
    made = [Scenario(f"{mode}, 4 KiB", "throughput", mode, payload_bytes=4096, seconds=6) for mode in _WITH_FLOOR]
    made += [Scenario(f"{mode}, WebSocket", "throughput", mode, transport="ws", seconds=6) for mode in _MODES]
    made.append(Scenario("embedded, TLS", "throughput", "embedded-tls", transport="tls", seconds=6))
    made.append(Scenario("cluster, TLS", "throughput", "cluster-tls", transport="tls", seconds=6))
    return made


def _rates() -> list[Scenario]:
    core = {(one.servers, one.rate) for one in CORE}
    made = [
        Scenario(f"{mode} at {rate}", "latency", mode, rate=rate)
        for mode in _WITH_FLOOR
        for rate in (500, 1000, 5000, 15_000)
        if (mode, rate) not in core
    ]
    made += [Scenario(f"amqp at {rate}", "amqp_latency", "cluster", rate=rate) for rate in (500, 5000, 15_000)]
    made += [
        Scenario("embedded at 5000, idle states", "latency", "embedded", rate=5000, held_awake=False),
        Scenario("cluster at 1000, idle states", "latency", "cluster", rate=1000, held_awake=False),
    ]
    return made


def _crowds() -> list[Scenario]:
    made: list[Scenario] = []
    for mode in _MODES:
        made += [
            Scenario(f"{mode}, to absent users", "offline", mode, count=50_000),
            Scenario(f"{mode}, logins", "logins", mode, count=10_000),
            Scenario(f"{mode}, 1000000 waiting for others", "laden", mode, count=1_000_000, seconds=6, fresh=True),
            Scenario(f"{mode}, 10 devices", "throughput", mode, pairs=1, devices=10, seconds=6),
        ]
        made += [
            Scenario(f"{mode}, {count} idle, {transport}", "idle", mode, transport=transport, count=count, fresh=True)
            for transport in ("tcp", "ws")
            for count in (1000, 10_000)
        ]
    made.append(
        Scenario("embedded, 10000 idle, tls", "idle", "embedded-tls", transport="tls", count=10_000, fresh=True)
    )
    return made


def _durability() -> list[Scenario]:
    return [
        Scenario("cluster, everysec", "throughput", "cluster-everysec"),
        Scenario("cluster, everysec, at 1000", "latency", "cluster-everysec", rate=1000),
        Scenario("cluster, classic queues", "throughput", "cluster-classic"),
        Scenario("cluster, classic queues, at 1000", "latency", "cluster-classic", rate=1000),
    ]


FULL: Final = (*CORE, *_concurrency(), *_payloads_and_transports(), *_rates(), *_crowds(), *_durability())

# What each one's acknowledgement to the sender promises.
PROMISES: Final[dict[Servers, str]] = {
    "relay": "nothing",
    "embedded": "fsynced",
    "cluster": "fsynced by a quorum queue",
    "cluster-everysec": "fsynced by a quorum queue; Redis a second later",
    "cluster-classic": "in a classic queue: written, not fsynced",
    "mosquitto": "in memory, saved every 30 minutes",
    "nats": "written to a file, not fsynced for each message",
    "ejabberd": "handled: in the receiver's session in memory, or on disk without fsync",
    "prosody": "handled: in the receiver's session in memory, or in a file without fsync",
    "rabbitmq-mqtt": "fsynced in a durable classic queue",
    "socketio": "published to Redis, not stored",
}
PEER_SERVERS: Final[tuple[Servers, ...]] = ("mosquitto", "nats", "ejabberd", "prosody", "rabbitmq-mqtt", "socketio")
PEERS: Final = tuple(
    scenario
    for servers in (*_WITH_FLOOR, *PEER_SERVERS)
    for scenario in (
        Scenario(servers, "throughput", servers, warmup_s=1.0, seconds=5.0),
        Scenario(f"{servers} at 1000", "latency", servers, rate=1000, warmup_s=1.0, seconds=5.0),
    )
)

assert len({scenario.name for scenario in FULL}) == len(FULL), "a scenario is found by its name"
