"""Bugs that the simulated world must find: two of each kind that a chat server is most likely to have, planted in the
product one at a time. `python -m tests.sim --planted NAME` runs worlds until it is found; tests/faults/test_sim_short.py
asks for it, so that a change to the simulation which makes it blind is noticed.

A function here changes classes of the product for the whole process: one process, one bug.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable, Sequence
from typing import Any, Final

import chatd.session
from brokerd.broker import Broker
from brokerd.ports import Appended, Owed
from brokerd.route import Plan, delivered_posts
from chatd.effects import Acknowledge
from chatd.entrance import InTurn
from chatd.feed import Feed
from chatd.line import Line
from chatd.logins import Logins
from chatd.postbox import Postbox
from protocol.envelope import EntryPost
from protocol.wire import GENERATION_BYTES, Flag, Type

_count = itertools.count()


def _fresh() -> bytes:
    return b"fresh %d" % next(_count)


# --- ack before save


def broker_is_done_with_a_batch_before_it_is_saved() -> None:
    """A brokerd that dies in between loses the batch."""
    real = Broker._try

    async def _try(self: Broker, decoded: list[Any]) -> None:
        for delivery, _ in decoded:
            delivery.done()
        await real(self, decoded)

    Broker._try = _try  # type: ignore[method-assign]


def accepted_is_said_before_the_queue_confirmed() -> None:
    """A chatd that dies in between, or a nack, loses the message."""
    real = Postbox.__init__

    def __init__(self: Postbox, node: str, shards: int, inbound: Any, *more: Any, **named: Any) -> None:
        real(self, node, shards, _Hasty(inbound), *more, **named)

    Postbox.__init__ = __init__  # type: ignore[method-assign,assignment]


class _Hasty:
    """Inbound that takes a batch that has left for one that is durable."""

    def __init__(self, inbound: Any) -> None:
        self._inbound = inbound

    @property
    def is_ready(self) -> bool:
        return bool(self._inbound.is_ready)

    def post(self, shard: int, batch: bytes) -> asyncio.Future[None]:
        self._inbound.post(shard, batch).add_done_callback(lambda done: done.cancelled() or done.exception())
        hasty: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        hasty.set_result(None)
        return hasty


# --- look up before save


def login_reads_before_it_claims() -> None:
    """What is saved between the two is neither read nor handed over."""
    real = Logins._take_seat

    async def _take_seat(self: Logins, line: Line, former: Any) -> Any:
        session, board = line.session, self._board
        opened = await board.sent_queue.open(session.user, session.device, os.urandom(GENERATION_BYTES), board.now_ms())
        other, _ = await real(self, line, former)
        return other, opened

    Logins._take_seat = _take_seat  # type: ignore[method-assign]


def broker_looks_up_before_it_saves() -> None:
    """Who logs in between the two is taken for absent, and has read an empty queue."""
    real = Broker._append

    async def _append(self: Broker, work: Plan, now_ms: int) -> list[Appended]:
        seats = await self._register.seats([user for user, _ in work.appends])
        answers = await real(self, work, now_ms)
        return [answer._replace(seats=found) for answer, found in zip(answers, seats, strict=True)]

    Broker._append = _append  # type: ignore[method-assign]


# --- the dedupe is forgotten on redelivery


def a_redelivered_batch_is_taken_for_a_new_one() -> None:
    """RabbitMQ brings a batch again whose brokerd died behind the save."""
    real = Broker._try

    def anew(delivery: Any, post: Any) -> Any:
        is_entry = delivery.redelivered and isinstance(post, EntryPost)
        return post._replace(origin=post.origin + _fresh()) if is_entry else post

    async def _try(self: Broker, decoded: list[Any]) -> None:
        await real(self, [(delivery, [anew(delivery, post) for post in posts]) for delivery, posts in decoded])

    Broker._try = _try  # type: ignore[method-assign]


def a_resend_is_taken_for_a_new_message() -> None:
    """The mark is one of the session, not of the device."""
    real = chatd.session.message_post

    def message_post(*args: Any) -> EntryPost:
        post = real(*args)
        return post._replace(origin=post.origin + _fresh())

    chatd.session.message_post = message_post


# --- a stale register entry is kept


def who_leaves_stays_in_the_register() -> None:
    """The entry stands as long as the node does."""

    async def leave(self: InTurn, places: Any) -> None: ...

    InTurn.leave = leave  # type: ignore[method-assign]


def a_login_does_not_take_the_seat_of_an_older_session() -> None:
    """Hand-overs go where the device was before."""
    real = Logins._take_seat

    async def _take_seat(self: Logins, line: Line, former: Any) -> Any:
        _, opened = await real(self, line, former or line.next_seat(self._board.node))
        return None, opened

    Logins._take_seat = _take_seat  # type: ignore[method-assign]


# --- a receipt before the ACK


def delivered_is_told_when_it_is_saved() -> None:
    """No device has it yet."""
    real = Broker._append

    async def _append(self: Broker, work: Plan, now_ms: int) -> list[Appended]:
        answers = await real(self, work, now_ms)
        assert self._tasks is not None
        for (user, entries), answer in zip(work.appends, answers, strict=True):
            owed = [
                Owed(seq, entry.flags, entry.body)
                for entry, seq in zip(entries, answer.results, strict=True)
                if seq > 0 and entry.type == Type.DELIVER and entry.flags & Flag.RECEIPT
            ]
            self._tasks.create_task(self._post_all(delivered_posts(user, owed, now_ms, b"")))
        return answers

    Broker._append = _append  # type: ignore[method-assign]


def what_was_written_counts_as_acknowledged() -> None:
    """The socket took it; perhaps nobody ever read it."""
    real = Feed.push

    def push(self: Feed, first: int, last: int, frames: bytes) -> None:
        before = self.expected
        real(self, first, last, frames)
        if self.expected > before:
            self._effects.append(Acknowledge(last))

    Feed.push = push  # type: ignore[method-assign]


GENTLE: Final = "look-up before save"  # it only delays, and any fault would repair it: gentle worlds show it
BUGS: Final[dict[str, Sequence[Callable[[], None]]]] = {
    "ack before save": (broker_is_done_with_a_batch_before_it_is_saved, accepted_is_said_before_the_queue_confirmed),
    GENTLE: (login_reads_before_it_claims, broker_looks_up_before_it_saves),
    "dedupe forgotten": (a_redelivered_batch_is_taken_for_a_new_one, a_resend_is_taken_for_a_new_message),
    "stale register entry": (who_leaves_stays_in_the_register, a_login_does_not_take_the_seat_of_an_older_session),
    "receipt before ACK": (delivered_is_told_when_it_is_saved, what_was_written_counts_as_acknowledged),
}
PLANTED: Final[dict[str, Callable[[], None]]] = {plant.__name__: plant for kind in BUGS.values() for plant in kind}
