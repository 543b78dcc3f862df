"""A chat of the usual kind on python-socketio: a room for each user, servers joined by its Redis manager.

`python -m bench.peers.socketio_server PORT REDIS_URL`. What it tells a sender is that it has published the message.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Final

import socketio
import uvloop
from aiohttp import web

PUBLISHES_MAX: Final = (
    8  # at one time: the manager opens a connection to Redis for each, and fails when they are thousands
)


def application(redis_url: str) -> web.Application:
    """`send` from one user to the room of another."""
    manager = socketio.AsyncRedisManager(redis_url)
    server = socketio.AsyncServer(async_mode="aiohttp", client_manager=manager)

    turns = asyncio.Semaphore(PUBLISHES_MAX)

    async def connect(sid: str, environ: dict[str, Any], auth: dict[str, str]) -> None:
        await server.enter_room(sid, auth["user"])

    async def send(sid: str, to: str, payload: bytes) -> str:
        async with turns:
            await server.emit("deliver", payload, room=to)
        return "ok"

    async def ack(sid: str, count: int) -> None:
        """A receiver has processed so many; there is nothing to forget."""

    for handler in (connect, send, ack):
        server.on(handler.__name__, handler)
    made = web.Application()
    server.attach(made)
    return made


if __name__ == "__main__":
    web.run_app(
        application(sys.argv[2]), host="127.0.0.1", port=int(sys.argv[1]), loop=uvloop.new_event_loop(),
        access_log=None, print=None,
    )  # fmt: skip
