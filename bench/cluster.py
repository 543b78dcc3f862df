"""A whole cluster on this machine: private Redis and RabbitMQ, chatd and brokerd as processes. `make cluster` runs it."""

from __future__ import annotations

import asyncio
import shutil
import signal
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

from bench.processes import Brokerd, Chatd
from bench.rabbit_server import RabbitServer
from bench.servers import Fsync, RedisServer

NODES: Final = 2
BROKERS: Final = 2


class Cluster:
    """`with Cluster(folder) as cluster:` starts everything and ends it. Each part can be killed and started again."""

    def __init__(
        self,
        folder: Path,
        *,
        nodes: int = NODES,
        brokers: int = BROKERS,
        fsync: Fsync = "always",
        lease_s: int = 15,
        env: Mapping[str, str] | None = None,
        modules: tuple[str, str] = ("chatd", "brokerd"),
    ) -> None:
        """`env` is for every chatd; `modules` are what is run as chatd and brokerd."""
        self.folder = folder
        self._env = dict(env or {})
        self._modules = modules
        self.redis = RedisServer(folder / "redis", appendfsync=fsync)
        self.rabbit = RabbitServer(folder / "rabbit")
        self._lease_s = lease_s
        self._counts = (nodes, brokers)
        self.nodes: list[Chatd] = []
        self.brokers: list[Brokerd] = []

    def __enter__(self) -> Cluster:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def _start(self) -> None:
        self.redis.start()
        self.rabbit.start()
        shared = {"REDIS_URL": self.redis.url, "RABBIT_URL": self.rabbit.url}
        for number in range(1, self._counts[0] + 1):
            env = {f"CHATD_{key}": value for key, value in shared.items()} | {
                "CHATD_MODE": "cluster",
                "CHATD_LEASE_S": str(self._lease_s),
                **self._env,
            }
            self.nodes.append(Chatd(self.folder / "chatd", f"chatd{number}", env))
        for number in range(1, self._counts[1] + 1):
            env = {f"BROKERD_{key}": value for key, value in shared.items()}
            self.brokers.append(Brokerd(self.folder / "brokerd", f"brokerd{number}", env))
        for node in self.nodes:
            node.module = self._modules[0]
        for broker in self.brokers:
            broker.module = self._modules[1]
        for daemon in (*self.brokers, *self.nodes):
            daemon.begin()
        for daemon in (*self.brokers, *self.nodes):
            daemon.wait_ready()
        for node in self.nodes:
            node.wait_serving()

    def close(self) -> None:
        """End everything, clients' side first."""
        for daemon in (*self.nodes, *self.brokers):
            daemon.stop()
        self.rabbit.stop()
        self.redis.stop()

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pids(self) -> dict[str, int]:
        """Of all server processes, by name."""
        daemons: Sequence[Chatd | Brokerd] = (*self.nodes, *self.brokers)
        named = {daemon.log_path.stem: daemon.pid for daemon in daemons}
        return {**named, "redis": self.redis.pid, "rabbitmq": self.rabbit.pid}


def told(cluster: Cluster) -> str:
    """The ports, for people."""
    lines = [
        "The cluster is ready. Ctrl-C ends it.",
        f"  Redis     {cluster.redis.url}",
        f"  RabbitMQ  {cluster.rabbit.url}",
    ]
    for node in cluster.nodes:
        name = node.env["CHATD_NODE"]
        lines.append(f"  {name}    tcp 127.0.0.1:{node.tcp_port}   http and ws 127.0.0.1:{node.http_port}")
    return "\n".join(lines)


def main() -> int:
    """Run a cluster until Ctrl-C."""
    folder = Path(tempfile.mkdtemp(prefix="chatd-cluster-"))
    try:
        print("Starting Redis, RabbitMQ, two chatd and two brokerd: about 15 seconds …", flush=True)
        with Cluster(folder) as cluster:
            users = {name: cluster.nodes[0].add_user(name) for name in ("ann", "bob")}
            print(told(cluster))
            for name, password in users.items():
                print(f"  user {name}, password {password}")
            first = cluster.nodes[0].tcp_port
            print(
                f"Talk:  CHAT_PASSWORD={users['ann']} .venv/bin/chat --server tcp://127.0.0.1:{first} --user ann",
                flush=True,
            )
            asyncio.run(_until_ended())
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


async def _until_ended() -> None:
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    await ended.wait()


if __name__ == "__main__":
    raise SystemExit(main())
