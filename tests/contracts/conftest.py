"""The stores under contract: each test that asks for one of these fixtures runs once for every technology."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from brokerd.ports import Register, SentQueue
from tests.contracts.letters import GEN, NOW
from tests.contracts.store_factories import FACTORIES, Bounds, Stores


@pytest.fixture
def bounds() -> Bounds:
    """The bounds of a user's queue; a test that wants others parametrizes this name."""
    return Bounds()


@pytest.fixture(params=list(FACTORIES))
async def stores(request: pytest.FixtureRequest, bounds: Bounds) -> AsyncIterator[Stores]:
    """An empty SentQueue and the Register it looks seats up in."""
    async with FACTORIES[request.param](request, bounds) as made:
        yield made


@pytest.fixture
def sent_queue(stores: Stores) -> SentQueue:
    """An empty SentQueue."""
    return stores.sent_queue


@pytest.fixture
def register(stores: Stores) -> Register:
    """An empty Register."""
    return stores.register


@pytest.fixture
async def bob(sent_queue: SentQueue) -> SentQueue:
    """A queue in which bob is known, with one device that has read nothing."""
    await sent_queue.open("bob", "phone", GEN, NOW)
    return sent_queue
