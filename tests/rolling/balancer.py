"""What stands before the nodes of a cluster: each new connection goes to the next node that takes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

CHUNK_BYTES: Final = 65_536


class Balancer:
    """Listens on `port`; `ports` are those of the nodes, `out` those to which nobody is sent now. Made by `balanced`."""

    def __init__(self, ports: Sequence[int]) -> None:
        self.port = 0
        self.out: set[int] = set()
        self._ports = ports
        self._turn = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._ends: set[asyncio.StreamWriter] = set()

    async def serve(self) -> asyncio.Server:
        """Begin to listen."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def close(self) -> None:
        """End every connection."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for end in self._ends:
            end.transport.abort()
        await asyncio.sleep(0)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ports = [port for port in self._ports if port not in self.out]
        for _ in ports:
            self._turn += 1
            try:
                from_node, to_node = await asyncio.open_connection("127.0.0.1", ports[self._turn % len(ports)])
            except OSError:
                continue
            self._ends |= {writer, to_node}
            for source, sink in ((reader, to_node), (from_node, writer)):
                task = asyncio.create_task(self._pass_on(source, sink))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            return
        writer.close()

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(CHUNK_BYTES):
                sink.write(data)
                await sink.drain()
        except OSError:
            return
        finally:
            self._ends.discard(sink)
            sink.close()


@asynccontextmanager
async def balanced(ports: Sequence[int]) -> AsyncIterator[Balancer]:
    """A balancer, while the block lasts."""
    balancer = Balancer(ports)
    server = await balancer.serve()
    try:
        yield balancer
    finally:
        server.close()
        await balancer.close()
