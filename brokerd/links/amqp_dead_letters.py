"""The dead letters of a cluster: the queue `chat.dead`, as an operator's command sees it, on a connection of its own.

Letters are fetched one by one and held without an acknowledgement; what is to stay goes back when the channel closes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final

import aiormq
from aiormq.abc import AbstractChannel, DeliveredMessage

from brokerd.links.amqp_topology import Topology
from brokerd.links.amqp_url import rabbit_urls
from brokerd.ports import LinkDown
from brokerd.support_ports import NO_SHARD, DeadLetter, Verdict, Walked

CONNECT_S_MAX: Final = 5.0  # for each host
ANSWER_S_MAX: Final = 30.0
LETTERS_MAX: Final = 1000  # that one walk holds
LETTERS_BYTES_MAX: Final = 256 * 1024 * 1024

# A command has no log and says itself what is wrong; without a handler Python would print aiormq's words beside it.
logging.getLogger("aiormq").addHandler(logging.NullHandler())


class RabbitDeadLetters:
    """The port DeadLetters on RabbitMQ."""

    def __init__(self, url: str, topology: Topology, shards: int) -> None:
        self._urls = rabbit_urls(url)
        self._topology, self._shards = topology, shards

    async def walk(self, decide: Callable[[DeadLetter], Verdict | DeadLetter]) -> Walked:
        """See the port. At most LETTERS_MAX letters and about LETTERS_BYTES_MAX bytes are shown."""
        async with self._channel() as channel:
            try:
                return await self._walk(channel, decide)
            except (aiormq.AMQPError, OSError) as fault:
                raise LinkDown(f"RabbitMQ: {fault or type(fault).__name__}") from None

    async def _walk(
        self, channel: AbstractChannel, decide: Callable[[DeadLetter], Verdict | DeadLetter]
    ) -> Walked:  # fmt: skip
        await self._topology.declare_dead(channel)
        shown = size = 0
        while True:
            message = await channel.basic_get(self._topology.dead, no_ack=False, timeout=ANSWER_S_MAX)
            tag = message.delivery_tag if message.delivery is not None else None
            if tag is None:
                return Walked(shown, False)
            if shown >= LETTERS_MAX or (shown and size + len(message.body) > LETTERS_BYTES_MAX):
                return Walked(shown, True)
            shown, size = shown + 1, size + len(message.body)
            letter = self._letter(message)
            verdict = decide(letter)
            if verdict is Verdict.REQUEUE or isinstance(verdict, DeadLetter):
                await self._requeue(channel, verdict if isinstance(verdict, DeadLetter) else letter)
            if verdict is not Verdict.KEEP:
                await channel.basic_ack(tag, wait=True)

    async def _requeue(self, channel: AbstractChannel, letter: DeadLetter) -> None:
        if not 0 <= letter.shard < self._shards:
            raise LinkDown(f"there is no shard {letter.shard}")
        await self._topology.declare_shard(channel, letter.shard)
        kept = aiormq.spec.Basic.Properties(delivery_mode=2)
        queue = self._topology.shard_queue(letter.shard)
        await channel.basic_publish(
            letter.body, routing_key=queue, properties=kept, mandatory=True, timeout=ANSWER_S_MAX
        )

    def _letter(self, message: DeliveredMessage) -> DeadLetter:
        """Buried by a broker of ours, or by RabbitMQ itself (a policy with a dead-letter exchange)."""
        headers: dict[str, Any] = message.header.properties.headers or {}
        shard, reason, at_ms = headers.get("shard"), headers.get("reason"), headers.get("at_ms")
        deaths = headers.get("x-death")
        if not isinstance(shard, int) and isinstance(deaths, list) and deaths and isinstance(deaths[0], dict):
            shard = self._shard_of(str(deaths[0].get("queue", "")))
            reason = reason or f"RabbitMQ: {deaths[0].get('reason', 'no reason')}"
            died = deaths[0].get("time")
            at_ms = int(died.timestamp() * 1000) if isinstance(died, datetime) else at_ms
        return DeadLetter(
            shard if isinstance(shard, int) else NO_SHARD,
            str(reason or "no reason was given"),
            at_ms if isinstance(at_ms, int) else 0,
            bytes(message.body),
        )

    def _shard_of(self, queue: str) -> int:
        numbers = [shard for shard in range(self._shards) if self._topology.shard_queue(shard) == queue]
        return numbers[0] if numbers else NO_SHARD

    @asynccontextmanager
    async def _channel(self) -> AsyncIterator[AbstractChannel]:
        """A channel in confirm mode on the first host that answers. What it holds goes back when it closes."""
        fault: BaseException | None = None
        for url in self._urls:
            connection = aiormq.Connection(url)
            try:
                async with asyncio.timeout(CONNECT_S_MAX):
                    await connection.connect()
                    channel = await connection.channel()
            except (aiormq.AMQPError, OSError) as down:
                fault = down
                await connection.close()
                continue
            try:
                yield channel
            finally:
                await connection.close()
            return
        raise LinkDown(f"RabbitMQ: {str(fault) or type(fault).__name__}")
