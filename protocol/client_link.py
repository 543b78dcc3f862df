"""Keeps a client connected: connects, logs in, ticks, closes by code, waits and comes back. One write a loop turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from protocol.client_core import Backoff, ends_connection, may_return
from protocol.client_wire import Address, ClientWire, open_wire
from protocol.connection import ClientConnection, Closing
from protocol.connection import Refused as Unsupported
from protocol.errors import Code
from protocol.messages import Bye, Error, GoAway, Hello, Message, Welcome
from protocol.states import State
from protocol.wire import HEAD_BYTES, LOGIN_S_MAX

CLOSE_S_MAX: Final = 2.0  # what was written last has so long to leave
LATE_LOGIN_S_MAX: Final = 60.0  # so long a HELLO that was never answered may still be carried out somewhere

# --- what a client tells about its connection -----------------------------------------------------------------------


class Connecting(NamedTuple):
    """A connection is being opened."""


class Connected(NamedTuple):
    """Logged in."""

    node: str
    session: str


class Reconnecting(NamedTuple):
    """The connection is gone; the next try is `wait_s` away (at `next_try_s` of the loop's clock)."""

    wait_s: float
    next_try_s: float
    tries: int
    code: int | None  # the error code that ended it, if there was one
    detail: str


class Closed(NamedTuple):
    """It is over: by close() (code None), or by a code on which a client must not come back."""

    code: int | None
    detail: str


ClientState = Connecting | Connected | Reconnecting | Closed

# --- seams -----------------------------------------------------------------------------------------------------------


class Clock(Protocol):
    """Time, so that a test can jump."""

    def now_s(self) -> float:
        """Monotonic."""

    async def sleep(self, wait_s: float) -> None:
        """Wait."""

    def call_later(self, wait_s: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        """Call once, later."""


class LoopClock:
    """The event loop's own."""

    def now_s(self) -> float:
        """See Clock."""
        return asyncio.get_running_loop().time()

    async def sleep(self, wait_s: float) -> None:
        """See Clock."""
        await asyncio.sleep(wait_s)

    def call_later(self, wait_s: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        """See Clock."""
        return asyncio.get_running_loop().call_later(wait_s, call)


class Session(Protocol):
    """Who uses the link: the Client. All calls come from the event loop."""

    def hello(self) -> Hello:
        """What to log in with now."""

    def welcome(self, welcome: Welcome) -> None:
        """A session begins."""

    def receive(self, message: Message) -> str:
        """Everything but WELCOME. Gives the reason why the server must be left (and asked anew), "" for none."""

    def fill(self, connection: ClientConnection | None, *, is_taking: bool) -> None:
        """The turn ends: keep what changed, queue what may leave. `connection` is None when nothing may; without
        `is_taking` only acknowledgements may (the server reads slowly, or goes away)."""

    def part(self) -> None:
        """The session is over; nothing of it is answered any more."""

    def tell(self, state: ClientState) -> None:
        """The state changed."""


class Ended(NamedTuple):
    """How one connection ended. `is_told`: the server said the code (what we find ourselves never forbids a return)."""

    code: int | None
    detail: str
    is_told: bool = False
    retry_after_s: float = 0.0
    is_left: bool = False  # we left, because the server broke a promise
    was_open: bool = False  # WELCOME came
    return_s: float | None = None  # when to come back, after a GOAWAY (of the clock)
    is_unanswered: bool = False  # HELLO may have left, and nothing came


# --- one connection --------------------------------------------------------------------------------------------------


class Line:
    """One connection from its first byte to its last. It is the transport's Receiver."""

    def __init__(self, address: Address, session: Session, backoff: Backoff, clock: Clock) -> None:
        loop = asyncio.get_running_loop()
        self._address = address
        self._session = session
        self._backoff = backoff
        self._clock = clock
        self._loop = loop
        self._wire: ClientWire | None = None
        self._over: asyncio.Future[Ended] = loop.create_future()
        self._lost: asyncio.Future[None] = loop.create_future()
        self._tick: asyncio.TimerHandle | None = None
        self._parting: asyncio.TimerHandle | None = None  # when we leave a server that said GOAWAY
        self._was_open = False  # WELCOME came
        self._return_s: float | None = None
        self._is_scheduled = False
        self._is_paused = False  # the server reads slowly
        self.connection = ClientConnection(
            session.hello(), now_s=clock.now_s(), login_s_max=LOGIN_S_MAX, preface=address.has_preface
        )

    async def run(self) -> Ended:
        """Until it is over."""
        try:
            async with asyncio.timeout(LOGIN_S_MAX):
                self._wire = await open_wire(self._address, self)
            self._arm()
            self.flush()
            ended = await self._over
        except (OSError, TimeoutError) as fault:
            ended = Ended(None, str(fault) or type(fault).__name__)
        finally:
            self._put_down()
        is_unanswered = self._wire is not None and not self._was_open and not ended.is_told
        return ended._replace(was_open=self._was_open, return_s=self._return_s, is_unanswered=is_unanswered)

    def _put_down(self) -> None:
        self.end(Ended(None, "put down"))
        for timer in (self._tick, self._parting):
            if timer is not None:
                timer.cancel()
        if self._wire is not None:
            self._wire.abort()

    async def close(self) -> None:
        """What is due and BYE, then close when it has left."""
        self.flush()
        if self.is_open:
            self.connection.send(Bye(0, 0))
            self._write()
        if self._wire is not None:
            self._wire.close()
            await asyncio.wait([self._lost], timeout=CLOSE_S_MAX)

    @property
    def is_open(self) -> bool:
        """Whether messages may be sent."""
        return self.connection.state is State.OPEN and not self._over.done()

    @property
    def _is_taking(self) -> bool:
        return not self._is_paused and self._return_s is None

    def end(self, ended: Ended) -> None:
        """The first reason counts."""
        if not self._over.done():
            self._over.set_result(ended)

    # --- the transport's calls (protocol.client_wire.Receiver)

    def receive(self, data: bytes) -> None:
        """Bytes came."""
        if self._over.done():
            return
        for event in self.connection.receive(data, self._clock.now_s()):
            self._take(event)
            if self._over.done():
                return
        self.schedule()

    def lost(self, detail: str, code: int | None) -> None:
        """The transport is gone."""
        if not self._lost.done():
            self._lost.set_result(None)
        self.end(Ended(code, detail, code is not None))

    def pause_writing(self) -> None:
        """The server reads slowly."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """It reads again."""
        self._is_paused = False
        self.schedule()

    # --- what came

    def _take(self, event: Message | Closing | Unsupported) -> None:
        if isinstance(event, Closing):
            is_final = event.code == Code.VERSION_UNSUPPORTED  # the server's preface said it
            self.end(Ended(event.code, event.detail, is_final))
        elif isinstance(event, Unsupported):
            pass  # a message of a newer server: a client skips it in silence
        elif isinstance(event, Welcome):
            self._open(event)
        else:
            why = self._session.receive(event)
            if isinstance(event, Error) and (self.connection.is_over or ends_connection(event.code)):
                self.end(Ended(event.code, event.detail, True, event.retry_after_ms / 1000))
            elif why:
                after_s = event.retry_after_ms / 1000 if isinstance(event, Error) else 0.0
                self.end(Ended(None, why, retry_after_s=after_s, is_left=True))
            elif isinstance(event, GoAway):
                self._go_away(event)

    def _open(self, welcome: Welcome) -> None:
        self._was_open = True
        if self._wire is not None:
            self._wire.message_bytes_max = welcome.body_bytes_max + HEAD_BYTES
        self._session.welcome(welcome)
        self._arm()
        self._session.tell(Connected(welcome.node, welcome.session))

    def _go_away(self, message: GoAway) -> None:
        """Send nothing new and take the answers that still come. We come back at our time, counted from now, whether
        the server has closed by then or not."""
        if not may_return(message.reason):
            self.end(Ended(message.reason, "the server sent us away", True))
        elif self._return_s is None:
            wait_s = self._backoff.pick_s(message.after_ms_min / 1000, message.after_ms_max / 1000)
            self._return_s = self._clock.now_s() + wait_s
            self._parting = self._clock.call_later(wait_s, self._part)

    def _part(self) -> None:
        self.flush()
        if self.is_open:
            self.connection.send(Bye(0, 0))
            self._write()
        self.end(Ended(int(Code.GOING_AWAY), "the server goes away"))

    # --- writing and time

    def schedule(self) -> None:
        """Something may have to be written: at the end of this loop turn, with everything else of it."""
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write what is queued, in one piece."""
        self._is_scheduled = False
        if self._over.done():
            return
        try:
            self._session.fill(self.connection if self.is_open else None, is_taking=self._is_taking)
        except Exception as fault:  # the store failed: run() raises it, and the client closes
            self._over.set_exception(fault)
            return
        self._write()

    def _write(self) -> None:
        if self._wire is None:
            return
        chunks = self.connection.bytes_to_send()
        if chunks:
            self._wire.write(chunks)
            self.connection.spoke(self._clock.now_s())

    def _arm(self) -> None:
        if self._tick is not None:
            self._tick.cancel()
        wait_s = self.connection.next_deadline_s - self._clock.now_s()
        self._tick = self._clock.call_later(max(0.0, wait_s), self._on_tick)

    def _on_tick(self) -> None:
        if self._over.done():
            return
        for event in self.connection.tick(self._clock.now_s()):
            self._take(event)
        self.flush()
        self._arm()


# --- the link --------------------------------------------------------------------------------------------------------


class Link:
    """One connection after the other. `run` returns when no other may follow."""

    def __init__(self, address: Address, session: Session, backoff: Backoff, clock: Clock) -> None:
        self._address = address
        self._session = session
        self._backoff = backoff
        self._clock = clock
        self._is_closing = False
        self._unanswered_s: float | None = None  # when we last gave up a login that had no answer
        self.line: Line | None = None  # the connection that stands or is being opened

    async def run(self) -> Closed:
        """Connect again and again, until a code forbids it."""
        while True:
            self._session.tell(Connecting())
            self.line = Line(self._address, self._session, self._backoff, self._clock)
            try:
                ended = await self.line.run()
            finally:
                self.line = None
                self._session.part()
            if self._is_closing:
                return Closed(None, "closed by this side")
            if ended.is_unanswered:
                self._unanswered_s = self._clock.now_s()
            if (
                ended.is_told
                and ended.code is not None
                and not (may_return(ended.code) or self._is_own_work(ended.code))
            ):
                return Closed(ended.code, ended.detail)
            wait_s = self._wait_s(ended)
            next_try_s = self._clock.now_s() + wait_s
            self._session.tell(Reconnecting(wait_s, next_try_s, self._backoff.tries, ended.code, ended.detail))
            await self._clock.sleep(wait_s)

    def _is_own_work(self, code: int) -> bool:
        """Whether it may be a login of our own that replaced us: one that we gave up, and that was carried out late."""
        given_up_s, self._unanswered_s = self._unanswered_s, None
        is_late = given_up_s is not None and self._clock.now_s() - given_up_s < LATE_LOGIN_S_MAX
        return code == Code.REPLACED and is_late

    @property
    def is_open(self) -> bool:
        """Whether a session stands."""
        return self.line is not None and self.line.is_open

    async def close(self) -> None:
        """Leave in good order. Cancel `run` after it: it may be asleep between two connections."""
        self._is_closing = True
        if self.line is not None:
            await self.line.close()

    def _wait_s(self, ended: Ended) -> float:
        """A session that stood ends a row of failures, unless the server broke a promise in it."""
        if ended.was_open and not ended.is_left:
            self._backoff.reset()
        if ended.return_s is not None:
            return max(0.0, ended.return_s - self._clock.now_s())
        return self._backoff.wait_s(ended.retry_after_s)
