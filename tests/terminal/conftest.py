from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.client.small_server import SmallServer, small_server


@pytest.fixture
async def server() -> AsyncIterator[SmallServer]:
    async with small_server() as started:
        yield started
