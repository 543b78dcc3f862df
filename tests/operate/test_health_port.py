"""brokerd's port for scrapers: what it answers, and that whoever is slow, odd or many takes nothing from the broker."""

from __future__ import annotations

import asyncio

from brokerd import health_port as module
from brokerd.health_port import HEAD_BYTES_MAX, health_port
from brokerd.metrics import Metrics

PARTS = {"redis": "up", "rabbitmq": "up"}


async def ask(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    told = await reader.read()
    writer.close()
    return told


async def test_without_a_port_nothing_listens() -> None:
    async with health_port("127.0.0.1", None, Metrics({}), dict) as port:
        assert port is None


async def test_ready_is_told_as_it_is_and_what_is_no_get_is_refused() -> None:
    parts = dict(PARTS)
    async with health_port("127.0.0.1", 0, Metrics({}), lambda: parts) as port:
        assert port is not None
        assert (await ask(port, b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")).startswith(b"HTTP/1.1 200")
        parts["redis"] = "not connected"
        told = await ask(port, b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert told.startswith(b"HTTP/1.1 503")
        assert b'"redis":"not connected"' in told
        assert (await ask(port, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")).startswith(b"HTTP/1.1 200")
        head = await ask(port, b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert head.endswith(b"\r\n\r\n")
        assert (await ask(port, b"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")).startswith(
            b"HTTP/1.1 405"
        )
        assert (await ask(port, b"\x00\x01nonsense\r\n\r\n")).startswith(b"HTTP/1.1 400")
        assert b" 431 " in (await ask(port, b"GET / HTTP/1.1\r\nX: " + b"x" * 2 * HEAD_BYTES_MAX))


async def test_a_silent_and_a_crowd_of_connections_are_cut(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(module, "ANSWER_S_MAX", 0.3)
    monkeypatch.setattr(module, "CONNECTIONS_MAX", 2)
    async with health_port("127.0.0.1", 0, Metrics({}), lambda: PARTS) as port:
        assert port is not None
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(5)]
        for reader, _ in silent:
            async with asyncio.timeout(20):
                try:
                    assert await reader.read() == b""
                except ConnectionResetError:
                    continue
        assert (await ask(port, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")).startswith(b"HTTP/1.1 200")
        for _, writer in silent:
            writer.close()
