"""Every test of a socket runs on both loops: uvloop is what chatd runs on, asyncio's own is what the contracts are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from tests.web.house import House, open_house

# pytest warns about a hook of a plugin that it may not know: pytest-asyncio declares this one.


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with open_house() as opened:
        yield opened


@pytest.fixture
async def echo_house() -> AsyncIterator[House]:
    async with open_house(echo=True) as opened:
        yield opened
