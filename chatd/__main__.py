"""`chatd`: read the configuration, choose the links, run."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import structlog

from brokerd.daemon import run_daemon
from brokerd.logs import logging_to
from chatd.auth.accounts import open_accounts
from chatd.auth.files import FileBroken
from chatd.config import ChatConfig, load
from chatd.listener import Listeners
from chatd.node import Node
from chatd.ports import Accounts
from chatd.switchboard import Switchboard


def main() -> int:
    """The console script."""
    config = load()
    try:
        accounts = open_accounts(config)
    except FileBroken as fault:
        sys.stderr.write(f"chatd: {fault}\n")
        return 2
    with logging_to(config.log, service="chatd"):
        return run_daemon(lambda stop: serve(config, accounts, stop, _say_ready))


async def serve(
    config: ChatConfig, accounts: Accounts, stop: asyncio.Event, on_ready: Callable[[ChatConfig, Listeners], None]
) -> None:
    """One chatd, from its links to its last session."""
    log = structlog.get_logger()
    if config.mode == "embedded":
        from chatd.embedded import embedded_links

        links = embedded_links(config, Switchboard.now_ms, log)
    else:
        from chatd.cluster import cluster_links

        links = cluster_links(config, log)
    async with links as parts:
        await Node(config, parts, accounts, log).run(stop, lambda listeners: on_ready(config, listeners))


def _say_ready(config: ChatConfig, listeners: Listeners) -> None:
    program = Path(sys.argv[0]).with_name("chat")
    server = f"tcp://{config.tcp.host}:{listeners.tcp_ports[0]}"
    sys.stdout.write(
        f"chatd is ready: {server}, http://{config.http.host}:{listeners.http_ports[0]} ({config.mode}). "
        f"Next, in another terminal: {program} --server {server} --user NAME\n"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
