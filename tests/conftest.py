"""Fixtures that more than one folder of tests uses: real servers, started once a session on free ports."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.servers import RedisServer


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A private Redis that fsyncs before it answers. Shared: a test wipes it first, and leaves it running."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server
