"""RabbitMQ surely did not take a batch, and its sender never heard: what is resent then must not pass for a repeat."""

from __future__ import annotations

import asyncio
import signal

import pytest

from bench.cluster import Cluster
from bench.tokens import Mint
from brokerd.links.amqp_topology import Topology
from chatd.session import BUSY_RETRY_MS
from protocol.errors import Code
from protocol.messages import Accepted, Deliver, Error, Send
from protocol.names import shard_of
from protocol.wire import Processed
from tests.faults.raw_client import RawClient, session
from tests.faults.talk import wait_ready

pytestmark = pytest.mark.timeout(150)

SHARDS = 8  # the default of the cluster


async def test_a_message_that_was_refused_while_a_later_one_was_taken_is_taken_at_its_resend(cluster: Cluster) -> None:
    node, rabbit = cluster.nodes[0], cluster.rabbit
    mint = Mint(node.data_dir)
    queue = Topology().shard_queue(shard_of("kim", SHARDS))
    async with session(node.tcp_port, "kim", mint.token("kim")) as kim:
        async with session(node.tcp_port, "jim", mint.token("jim")) as jim:
            await jim.send(Send(1, 0, "kim", b"first"))
            await jim.next(Accepted)
            assert (await kim.next(Deliver)).payload == b"first"
            for broker in cluster.brokers:
                broker.signal(signal.SIGSTOP)  # or they would declare the queue again at once
            try:
                await asyncio.to_thread(rabbit.ctl, "delete_queue", queue)
                await jim.send(Send(2, 0, "kim", b"refused"))
                error = await jim.next(Error)
                assert (error.ref, error.code, error.processed) == (2, Code.BUSY, Processed.NO)
                await _wait_taken(jim, Send(3, 0, "kim", b"passed it"))
            finally:
                for broker in cluster.brokers:
                    broker.signal(signal.SIGCONT)
        # as far as jim's client knows, neither has an answer: the connection is gone, and both are sent again
        async with session(node.tcp_port, "jim", mint.token("jim")) as jim:
            await jim.send(Send(2, 0, "kim", b"refused"), Send(3, 0, "kim", b"passed it"), Send(4, 0, "kim", b"last"))
            accepted: set[int] = set()
            while accepted != {2, 3, 4}:
                accepted |= set((await jim.next(Accepted)).cids)
            heard = [(await kim.next(Deliver)).payload for _ in range(3)]
            assert heard == [b"passed it", b"refused", b"last"]
    for node in cluster.nodes:
        await wait_ready(node)


async def _wait_taken(client: RawClient, send: Send) -> None:
    """Send, again and again while it is told BUSY."""
    while True:
        await client.send(send)
        answer = await client.message()
        while not isinstance(answer, Accepted | Error):
            answer = await client.message()
        if isinstance(answer, Accepted):
            return
        assert (answer.ref, answer.code) == (send.ref, Code.BUSY)
        await asyncio.sleep(BUSY_RETRY_MS / 1000)  # as the answer asks for
