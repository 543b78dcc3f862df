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
_DROP = """
Names = [<<"NAME in">>, <<"NAME out">>],
Is_its = fun(P) ->
    [{_, Properties}] = rabbit_networking:connection_info(P, [client_properties]),
    case lists:keyfind(<<"connection_name">>, 1, Properties) of {_, _, Name} -> lists:member(Name, Names); _ -> false end
end,
Its = lists:filter(Is_its, rabbit_networking:connections()),
lists:foreach(fun(P) -> exit(P, kill) end, Its),
length(Its).
"""


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
    dropped = await asyncio.to_thread(rabbit.ctl, "eval", _DROP.replace("NAME", name))
    assert dropped.split()[-1] == "2", dropped


async def lease_over(redis: RedisServer, node: Chatd) -> None:
    """Until no lease of this node stands."""
    pattern = f"n:{{{node.env['CHATD_NODE']}:*"
    async with asyncio.timeout(LEASE_S_MAX):
        while redis.command("KEYS", pattern.replace("{", "\\{")).strip() != b"*0":  # noqa: ASYNC110 - it just ends
            await asyncio.sleep(0.05)
