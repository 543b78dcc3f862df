"""RabbitMQ behind the ports Inbound, Shards, Nodes and NodeInbox.

Two links a daemon: one for all that publishes (an alarm of the broker stops it) and one for all that consumes.

    publishing, consuming = RabbitLink(url, "brokerd a out"), RabbitLink(url, "brokerd a in")
    inbound = RabbitInbound(publishing, shards, topology)
    source = RabbitShards(consuming, inbound, topology)
    nodes = RabbitNodes(publishing, topology)              # chatd: inbox = RabbitNodeInbox(consuming, topology)
    tasks.create_task(publishing.run()); tasks.create_task(consuming.run())
    await publishing.wait_ready(); await consuming.wait_ready()
"""

from brokerd.links.amqp_inbound import RabbitInbound
from brokerd.links.amqp_link import RabbitLink
from brokerd.links.amqp_nodes import RabbitNodeInbox, RabbitNodes
from brokerd.links.amqp_shards import RabbitShards
from brokerd.links.amqp_topology import Topology

__all__ = ["RabbitInbound", "RabbitLink", "RabbitNodeInbox", "RabbitNodes", "RabbitShards", "Topology"]
