"""Links to a RabbitMQ for tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from brokerd.links.amqp import RabbitLink

READY_S_MAX = 30.0


@asynccontextmanager
async def linked_rabbit(url: str, name: str, *, heartbeat_s: int = 10) -> AsyncIterator[RabbitLink]:
    """A link, running and ready; leaving it cancels it, as the end of a daemon does."""
    link = RabbitLink(url, name, heartbeat_s=heartbeat_s)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(link.run())
        try:
            async with asyncio.timeout(READY_S_MAX):
                await link.wait_ready()
            yield link
        finally:
            running.cancel()
