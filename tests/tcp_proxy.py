"""A TCP proxy between a daemon and a server: it can be cut, held still as a half-open network is, and it can speak TLS."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

CHUNK_BYTES = 65_536


class TcpProxy:
    """Listens on `port` of loopback and passes everything to `target_port`. Made by `proxied`."""

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self._target_port = target_port
        self._goes = asyncio.Event()
        self._goes.set()
        self._links: list[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._kept: list[asyncio.StreamWriter] = []  # the server's side of what was cut

    def stall(self) -> None:
        """Pass nothing on, either way, but keep every connection open."""
        self._goes.clear()

    def go_on(self) -> None:
        """Pass on what was held back, and what comes."""
        self._goes.set()

    def cut(self) -> None:
        """End the clients' connections without a word; the server's stay open, as if it had not noticed."""
        cut, self._links = self._links, []
        self._kept += [server for _, server in cut]
        for client, _ in cut:
            client.transport.abort()

    def part(self) -> None:
        """End every connection, on both sides."""
        parted, self._links = self._links, []
        for link in parted:
            for writer in link:
                writer.transport.abort()

    def inject(self, data: bytes) -> None:
        """Send bytes to the server as if the client of the newest connection had written them."""
        self._links[-1][1].write(data)

    async def serve(self, tls: ssl.SSLContext | None) -> asyncio.Server:
        """Begin to listen."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def close(self) -> None:
        """End every connection."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in (*(writer for link in self._links for writer in link), *self._kept):
            with suppress(AttributeError):  # asyncio's TLS up to 3.11.4, of a connection that is gone
                writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_server, server = await asyncio.open_connection("127.0.0.1", self._target_port)
        self._links.append((writer, server))
        for source, sink in ((reader, server), (to_server, writer)):
            task = asyncio.create_task(self._pass_on(source, sink))
            self._tasks.add(task)

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(CHUNK_BYTES):
                await self._goes.wait()
                sink.write(data)
                await sink.drain()
        except OSError:
            return  # one side is gone; `cut` leaves the server's open on purpose
        if sink not in self._kept:
            sink.close()


@asynccontextmanager
async def proxied(target_port: int, tls: ssl.SSLContext | None = None) -> AsyncIterator[TcpProxy]:
    """A proxy to a port of loopback; with `tls` its clients speak TLS."""
    proxy = TcpProxy(target_port)
    server = await proxy.serve(tls)
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
