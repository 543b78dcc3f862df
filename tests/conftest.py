"""Fixtures that more than one folder of tests uses: real servers, started once a session on free ports."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.cluster import Cluster
from bench.processes import Chatd
from bench.rabbit_server import RabbitServer
from bench.servers import RedisServer


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A private Redis that fsyncs before it answers. Shared: a test wipes it first, and leaves it running."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def rabbit_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitServer]:
    """A private RabbitMQ. Shared: a test takes queue names of its own, and leaves it running."""
    with RabbitServer(tmp_path_factory.mktemp("rabbit")) as server:
        yield server


@pytest.fixture
def embedded_server(tmp_path: Path) -> Iterator[Chatd]:
    """A fresh embedded chatd: add_user(name) -> password, tcp_port, http_port, kill9(), start() again on its data."""
    server = Chatd(tmp_path / "chatd")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A private Redis and RabbitMQ, two chatd, two brokerd. Shared: a test makes users of its own, and mends what it
    killed before it ends."""
    with Cluster(tmp_path_factory.mktemp("cluster"), lease_s=3) as running:
        yield running
