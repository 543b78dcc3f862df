"""Whether the Redis that answers is the store that was known, or one that came back empty, or another.

The store has a generation, written once. A second place remembers it: RabbitMQ, as the argument of a durable exchange
that routes nothing. A broker takes the declaration of an exchange that exists only with the same argument, so declaring
is comparing: in one step, for every daemon alike, and it outlives them all. A file beside each daemon was rejected: a new
daemon would have none, and an operator would have to settle the matter on every machine.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any, Final, NoReturn, Protocol

import aiormq
from aiormq.abc import AbstractChannel
from aiormq.exceptions import ChannelNotFoundEntity, ChannelPreconditionFailed
from hiredis import ReplyError

from brokerd.links.amqp_url import rabbit_urls
from brokerd.links.resp import Ask, RespLink
from brokerd.ports import LinkDown, StoreChanged

STORE_KEY: Final = "store"  # in Redis: the generation of the whole store
WITNESS_S_MAX: Final = 5.0  # how long RabbitMQ may take to answer
_ARGUMENT: Final = "alternate-exchange"  # the one that RabbitMQ compares when an exchange is declared again
_WHAT_TO_DO: Final = "bring the right one back, or take this one as it is with: chatctl store accept"


def new_store_generation() -> str:
    """One that no store had."""
    return os.urandom(8).hex()


class Witness(Protocol):
    """Remembers the generation of the store, outside of it. Raises LinkDown."""

    async def has_any(self) -> bool:
        """Whether there was a store before."""

    async def remembers(self, generation: str) -> bool:
        """Whether it is this one. Without a memory so far, it is from now on."""

    async def replace(self, generation: str) -> None:
        """From now on it is this one."""


class RabbitWitness:
    """Witness in RabbitMQ, on a connection of its own: it is asked at a start and when something is wrong, no more."""

    def __init__(self, url: str, prefix: str) -> None:
        self._urls = rabbit_urls(url)
        self._exchange = f"{prefix}.store"

    async def has_any(self) -> bool:
        """See Witness."""
        return await self._ask(lambda channel: channel.exchange_declare(self._exchange, passive=True))

    async def remembers(self, generation: str) -> bool:
        """See Witness."""
        arguments: dict[str, Any] = {_ARGUMENT: generation}
        return await self._ask(
            lambda channel: channel.exchange_declare(
                self._exchange, exchange_type="fanout", durable=True, internal=True, arguments=arguments
            )
        )

    async def replace(self, generation: str) -> None:
        """See Witness. Two at once: one of them fails, and says so."""
        await self._ask(lambda channel: channel.exchange_delete(self._exchange))
        if not await self.remembers(generation):
            raise LinkDown("RabbitMQ: somebody else replaced it at the same moment")

    async def _ask(self, question: Callable[[AbstractChannel], Awaitable[Any]]) -> bool:
        """False when the broker's answer is no: there is none, or it is another. Any host of a cluster may say it."""
        for url in self._urls[:-1]:
            try:
                return await self._ask_one(url, question)
            except LinkDown:
                continue
        return await self._ask_one(self._urls[-1], question)

    async def _ask_one(self, url: str, question: Callable[[AbstractChannel], Awaitable[Any]]) -> bool:
        connection = aiormq.Connection(url)
        try:
            async with asyncio.timeout(WITNESS_S_MAX):
                await connection.connect()
                await question(await connection.channel())
        except (ChannelPreconditionFailed, ChannelNotFoundEntity):
            return False
        except (Exception, asyncio.CancelledError) as fault:  # aiormq has many ways to say that it found nobody
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            why = str(fault) or type(fault).__name__
            raise LinkDown(f"RabbitMQ must say which store is the right one: {why}") from None
        finally:
            await connection.close()
        return True


async def accept(link: RespLink, witness: Witness) -> None:
    """Take the Redis that is there for the right store from now on. Raises LinkDown: then do it again.

    It gets a generation that no store had, so that the former one is told apart when it comes back. The witness first:
    a daemon asks it once for each generation that it finds.
    """
    generation = new_store_generation()
    await witness.replace(generation)
    [reply] = await link.pipeline([("SET", STORE_KEY, generation)])
    if isinstance(reply, ReplyError):
        raise LinkDown(f"redis: {reply}")


class StoreIdentity:
    """The check of one link: at every connect, every few seconds, and before anybody is taken for unknown."""

    def __init__(self, witness: Witness, log: Any = None) -> None:
        self._witness, self._log = witness, log
        self._known: str | None = None  # the generation that was right when we last asked
        self._refused: str | None = None  # the one that was not
        self._had_one = False  # the witness remembers a store
        self._fault = ""

    async def check(self, ask: Ask) -> None:
        """Return when it is the store that was known, or the first. Raises StoreChanged, and LinkDown: nobody can say."""
        found = await self._read(ask)
        if found is None:
            found = await self._first(ask)
        if found != self._known:
            if found == self._refused or not await self._witness.remembers(found):
                self._refused = found
                self._refuse("another store stands in the place of the one that was known")
            self._known = found
        if self._fault:
            self._fault = ""
            if self._log is not None:
                self._log.info("store_known_again", generation=found)

    async def _first(self, ask: Ask) -> str:
        """There is no generation: the first start of all writes one; later it means that the store lost what it held."""
        self._had_one = self._had_one or self._known is not None or await self._witness.has_any()
        if not self._had_one:
            await ask(("SET", STORE_KEY, new_store_generation(), "NX"))
        found = await self._read(ask)  # another daemon may have been the first
        if found is None:
            self._refuse("the store came back empty")
        return found

    async def _read(self, ask: Ask) -> str | None:
        found = await ask(("GET", STORE_KEY))
        return found.decode(errors="replace") if isinstance(found, bytes) else None

    def _refuse(self, what: str) -> NoReturn:
        if what != self._fault:
            self._fault = what
            if self._log is not None:
                self._log.error("store_changed", what=what, what_to_do=_WHAT_TO_DO, known=self._known)
        raise StoreChanged(f"{what}: {_WHAT_TO_DO}")
