"""One connection to RabbitMQ that comes back by itself, shared by members with a channel each.

`run` connects, attaches every member (aiormq opens and declares), waits until the connection is lost, and begins again
after a jittered pause. Members are attached side by side, each in a task of `run`'s own, and a member whose channel died, or
could not be set up, is attached again on its own: one queue without a leader keeps nobody waiting who needs another one.
No error of the broker ends `run`.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol
from urllib.parse import quote, urlsplit

import aiormq
import structlog
from aiormq.abc import AbstractChannel

from brokerd.links.amqp_tap import Tap, TapFactory
from brokerd.links.amqp_url import rabbit_urls

HEARTBEAT_S: Final = 10
SILENCE_HEARTBEATS_MAX: Final = 2  # RabbitMQ sends two in each interval; aiormq alone would wait for 33 s
NOTICED_S_MAX: Final = HEARTBEAT_S * (SILENCE_HEARTBEATS_MAX + 1)  # until a half-open connection is given up
CONNECT_S_MAX: Final = 10.0
ATTACH_S_MAX: Final = 15.0
CLOSE_S_MAX: Final = 5.0
PAUSE_S_MIN: Final = 0.1  # before the next try; doubled at each, up to PAUSE_S_MAX, then up to a half is taken off
PAUSE_S_MAX: Final = 3.0
MOVE_TRIES: Final = 4  # a host on which a member could not be set up so often is left, if there is another one
FRAME_BYTES_DEFAULT: Final = 128 * 1024  # where the broker sets no bound

_log = structlog.get_logger("brokerd.amqp")


class Member(Protocol):
    """Somebody who needs a channel of its own on the link."""

    async def attach(self, wire: Wire) -> None:
        """Open a channel on this connection and begin, or begin again. Any exception: it is tried again later."""

    def detach(self) -> None:
        """The channel is gone: write nothing on it. May be called twice."""

    def end(self) -> None:
        """The link will not come back."""


class Wire:
    """One connection that stands: aiormq's side for setting up, and the tap for all that is hot."""

    def __init__(self, connection: aiormq.Connection, tap: Tap) -> None:
        self.tap = tap
        self.frame_bytes_max: int = connection.connection_tune.frame_max or FRAME_BYTES_DEFAULT
        self._connection = connection
        self._channels: dict[Member, AbstractChannel] = {}

    async def open_channel(self, member: Member, *, confirms: bool) -> AbstractChannel:
        """A new channel for the member; the one it had is closed."""
        former = self._channels.pop(member, None)
        if former is not None and not former.is_closed:
            await former.close()
        channel = self._channels[member] = await self._connection.channel(publisher_confirms=confirms)
        return channel

    async def close(self) -> None:
        """Send what waits, say goodbye, and leave nothing behind."""
        self.tap.flush()
        try:
            async with asyncio.timeout(CLOSE_S_MAX):
                await self._connection.close()
        except TimeoutError:
            _log.warning("amqp_close_timed_out")
        self.tap.abort("closed")


@dataclass(slots=True)
class _Due:
    """When a member is to be attached, and how often that failed."""

    at_s: float
    tries: int = 0
    is_stale: bool = False  # the channel died while it was being set up
    is_begun: bool = False  # a task is at it


@dataclass(slots=True)
class LinkCounts:
    """What a link did since it started."""

    connects: int = 0
    connect_failures: int = 0
    losses: int = 0
    attaches: int = 0
    attach_failures: int = 0
    silences: int = 0
    moves: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


class RabbitLink:
    """A connection to `url` (amqp:// or amqps://; the TLS options are aiormq's). `name` is what the broker shows.

    With several hosts in `url` the first one is chosen by chance, so that daemons spread over them, and the next one is
    tried at every loss. The owner keeps `run` going as a task and ends it with `close` or by cancelling it.
    """

    def __init__(self, url: str, name: str, *, heartbeat_s: int = HEARTBEAT_S) -> None:
        mark = "&" if urlsplit(url).query else "?"
        more = f"{mark}heartbeat={heartbeat_s}&name={quote(name, safe='')}"
        self._urls = [one + more for one in rabbit_urls(url)]
        self._at = random.randrange(len(self._urls))  # which of them is connected, or tried next
        self._silence_s_max = heartbeat_s * SILENCE_HEARTBEATS_MAX
        self._heartbeat_s = heartbeat_s
        self._log = _log.bind(link=name)
        self._members: list[Member] = []
        self._due: dict[Member, _Due] = {}
        self._wire: Wire | None = None
        self._changed = asyncio.Event()
        self._is_closing = False
        self._has_ended = False
        self._waiters: list[asyncio.Future[None]] = []
        self._counts = LinkCounts()
        for logger in ("aiormq.connection", "aiormq.channel"):
            # at DEBUG it formats every frame; what it says above that, this link says with its name
            logging.getLogger(logger).setLevel(logging.CRITICAL)

    # --- for the owner

    @property
    def is_ready(self) -> bool:
        """Whether the connection stands and every member has its channel."""
        return self._wire is not None and not self._due

    @property
    def state(self) -> str:
        """For people: "up", "not connected", or the alarm for which the broker takes nothing."""
        if self._wire is not None and self._wire.tap.is_blocked:
            return f"blocked: {self._wire.tap.alarm}"
        return "up" if self.is_ready else "not connected"

    async def wait_ready(self) -> None:
        """Wait until `is_ready`, however long that takes."""
        await self._wait_until(lambda: self.is_ready)

    async def close(self) -> None:
        """Send what is waiting, close the connection, fail what is open. Returns when `run` has ended."""
        self._is_closing = True
        self._changed.set()
        await self._wait_until(lambda: self._has_ended)

    def statistics(self) -> dict[str, int]:
        """Counters, and the state as 0 or 1."""
        counts = asdict(self._counts)
        wire = self._wire
        if wire is not None:
            counts["bytes_in"] += wire.tap.bytes_in
            counts["bytes_out"] += wire.tap.bytes_out
        return counts | {
            "reconnects": max(0, self._counts.connects - 1),
            "is_ready": int(self.is_ready),
            "is_blocked": int(wire is not None and wire.tap.is_blocked),
        }

    # --- for the members

    def join(self, member: Member) -> None:
        """Attach the member now if the link stands, and at every connect from now on."""
        self._members.append(member)
        if self._wire is not None:
            self.attach_again(member, pause_s=0.0)

    def attach_again(self, member: Member, *, pause_s: float = PAUSE_S_MIN) -> None:
        """The member's channel is of no use any more: detach it, and attach it again soon."""
        member.detach()
        if member in self._due:
            self._due[member].is_stale = True
        elif self._wire is not None:
            self._due[member] = _Due(_now_s() + pause_s)
            self._changed.set()

    def move_on(self, reason: str) -> None:
        """This host is of no use, though it is up: drop it for the next one. Nothing when there is no other."""
        if self._wire is not None and len(self._urls) > 1:
            self._counts.moves += 1
            self._wire.tap.abort(reason)

    async def wait_attached(self, member: Member) -> None:
        """Wait until the member has its channel; not at all while the connection is down."""
        await self._wait_until(lambda: self._wire is None or member not in self._due)

    # --- the task

    async def run(self) -> None:
        """Connect and stay connected until closed or cancelled."""
        tries = 0
        try:
            while not self._is_closing:
                held_from_s = _now_s()
                await self._guard(self._connect_and_hold())
                self._at = (self._at + 1) % len(self._urls)
                tries = 0 if _now_s() - held_from_s > PAUSE_S_MAX else tries + 1
                self._changed.clear()
                await self._wait_changed(_pause_s(tries))
        finally:
            self._has_ended = True
            for member in self._members:
                member.detach()
                member.end()
            self._tell_waiters()

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        """Let no failure of the link out: it is logged and counted. Only a cancellation of this task passes."""
        try:
            await work
        except (Exception, asyncio.CancelledError) as error:
            _pass_own_cancellation(error)
            self._counts.connect_failures += 1
            self._log.warning("amqp_connect_failed", host=self._host, error=_told(error))

    async def _connect_and_hold(self) -> None:
        factory = TapFactory(self._tap_changed)
        connection = aiormq.Connection(self._urls[self._at], transport_factory=factory)
        async with asyncio.timeout(CONNECT_S_MAX):
            await connection.connect()
        assert factory.tap is not None
        wire = self._wire = Wire(connection, factory.tap)
        self._counts.connects += 1
        self._log.info("amqp_connected", host=self._host)
        try:
            await self._hold(wire)
        finally:
            self._lose(wire)
            await wire.close()

    async def _hold(self, wire: Wire) -> None:
        """Attach whoever is due until the connection is lost."""
        self._due = {member: _Due(0.0) for member in self._members}
        self._tell_waiters()
        async with asyncio.TaskGroup() as group:
            attaching: set[asyncio.Task[None]] = set()
            while not wire.tap.is_lost and not self._is_closing:
                for member, due in self._due.items():
                    if not due.is_begun and due.at_s <= _now_s():
                        due.is_begun = True
                        task = group.create_task(self._attach(member, due, wire))
                        attaching.add(task)
                        task.add_done_callback(attaching.discard)
                if _now_s() - wire.tap.heard_s > self._silence_s_max:
                    self._counts.silences += 1
                    wire.tap.abort(f"silent for {self._silence_s_max} s")
                    break
                waiting = [due.at_s - _now_s() for due in self._due.values() if not due.is_begun]
                await self._wait_changed(min(max(min(waiting, default=self._heartbeat_s), 0.0), self._heartbeat_s))
            for task in attaching:
                task.cancel()

    async def _attach(self, member: Member, due: _Due, wire: Wire) -> None:
        try:
            async with asyncio.timeout(ATTACH_S_MAX):
                await member.attach(wire)
        except (Exception, asyncio.CancelledError) as error:
            member.detach()
            _pass_own_cancellation(error)
            self._counts.attach_failures += 1
            due.tries += 1
            due.at_s = _now_s() + _pause_s(due.tries)
            self._log.warning("amqp_attach_failed", member=str(member), error=_told(error), tries=due.tries)
            if due.tries >= MOVE_TRIES:
                self.move_on(f"{member} cannot be set up")
        else:
            self._counts.attaches += 1
            if wire.tap.is_lost:
                member.detach()
            elif due.is_stale:
                due.is_stale, due.at_s = False, _now_s() + PAUSE_S_MIN
            else:
                self._due.pop(member, None)
                self._tell_waiters()
        due.is_begun = False
        self._changed.set()

    # --- changes

    @property
    def _host(self) -> str:
        """Without login and options, for the log."""
        return urlsplit(self._urls[self._at]).netloc.rpartition("@")[2]

    def _tap_changed(self) -> None:
        wire = self._wire
        if wire is not None and wire.tap.is_lost:
            self._lose(wire)
        self._changed.set()

    def _lose(self, wire: Wire) -> None:
        if self._wire is not wire:
            return
        self._wire = None
        self._due = {}
        self._counts.bytes_in += wire.tap.bytes_in
        self._counts.bytes_out += wire.tap.bytes_out
        for member in self._members:
            member.detach()
        if wire.tap.is_lost:
            self._counts.losses += 1
            self._log.warning("amqp_lost", reason=wire.tap.loss)
        self._tell_waiters()

    async def _wait_changed(self, s_max: float) -> None:
        if self._is_closing:
            return
        try:
            async with asyncio.timeout(s_max):
                await self._changed.wait()
        except TimeoutError:
            return
        self._changed.clear()

    async def _wait_until(self, is_so: Callable[[], bool]) -> None:
        while not is_so():
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    def _tell_waiters(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _pause_s(tries: int) -> float:
    return min(PAUSE_S_MAX, PAUSE_S_MIN * 2.0 ** min(tries, 10)) * random.uniform(0.5, 1.0)


def _pass_own_cancellation(error: BaseException) -> None:
    """Raise if this task was cancelled by its owner. aiormq also cancels its callers, when it closes: that is a failure."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError from error


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
