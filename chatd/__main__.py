"""`chatd`: read the configuration, choose the links, run."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import structlog

from brokerd.daemon import run_daemon
from brokerd.logs import Logs, logging_to
from brokerd.notify import ServiceManager, inherited_sockets
from brokerd.pulse import Lag, raise_file_limit, supervised
from chatd.auth.accounts import FileAccounts, open_accounts
from chatd.auth.files import FileBroken
from chatd.care import Care
from chatd.config import ChatConfig, load
from chatd.control import control_socket
from chatd.desk import Desk
from chatd.listener import Listeners
from chatd.node import Node
from chatd.switchboard import Switchboard


def main() -> int:
    """The console script."""
    config = load()
    try:
        accounts = open_accounts(config)
    except FileBroken as fault:
        sys.stderr.write(f"chatd: {fault}\n")
        return 2
    manager = ServiceManager()
    with logging_to(config.log, service="chatd") as logs:

        def on_ready(listeners: Listeners) -> None:
            manager.ready()
            _say_ready(config, listeners)

        async def work(stop: asyncio.Event) -> None:
            await serve(config, accounts, stop, on_ready, manager, logs)

        return run_daemon(work)


async def serve(
    config: ChatConfig,
    accounts: FileAccounts,
    stop: asyncio.Event,
    on_ready: Callable[[Listeners], None],
    manager: ServiceManager,
    logs: Logs,
) -> None:
    """One chatd, from its links to its last session."""
    log = structlog.get_logger()
    raise_file_limit(config.limits.connections_max, log)
    if config.mode == "embedded":
        from chatd.embedded import embedded_links

        links = embedded_links(config, Switchboard.now_ms, log)
    else:
        from chatd.cluster import cluster_links

        links = cluster_links(config, log)
    async with links as parts:
        lag = Lag()
        parts = replace(parts, statistics={**parts.statistics, "loop": lag.statistics})
        node = Node(config, parts, accounts, log, inherited_sockets())
        care = Care(node, config, accounts, logs, log)
        control = control_socket(config.control_path, Desk(node, care, stop, log), log)
        async with control, supervised(care, stop, manager, log, lag):
            await node.run(stop, on_ready)


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
