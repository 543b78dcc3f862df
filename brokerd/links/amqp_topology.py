"""Which queues there are in RabbitMQ, and their arguments. Arguments are part of a queue's identity: changing one here
needs the queue to be emptied and deleted, because the broker refuses to declare it otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from aiormq.abc import AbstractChannel

NODE_BYTES_MAX: Final = 64 * 1024 * 1024  # parcels that wait for one node; the oldest go, and are found by their seq
TILDE: Final = "~"  # may be in a node id, but aiormq refuses it in a queue name
TILDE_QUEUED: Final = "/"  # cannot be in a node id


@dataclass(frozen=True, slots=True)
class Topology:
    """The names and kinds of the queues of one system. A shard lies on `quorum_size` RabbitMQ nodes (None: as the
    broker is set to, which is 3, or on all when there are fewer).

    `queue_type` "classic" is for measurements only: its confirm does not mean fsynced on a quorum of brokers.
    """

    prefix: str = "chat"
    queue_type: str = "quorum"
    node_bytes_max: int = NODE_BYTES_MAX
    quorum_size: int | None = None

    @property
    def dead(self) -> str:
        """The queue of batches that could not be decoded."""
        return f"{self.prefix}.dead"

    def shard_queue(self, shard: int) -> str:
        """The inbound queue of a shard."""
        return f"{self.prefix}.in.{shard}"

    def node_queue(self, node: str) -> str:
        """The queue of parcels of a node."""
        return f"{self.prefix}.node.{node.replace(TILDE, TILDE_QUEUED)}"

    def node_of(self, queue: str) -> str:
        """The node of a node's queue."""
        return queue.removeprefix(f"{self.prefix}.node.").replace(TILDE_QUEUED, TILDE)

    async def declare_shard(self, channel: AbstractChannel, shard: int) -> None:
        """Durable; of all its consumers one gets everything, until it goes."""
        arguments = self._durable | {"x-single-active-consumer": True}
        await channel.queue_declare(self.shard_queue(shard), durable=True, arguments=arguments)

    async def declare_dead(self, channel: AbstractChannel) -> None:
        """Durable; nobody consumes it but an operator."""
        await channel.queue_declare(self.dead, durable=True, arguments=self._durable)

    @property
    def _durable(self) -> dict[str, Any]:
        arguments: dict[str, Any] = {"x-queue-type": self.queue_type}
        if self.quorum_size is not None and self.queue_type == "quorum":
            arguments["x-quorum-initial-group-size"] = self.quorum_size
        return arguments

    async def declare_node(self, channel: AbstractChannel, node: str) -> None:
        """Of this connection alone, and gone with it."""
        arguments: dict[str, Any] = {"x-max-length-bytes": self.node_bytes_max, "x-overflow": "drop-head"}
        queue = self.node_queue(node)
        await channel.queue_declare(queue, exclusive=True, auto_delete=True, arguments=arguments)
