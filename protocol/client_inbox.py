"""The receiving half of a client: what waits for the loop, what the loop is done with, what must be acknowledged."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from protocol.client_bell import Bell
from protocol.client_core import Incoming, Mark, Take
from protocol.client_requests import ClientClosed
from protocol.client_store import Kept
from protocol.messages import Deliver, Gone, Pong, ReadSync, Receipt, Sent, Signalled, Welcome

SIGNALS_MAX: Final = 256  # ephemeral messages that wait for the loop; what comes then is dropped

Queued = Deliver | Sent | Receipt | ReadSync | Gone  # what has a seq
Incomings = Queued | Signalled  # what `async for` yields


class Inbox:
    """Bounded by the credit, which bounds what the server may deliver; a server that ignores it is left."""

    def __init__(self, kept: Kept, *, auto_ack: bool) -> None:
        self.place = Incoming(kept.generation, kept.position)
        self._auto_ack = auto_ack
        self._queue: deque[tuple[Mark | None, Incomings]] = deque()
        self._signals = 0
        self._yielded: deque[tuple[Mark, Incomings]] = deque()  # given to the application, not yet acknowledged by it
        self._skipped: deque[int] = deque()  # seqs that the application never sees, growing
        self._is_waiting = False
        self._over: ClientClosed | None = None
        self._filled = Bell()
        self._taken = Bell()
        self._drained = Bell()
        self.is_drained = False  # in this session

    # --- the session's side

    def welcome(self, welcome: Welcome) -> None:
        """A session begins."""
        epoch = self.place.epoch
        self.place.welcome(welcome)
        self.is_drained = False
        if epoch != self.place.epoch:
            self._skipped.clear()

    def put(self, message: Queued, first: int, last: int) -> str:
        """Something of seqs first..last. Gives the reason why the server must be left, "" for none."""
        take = self.place.take(first, last)
        if take is Take.NEW:
            self._queue.append((Mark(self.place.epoch, last), message))
            self._filled.ring(1)
            return f"{self.place.credit} deliveries of credit were overrun" if self.place.is_overrun() else ""
        return "" if take is Take.REPEAT else f"seq {first} after {self.place.received}"

    def skip(self, seq: int) -> str:
        """A seq that the application does not want to see."""
        take = self.place.take(seq, seq)
        if take is Take.NEW:
            self._skipped.append(seq)
            self._pass_skipped()
        return f"seq {seq} after {self.place.received}" if take is Take.GAP else ""

    def put_signal(self, message: Signalled) -> None:
        """Ephemeral: dropped when too many wait."""
        if self._signals < SIGNALS_MAX:
            self._signals += 1
            self._queue.append((None, message))
            self._filled.ring(1)

    def hear_drained(self) -> None:
        """All that waited at login has come."""
        self.is_drained = True
        self._drained.ring()

    def hear_pong(self, pong: Pong) -> str:
        """Gives the reason why the server must be left, "" for none."""
        if pong.known and self.place.hear_pong(pong.ref):
            return f"the queue reaches up to {pong.ref}, only {self.place.received} came"
        return ""

    def close(self, over: ClientClosed) -> None:
        """What waits can still be taken; then the loop ends."""
        self._over = over
        self._filled.ring()
        self._drained.ring()
        self._taken.ring()

    # --- the application's side

    async def next(self, on_finished: Callable[[], None]) -> Incomings:
        """The next message; the one before it is done with, if acknowledging is automatic (then on_finished() is called).

        Raises StopAsyncIteration after close(), ClientClosed after a code that ended the client.
        """
        if self._auto_ack and self._yielded:
            self.finish_all()
            on_finished()
        if self._is_waiting:
            raise RuntimeError("two loops over one client")
        self._is_waiting = True
        if not self._queue:
            self._taken.ring()
        try:
            while not self._queue:
                if self._over is not None:
                    raise StopAsyncIteration if self._over.code is None else self._over
                await self._filled.wait()
        finally:
            self._is_waiting = False
        mark, message = self._queue.popleft()
        if mark is None:
            self._signals -= 1
        else:
            self._yielded.append((mark, message))
        return message

    def finish(self, message: Incomings) -> None:
        """The application is done with this message and all before it. One that was finished before is ignored."""
        if any(message is other for _, other in self._yielded):
            while self._yielded:
                mark, other = self._yielded.popleft()
                self.place.finish(mark)
                if other is message:
                    break
            self._pass_skipped()

    def finish_all(self) -> None:
        """The application is done with all that it was given."""
        if self._yielded:
            self.place.finish(self._yielded[-1][0])
            self._yielded.clear()
            self._pass_skipped()

    def _pass_skipped(self) -> None:
        place, skipped = self.place, self._skipped
        while skipped and skipped[0] <= place.processed + 1:
            place.finish(Mark(place.epoch, skipped.popleft()))

    async def wait_drained(self) -> None:
        """Until all that waited at login has come. Raises ClientClosed."""
        while not self.is_drained:
            if self._over is not None:
                raise self._over
            await self._drained.wait()

    async def wait_taken(self) -> None:
        """Until nothing waits here and the loop asks for more. Raises ClientClosed."""
        while self._queue or not self._is_waiting:
            if self._over is not None:
                raise self._over
            await self._taken.wait()
