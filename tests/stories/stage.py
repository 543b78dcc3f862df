"""The stage: reads a play line by line and makes it happen on a real server.

A play is a text that a product owner can read and write. Lines that begin with # are for people. The sentences are those
of `SENTENCES` below. A name alone is that person's laptop; "Ann's phone" is another device. Numbers stand for messages.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from protocol.errors import Code
from protocol.messages import Deliver, Gone, ReadSync, Receipt, Sent, Signalled
from protocol.wire import Status
from tests.stories.actor import Actor, answer

TYPING = b"typing"
REASONS = {"there is nobody of that name": Code.NO_SUCH_USER, "their queue is full": Code.QUEUE_FULL}


class House(Protocol):
    """A running server, of one process or of many."""

    async def add_user(self, name: str) -> tuple[str, str]:
        """Make a person of about that name; the name on the server, and the password."""

    def ports(self, actor: int) -> list[int]:
        """Where the actor of that number goes."""

    async def kill_and_start(self) -> None:
        """The power is cut, and it comes back."""

    async def kept(self, user: str) -> None:
        """Wait until something is kept for the user of that name on the server."""


@dataclass
class Letter:
    """A message that was sent in the play."""

    sender: str  # on the server
    receiver: str
    request: asyncio.Future[bytes]


class WrongLine(Exception):
    """A line of the play did not happen, or says nothing that the stage knows."""


class Stage:
    """One performance."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._people: dict[str, tuple[str, str]] = {}
        self._actors: dict[str, Actor] = {}
        self._former: dict[str, Actor] = {}
        self._letters: dict[str, Letter] = {}

    async def perform(self, play: str) -> None:
        """From the first line to the last. Raises WrongLine with the number of the line."""
        try:
            for number, line in enumerate(play.splitlines(), 1):
                if line.strip() and not line.startswith("#"):
                    await self._play(number, line.strip())
        finally:
            for actor in (*self._actors.values(), *self._former.values()):
                if actor.client is not None:
                    await actor.leave()

    async def _play(self, number: int, line: str) -> None:
        for sentence, act in SENTENCES.items():
            match = re.fullmatch(sentence, line)
            if match:
                try:
                    return await act(self, **match.groupdict())
                except (AssertionError, TimeoutError, KeyError) as fault:
                    raise WrongLine(f"line {number}: {line}\n{type(fault).__name__}: {fault}") from fault
        raise WrongLine(f"line {number}: no such sentence: {line}")

    # --- people come and go

    async def _person(self, name: str) -> tuple[str, str]:
        if name not in self._people:
            self._people[name] = await self._house.add_user(name.lower())
        return self._people[name]

    def _known(self, name: str) -> str:
        """The name on the server; one who was never on the stage has no account."""
        return self._people[name][0] if name in self._people else f"nobody-{name.lower()}"

    async def _actor(self, name: str) -> Actor:
        if name not in self._actors:
            person, _, device = name.partition("'s ")
            user, password = await self._person(person)
            self._actors[name] = Actor(user, device or "laptop", password, self._house.ports(len(self._actors)))
        return self._actors[name]

    async def are_here(self, names: str) -> None:
        """They log in."""
        for name in re.split(r", | and ", names):
            await (await self._actor(name)).come()

    async def has_account(self, name: str) -> None:
        """Known to the server, and away."""
        await self._person(name)

    async def leaves(self, name: str) -> None:
        """Closes the application."""
        await self._actors[name].leave()

    async def comes_back(self, name: str) -> None:
        """Opens it again, with all that it kept."""
        await self._actors[name].come()

    async def logs_in_elsewhere(self, name: str) -> None:
        """The same device a second time, while the first is still there; on another server, where there are several."""
        old = self._former[name] = self._actors[name]
        self._actors[name] = new = Actor(old.user, old.device, old.password, old.ports[::-1])
        await new.come()

    async def former_is_replaced(self, name: str) -> None:
        """The first of the two is told, and does not come back."""
        await self._former[name].replaced()

    async def is_drained(self, name: str) -> None:
        """All that waited at login has come."""
        client = self._actors[name].client
        assert client is not None
        async with asyncio.timeout(30):
            await client.wait_drained()

    async def is_kept(self, name: str) -> None:
        """A message was saved, and whatever was said to him before it was seen to."""
        async with asyncio.timeout(30):
            await self._house.kept(self._known(name))

    async def server_is_killed(self) -> None:
        """kill -9, and a start on the same data. Who is here comes back by himself."""
        await self._house.kill_and_start()

    # --- sending

    async def sends(self, name: str, to: str, text: str, number: str, asks: str, seconds: str | None) -> None:
        """Posts it; whether it is accepted is another line."""
        actor, receiver = self._actors[name], self._known(to)
        assert actor.client is not None
        request = actor.client.post(
            receiver,
            text.encode(),
            receipt="delivered" in asks,
            read_receipt="read" in asks,
            ttl_s=int(seconds) if seconds else None,
        )
        self._letters[number] = Letter(actor.user, receiver, request)

    async def is_accepted(self, name: str, number: str) -> None:
        """The server has made it durable."""
        assert isinstance(await answer(self._letters[number].request), bytes)

    async def is_told(self, name: str, number: str, status: str) -> None:
        """A receipt for it comes next."""
        await self._receipt(name, number, Status[status.upper()], 0 if status != "expired" else Code.TTL_PASSED)

    async def is_told_failed(self, name: str, number: str, reason: str) -> None:
        """By a receipt, for the message was accepted before anybody looked for its receiver."""
        await self._receipt(name, number, Status.FAILED, REASONS[reason])

    async def _receipt(self, name: str, number: str, status: Status, reason: int) -> None:
        letter = self._letters[number]
        message = await self._actors[name].next()
        assert isinstance(message, Receipt), message
        assert (message.peer, message.status, message.reason) == (letter.receiver, status, reason)
        assert message.ids == (await letter.request,)

    async def says_read(self, name: str, number: str) -> None:
        """The user has seen it."""
        letter, client = self._letters[number], self._actors[name].client
        assert client is not None
        await client.read(letter.sender, [await letter.request])

    async def types(self, name: str, to: str) -> None:
        """An ephemeral message."""
        client = self._actors[name].client
        assert client is not None
        assert client.signal(self._known(to), TYPING)

    # --- receiving

    async def receives(self, name: str, text: str, sender: str) -> None:
        """It comes next."""
        message = await self._actors[name].next()
        assert isinstance(message, Deliver), message
        assert (message.sender, message.payload) == (self._known(sender), text.encode())

    async def sees_sent(self, name: str, text: str, to: str) -> None:
        """A copy of what another device of the same person sent."""
        message = await self._actors[name].next()
        assert isinstance(message, Sent), message
        assert (message.to, message.payload) == (self._known(to), text.encode())

    async def sees_read(self, name: str, number: str) -> None:
        """Another device of the same person said that it was read."""
        letter, message = self._letters[number], await self._actors[name].next()
        assert isinstance(message, ReadSync), message
        assert (message.peer, message.ids) == (letter.sender, (await letter.request,))

    async def sees_typing(self, name: str, who: str) -> None:
        """An ephemeral message comes next."""
        message: Any = await self._actors[name].next()
        assert isinstance(message, Signalled), message
        assert (message.sender, message.payload) == (self._known(who), TYPING)

    async def is_told_gone(self, name: str) -> None:
        """A message that was for him is not coming any more."""
        message = await self._actors[name].next()
        assert isinstance(message, Gone), message

    async def nobody_receives(self) -> None:
        """Proved with a PING each, whose answer comes behind all that was delivered."""
        here = [actor for actor in self._actors.values() if actor.client is not None]
        await asyncio.gather(*(actor.nothing_else() for actor in here))

    async def receives_nothing_else(self, name: str) -> None:
        """The same for one."""
        await self._actors[name].nothing_else()


_WHO = r"[A-Z]\w*(?:'s \w+)?"
_ASKS = r"(?P<asks>(?: and asks to be told when it is (?:delivered|read|delivered and read))?)"
Act = Callable[..., Awaitable[None]]
SENTENCES: dict[str, Act] = {
    rf"(?P<names>{_WHO}(?:(?:, | and ){_WHO})*) (?:is|are) here\.": Stage.are_here,
    rf"(?P<name>{_WHO}) has an account\.": Stage.has_account,
    rf"(?P<name>{_WHO}) leaves\.": Stage.leaves,
    rf"(?P<name>{_WHO}) comes back\.": Stage.comes_back,
    rf"(?P<name>{_WHO}) logs in a second time, elsewhere\.": Stage.logs_in_elsewhere,
    rf"The first (?P<name>{_WHO}) is told that it was replaced\.": Stage.former_is_replaced,
    rf"(?P<name>{_WHO}) is told (?:he|she|it) is drained\.": Stage.is_drained,
    rf"A message is kept for (?P<name>{_WHO})\.": Stage.is_kept,
    r"The server is killed and started again\.": Stage.server_is_killed,
    rf'(?P<name>{_WHO}) sends (?P<to>{_WHO}) "(?P<text>[^"]*)" as (?P<number>\d+){_ASKS}'
    r"(?:, good for (?P<seconds>\d+) seconds?)?\.": Stage.sends,
    rf"(?P<name>{_WHO}) is told (?P<number>\d+) is accepted\.": Stage.is_accepted,
    rf"(?P<name>{_WHO}) is told (?P<number>\d+) is (?P<status>delivered|read|expired)\.": Stage.is_told,
    rf"(?P<name>{_WHO}) is told (?P<number>\d+) failed: (?P<reason>[^.]*)\.": Stage.is_told_failed,
    rf"(?P<name>{_WHO}) says (?P<number>\d+) is read\.": Stage.says_read,
    rf"(?P<name>{_WHO}) types to (?P<to>{_WHO})\.": Stage.types,
    rf'(?P<name>{_WHO}) receives "(?P<text>[^"]*)" from (?P<sender>{_WHO})\.': Stage.receives,
    rf'(?P<name>{_WHO}) sees that "(?P<text>[^"]*)" was sent to (?P<to>{_WHO})\.': Stage.sees_sent,
    rf"(?P<name>{_WHO}) sees that (?P<number>\d+) was read\.": Stage.sees_read,
    rf"(?P<name>{_WHO}) sees (?P<who>{_WHO}) typing\.": Stage.sees_typing,
    rf"(?P<name>{_WHO}) is told that a message is gone\.": Stage.is_told_gone,
    r"Nobody receives anything else\.": Stage.nobody_receives,
    rf"(?P<name>{_WHO}) receives nothing else\.": Stage.receives_nothing_else,
}
