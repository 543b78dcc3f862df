"""Processes that are stopped in their tracks, and taken for dead by others."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bench.processes import Chatd, Daemon
from bench.rabbit_server import RabbitServer
from bench.servers import RedisServer

LEASE_S_MAX = 15.0

# The reader of a connection dies as when its heartbeats failed: consumers and exclusive queues go, the client is not told.
_CONNECTIONS = """
Names = [<<"NAME in">>, <<"NAME out">>],
Is_its = fun(P) ->
    [{_, Properties}] = rabbit_networking:connection_info(P, [client_properties]),
    case lists:keyfind(<<"connection_name">>, 1, Properties) of {_, _, Name} -> lists:member(Name, Names); _ -> false end
end,
Its = lists:filter(Is_its, rabbit_networking:connections()),
DEED,
length(Its).
"""
HEARTBEATS_S_MAX = 60.0


@asynccontextmanager
async def frozen(daemon: Daemon) -> AsyncIterator[None]:
    """It stands still inside the block, and goes on behind it as if nothing had been."""
    daemon.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        daemon.signal(signal.SIGCONT)


async def taken_for_dead(rabbit: RabbitServer, name: str) -> None:
    """RabbitMQ gives up the connections of this daemon, as it does behind two heartbeats that did not come."""
    assert await _connections(rabbit, name, "lists:foreach(fun(P) -> exit(P, kill) end, Its)") == 2


async def heartbeats_over(rabbit: RabbitServer, name: str) -> None:
    """Until RabbitMQ gave them up by itself."""
    async with asyncio.timeout(HEARTBEATS_S_MAX):
        while await _connections(rabbit, name, "ok"):
            continue


async def _connections(rabbit: RabbitServer, name: str, deed: str) -> int:
    """How many this daemon has, behind whose listing the deed is done."""
    said = await asyncio.to_thread(rabbit.ctl, "eval", _CONNECTIONS.replace("NAME", name).replace("DEED", deed))
    return int(said.split()[-1])


async def lease_over(redis: RedisServer, node: Chatd) -> None:
    """Until no lease of this node stands."""
    pattern = f"n:{{{node.env['CHATD_NODE']}:*"
    async with asyncio.timeout(LEASE_S_MAX):
        while redis.command("KEYS", pattern.replace("{", "\\{")).strip() != b"*0":  # noqa: ASYNC110 - it just ends
            await asyncio.sleep(0.05)
