"""The sending half of a client: who waits for which answer, and what must be kept before it leaves."""

from __future__ import annotations

import asyncio
from typing import Final

from protocol.client_bell import Bell
from protocol.client_core import Backoff, Fate, Outgoing, Request, fate_of
from protocol.client_link import Clock
from protocol.client_store import Kept
from protocol.codec import encode_body
from protocol.connection import ClientConnection
from protocol.errors import ERRORS, Code
from protocol.messages import Accepted, Error, Send, Welcome
from protocol.names import NAME_ALLOWED, is_name, message_id
from protocol.wire import BODY_BYTES_HARD_MAX, MESSAGE_ID_BYTES, NAME_BYTES_MAX, UNACCEPTED_MAX

SEND_OVERHEAD_BYTES_MAX: Final = NAME_BYTES_MAX + 16  # of a SEND body, without the payload


class Refused(Exception):
    """The server (or this library, before sending) will not take a request: an error code of protocol.errors.

    `retry_after_ms` and `limit` (bytes, for TOO_LARGE) are 0 when there is nothing to say.
    """

    def __init__(self, code: int, detail: str, *, retry_after_ms: int = 0, limit: int = 0) -> None:
        super().__init__(f"{name_of(code)}: {detail}")
        self.code = code
        self.detail = detail
        self.retry_after_ms = retry_after_ms
        self.limit = limit


class ClientClosed(Exception):
    """The client is closed: by close() (code None), or by a code on which it must not come back (REPLACED …)."""

    def __init__(self, code: int | None, detail: str) -> None:
        super().__init__(detail if code is None else f"{name_of(code)}: {detail}")
        self.code = code
        self.detail = detail


class OutgoingFull(Exception):
    """So many requests are unanswered that no more are taken. `send` waits instead; `wait_room` waits for room."""


def name_of(code: int) -> str:
    """BUSY, or "code 499" for one that is not in this registry."""
    row = ERRORS.get(code)  # type: ignore[call-overload]
    return str(row.code.name) if row is not None else f"code {code}"


class Requests:
    """Every request that was posted and has no answer yet, with the future that its poster holds."""

    def __init__(self, kept: Kept, first_cid: int, count_max: int, busy: Backoff, clock: Clock) -> None:
        self._outgoing = Outgoing(max(kept.next_cid, first_cid), kept.unanswered)
        self._count_max = count_max
        self._busy = busy  # for a BUSY that does not say how long
        self._clock = clock
        self._is_held = False  # after BUSY: nothing leaves for a while
        self._futures: dict[int, asyncio.Future[bytes]] = {}
        self._flight_max = UNACCEPTED_MAX
        self._body_bytes_max = BODY_BYTES_HARD_MAX
        self._tag = b""
        self._over: ClientClosed | None = None
        self.room = Bell()
        self.quiet = Bell()
        self.posted: list[Request] = []  # what the store must learn
        self.answered: list[int] = []
        self.recovered = [(request, self._expect(request.ref)) for request in self._outgoing.again]
        for _, future in self.recovered:
            future.add_done_callback(_look_at)

    def __len__(self) -> int:
        return len(self._outgoing)

    # --- the application's side

    async def wait_room(self) -> None:
        """Until another request would be taken. Raises ClientClosed."""
        while len(self._outgoing) >= self._count_max and self._over is None:
            await self.room.wait()
        if self._over is not None:
            raise self._over

    async def wait_answered(self) -> None:
        """Until nothing is unanswered. Raises ClientClosed."""
        while len(self._outgoing) and self._over is None:
            await self.quiet.wait()
        if len(self._outgoing) and self._over is not None:
            raise self._over

    def post(self, request: Request) -> asyncio.Future[bytes]:
        """Number it and queue it. The future gives the message id. Raises Refused, OutgoingFull, ClientClosed."""
        if self._over is not None:
            raise self._over
        if len(self._outgoing) >= self._count_max:
            raise OutgoingFull(f"{self._count_max} requests are unanswered")
        if not is_name(request.to):
            raise Refused(Code.BAD_RECEIVER, f"a user is {NAME_ALLOWED}")
        self._check_size(request)
        numbered = self._outgoing.post(request)
        self.posted.append(numbered)
        return self._expect(numbered.ref)

    def _check_size(self, request: Request) -> None:
        """Exact only near the limit: packing twice would cost every small message a microsecond."""
        if type(request) is Send and len(request.payload) + SEND_OVERHEAD_BYTES_MAX > self._body_bytes_max:
            size = len(encode_body(request))
            if size > self._body_bytes_max:
                limit = self._body_bytes_max
                raise Refused(Code.TOO_LARGE, f"{size} bytes as a body, at most {limit}", limit=limit)

    def _expect(self, cid: int) -> asyncio.Future[bytes]:
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._futures[cid] = future
        return future

    # --- the session's side

    def welcome(self, welcome: Welcome) -> None:
        """A session begins: what was in flight goes out again."""
        self._tag = welcome.device_tag
        self._flight_max = min(welcome.unaccepted_max, UNACCEPTED_MAX)
        self._body_bytes_max = min(welcome.body_bytes_max, BODY_BYTES_HARD_MAX)

    def part(self) -> None:
        """The session is over."""
        self._outgoing.lose_connection()

    def transmit(self, connection: ClientConnection) -> None:
        """Queue what may leave."""
        if self._is_held:
            return
        for request in self._outgoing.transmit(self._flight_max):
            connection.send(request)

    def accepted(self, message: Accepted) -> None:
        """The server has them. In any order."""
        self._busy.reset()
        tag = self._tag
        for cid in message.cids:
            if self._outgoing.answer(cid) is not None:
                future = self._settle(cid)
                if not future.done():
                    future.set_result(message_id(tag, cid))

    def failed(self, error: Error) -> bool:
        """An ERROR. False when its request can only go on in a new session (perhaps it was carried out)."""
        cid, fate = error.ref, fate_of(error)
        if cid not in self._outgoing.flight:
            return True  # of an ACK or a SIGNAL, or of the connection
        if fate is Fate.UNKNOWN:
            return False
        if fate is Fate.AGAIN:
            self._outgoing.refuse(cid)
            self._hold(error.retry_after_ms / 1000)
        elif fate is Fate.TAKEN:
            self.accepted(Accepted(cid, 0, (cid,)))
        else:
            self._outgoing.answer(cid)
            future = self._settle(cid)
            if not future.done():
                future.set_exception(
                    Refused(error.code, error.detail, retry_after_ms=error.retry_after_ms, limit=error.limit)
                )
        return True

    def _settle(self, cid: int) -> asyncio.Future[bytes]:
        self.answered.append(cid)
        self.room.ring(1)
        if not len(self._outgoing):
            self.quiet.ring()
        return self._futures.pop(cid)

    def _hold(self, wait_s: float) -> None:
        if not self._is_held:
            self._is_held = True
            self._clock.call_later(wait_s or self._busy.wait_s(), self._release)

    def _release(self) -> None:
        self._is_held = False
        self.on_release()

    def on_release(self) -> None:
        """The hold is over; the Client puts its schedule here."""

    def close(self, over: ClientClosed) -> None:
        """Nothing will be answered any more; the store may keep it for another run."""
        self._over = over
        for future in self._futures.values():
            if not future.done():
                future.set_exception(over)
                future.exception()  # the poster may not care: no complaint in the log
        self._futures.clear()
        self.room.ring()
        self.quiet.ring()


def _look_at(future: asyncio.Future[bytes]) -> None:
    if not future.cancelled():
        future.exception()


assert SEND_OVERHEAD_BYTES_MAX > NAME_BYTES_MAX + 2 + 5 + 5 + 1, "str head, bin head, ttl, array head"
assert MESSAGE_ID_BYTES == 16
