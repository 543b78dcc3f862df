"""brokerd's small HTTP port: /metrics, /livez, /readyz for a scraper and a supervisor, nothing for clients.

One request a connection, a head of at most HEAD_BYTES_MAX, CONNECTIONS_MAX at a time, ANSWER_S_MAX for each.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

import h11
import structlog

from brokerd.daemon import StartFailed
from brokerd.metrics import Metrics

HEAD_BYTES_MAX: Final = 16 * 1024
CONNECTIONS_MAX: Final = 32
ANSWER_S_MAX: Final = 5.0

_log = structlog.get_logger("brokerd.health_port")


class Answer(NamedTuple):
    """One answer."""

    status: int
    content_type: str
    body: bytes


def answer(path: str, accept: str, metrics: Metrics, parts: Callable[[], Mapping[str, str]]) -> Answer:
    """What a GET of `path` is told."""
    if path == "/metrics":
        text, kind = metrics.exposition(accept)
        return Answer(200, kind, text)
    if path == "/livez":
        return Answer(200, "application/json", b'{"live":true}')
    if path == "/readyz":
        known = dict(parts())
        ready = all(said == "up" for said in known.values())
        body = json.dumps({"ready": ready, "parts": known}, separators=(",", ":")).encode()
        return Answer(200 if ready else 503, "application/json", body)
    return Answer(404, "text/plain", b"/metrics, /livez and /readyz are here\n")


@asynccontextmanager
async def health_port(
    host: str, port: int | None, metrics: Metrics, parts: Callable[[], Mapping[str, str]]
) -> AsyncIterator[int | None]:
    """Answer while it is open; the bound port. Without a port it does nothing."""
    if port is None:
        yield None
        return
    serving: set[asyncio.Task[None]] = set()
    async with asyncio.TaskGroup() as tasks:

        def arrived(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if len(serving) >= CONNECTIONS_MAX:
                writer.transport.abort()
                return
            task = tasks.create_task(_serve(reader, writer, metrics, parts))
            serving.add(task)
            task.add_done_callback(serving.discard)

        try:
            server = await asyncio.start_server(arrived, host, port, limit=HEAD_BYTES_MAX)
        except OSError as fault:
            raise StartFailed(f"cannot listen: {fault.strerror or fault}; http.host and http.port say where") from fault
        async with server:
            yield server.sockets[0].getsockname()[1]
            server.close()
            for task in serving:
                task.cancel()


async def _serve(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    metrics: Metrics,
    parts: Callable[[], Mapping[str, str]],
) -> None:
    try:
        async with asyncio.timeout(ANSWER_S_MAX):
            await _exchange(reader, writer, metrics, parts)
    except (OSError, TimeoutError):
        writer.transport.abort()
    except Exception:  # who only looks must not end the broker of all
        _log.exception("health_port_failed")
        writer.transport.abort()
    finally:
        writer.close()


async def _exchange(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    metrics: Metrics,
    parts: Callable[[], Mapping[str, str]],
) -> None:
    http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)
    try:
        while (event := http.next_event()) is h11.NEED_DATA:
            http.receive_data(await reader.read(HEAD_BYTES_MAX))
    except h11.RemoteProtocolError as fault:
        told, is_head = Answer(fault.error_status_hint, "text/plain", b"that is no HTTP request\n"), False
    else:
        if not isinstance(event, h11.Request):
            return
        is_head = event.method == b"HEAD"
        if event.method in (b"GET", b"HEAD"):
            accept = dict(event.headers).get(b"accept", b"").decode("latin-1")
            told = answer(event.target.decode("latin-1").partition("?")[0], accept, metrics, parts)
        else:
            told = Answer(405, "text/plain", b"GET and HEAD are allowed\n")
    head = [("Content-Type", told.content_type), ("Content-Length", str(len(told.body))), ("Connection", "close")]
    writer.write(http.send(h11.Response(status_code=told.status, headers=head)) or b"")
    if not is_head:
        writer.write(http.send(h11.Data(data=told.body)) or b"")
    await writer.drain()
