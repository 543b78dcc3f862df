"""A brokerd with neither Redis nor RabbitMQ: it is up and says what is missing, is reloaded, and ends when it is told to."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from bench.ports import free_port
from bench.processes import Brokerd


@pytest.fixture
async def told(tmp_path: Path) -> AsyncIterator[tuple[Brokerd, Callable[[str], Awaitable[str]], Path]]:
    """The brokerd, what waits until the service manager was told something, and its configuration file."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)

        async def wait_told(text: str) -> str:
            async with asyncio.timeout(30):
                while text not in (said := (await asyncio.get_running_loop().sock_recv(manager, 4096)).decode()):
                    pass
            return said

        config = tmp_path / "brokerd.toml"
        config.write_text("shards = 2\n")
        env = {
            "BROKERD_REDIS_URL": f"redis://127.0.0.1:{free_port()}",
            "BROKERD_RABBIT_URL": f"amqp://127.0.0.1:{free_port()}/",
            "BROKERD_CONFIG": str(config),
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
        }
        broker = Brokerd(tmp_path, "brokerd", env)
        broker.begin()
        yield broker, wait_told, config
        broker.stop()


async def test_it_is_up_says_what_is_missing_and_ends_when_told(
    told: tuple[Brokerd, Callable[[str], Awaitable[str]], Path],
) -> None:
    broker, wait_told, _ = told
    await wait_told("READY=1")
    said = await wait_told("STATUS=")
    assert "redis: " in said
    assert "rabbitmq: not connected" in said
    assert await asyncio.to_thread(broker.stop) == 0, "it does not wait for Redis first"


async def test_o02_brokerd_keeps_its_configuration_when_the_new_one_is_not_good(
    told: tuple[Brokerd, Callable[[str], Awaitable[str]], Path],
) -> None:
    broker, wait_told, config = told
    await wait_told("READY=1")
    config.write_text("shards = 4\n[log]\nlevel = 'warning'\n")
    broker.signal(signal.SIGHUP)
    await wait_told("READY=1")
    config.write_text("shards = 'many'\n")
    broker.signal(signal.SIGHUP)
    await wait_told("STATUS=The last reload was refused")
    assert await asyncio.to_thread(broker.stop) == 0
    events = {event["event"]: event for event in map(json.loads, broker.log_path.read_text().splitlines())}
    assert events["reloaded"]["changed"] == ["log.level"]
    assert events["reloaded"]["need_a_restart"] == ["shards"]
    assert "shards" in events["reload_refused"]["why"][0]
