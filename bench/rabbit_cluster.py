"""Three private RabbitMQ nodes that form one cluster on this machine: own epmd, own cookie, loopback only.

The first node starts alone and the others join it. After that every node may be killed and started again by itself.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Final

from bench.rabbit_server import Family, RabbitServer

NODES: Final = 3
# A node that lost sight of the majority stops serving, so that its clients go to another one.
CONF: Final = "cluster_partition_handling = pause_minority\nvm_memory_high_watermark.absolute = 512MB\n"
JOIN: Final = (
    "cluster_formation.peer_discovery_backend = classic_config\n"
    "cluster_formation.classic_config.nodes.1 = {first}\n"
    "cluster_formation.classic_config.nodes.2 = {own}\n"
    "cluster_formation.randomized_startup_delay_range.min = 0\n"
    "cluster_formation.randomized_startup_delay_range.max = 1\n"
)


class RabbitCluster:
    """`with RabbitCluster(folder) as cluster:` starts all `nodes` and ends them. Each can be killed and started again."""

    def __init__(self, folder: Path, nodes: int = NODES) -> None:
        self._family = Family.new()
        self.nodes: list[RabbitServer] = []
        for number in range(1, nodes + 1):
            server = RabbitServer(folder / f"rabbit{number}", family=self._family, schedulers=1)
            first = self.nodes[0] if self.nodes else server
            server.conf = CONF
            if first is not server:
                server.conf += JOIN.format(first=first.node_name, own=server.node_name)
            self.nodes.append(server)

    @property
    def url(self) -> str:
        """All nodes in one address, as chatd and brokerd take it."""
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        return f"amqp://guest:guest@{hosts}/"

    def ctl(self, *words: str) -> str:
        """Run rabbitmqctl against a node that lives; what it printed. Raises ServerFailed."""
        return next(node for node in self.nodes if node.is_running).ctl(*words)

    def is_whole(self, prefix: str = "chat") -> bool:
        """Whether every quorum queue has all its members on nodes that run. Takes a second or two."""
        rows = self.ctl("-q", "list_queues", "name", "type", "members", "online").splitlines()[1:]
        cells = [row.split("\t") for row in rows]
        quorums = [row for row in cells if row[1] == "quorum" and row[0].startswith(prefix)]
        return bool(quorums) and all(
            len(row[3].split(",")) == len(row[2].split(",")) == len(self.nodes) for row in quorums
        )

    def start(self) -> None:
        """All nodes: the first one alone, the others together."""
        self.nodes[0].start()
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            list(pool.map(RabbitServer.start, self.nodes[1:]))

    def stop(self) -> None:
        """End all that runs, and their epmd. Not gently: nobody needs the data any more."""
        for node in self.nodes:
            node.end()
        self.nodes[0].end_epmd()

    def __enter__(self) -> RabbitCluster:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
