from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from random import Random
from typing import Any

import pytest

from protocol.client import Backoff, Client
from tests.client.manual_clock import ManualClock
from tests.client.small_server import SmallServer, small_server


@pytest.fixture
async def server() -> AsyncIterator[SmallServer]:
    async with small_server() as started:
        yield started


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def make_client(server: SmallServer, clock: ManualClock) -> Callable[..., Client]:
    """A client of the small server, on the manual clock, with seeded waits."""

    def make(user: str = "ann", device: str = "laptop", **options: Any) -> Client:
        options.setdefault("password", "secret")
        port = server.ws_port if options.get("transport") == "ws" else server.tcp_port
        return Client(
            "127.0.0.1", port, user, device, clock=clock, backoff=Backoff(Random(7).uniform), **options
        )  # fmt: skip

    return make
