"""What a client decides, without I/O: what is sent again and under which cid, what is new and what a repeat, when to come
back. Spec: protocol/SPEC.md §10, §11. The shell is protocol/client.py; a client in another language needs just this logic.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Final, NamedTuple

from protocol.errors import ERRORS, Code
from protocol.messages import Error, Read, Send, Welcome
from protocol.wire import Processed

Request = Send | Read  # what has a cid, is answered, and is sent again until it is

BACKOFF_BASE_S: Final = 0.5
BACKOFF_CAP_S: Final = 30.0
OVERRUN_FACTOR: Final = 2  # a server that delivers this many times the credit is not to be trusted: reconnect


# --- codes -------------------------------------------------------------------------------------------------------


def may_return(code: int) -> bool:
    """Whether a client may reconnect by itself after a connection ended with `code`. Unknown codes go by hundreds."""
    row = ERRORS.get(code)  # type: ignore[call-overload]
    return bool(row.retry) if row is not None else code >= 400


def ends_connection(code: int) -> bool:
    """Whether the connection is over with this ERROR. Of the unknown codes 1xx and 2xx close."""
    row = ERRORS.get(code)  # type: ignore[call-overload]
    return bool(row.closes) if row is not None else code < 300


class Fate(Enum):
    """What an ERROR makes of the request that it names."""

    TAKEN = "taken"  # it was carried out all the same
    AGAIN = "again"  # surely not carried out: later, under its cid
    UNKNOWN = "unknown"  # perhaps carried out: in a new session, under its cid
    REFUSED = "refused"  # the application must know


def fate_of(error: Error) -> Fate:
    """Only 4xx and 5xx are tried again by themselves; a QUEUE_FULL is for the application to think about."""
    if error.processed == Processed.YES:
        return Fate.TAKEN
    if error.code < 400 or not may_return(error.code):
        return Fate.REFUSED
    return Fate.AGAIN if error.processed == Processed.NO else Fate.UNKNOWN


# --- coming back -------------------------------------------------------------------------------------------------


class Backoff:
    """How long to wait before try n: anything from 0 to base·2^n, at most the cap ("full jitter").

    `uniform(low, high)` is random.uniform, or a seeded one.
    """

    def __init__(
        self, uniform: Callable[[float, float], float], *, base_s: float = BACKOFF_BASE_S, cap_s: float = BACKOFF_CAP_S
    ) -> None:
        self._uniform = uniform
        self._base_s = base_s
        self._cap_s = cap_s
        self.tries = 0

    def wait_s(self, after_s: float = 0.0) -> float:
        """The wait before the next try, which is counted. `after_s` is the least (retry_after_ms)."""
        top_s: float = min(self._cap_s, self._base_s * 2 ** min(self.tries, 32))
        self.tries += 1
        return after_s + self._uniform(0.0, top_s)

    def pick_s(self, after_s_min: float, after_s_max: float) -> float:
        """A time within the window of a GOAWAY. Not a failure: nothing is counted."""
        return self._uniform(min(after_s_min, after_s_max), max(after_s_min, after_s_max))

    def reset(self) -> None:
        """All is well again."""
        self.tries = 0


# --- out ---------------------------------------------------------------------------------------------------------


class Outgoing:
    """What was posted and not answered yet, in the order in which it must leave.

    A request is in one of three places: `again` (it was on the wire before and is sent again, first, by cid), `flight`
    (on the wire of this session), `fresh`. Its cid is its own for ever: that is what the server knows a repeat by.
    """

    def __init__(self, next_cid: int, unanswered: Iterable[Request]) -> None:
        """`unanswered` is what an earlier run of the client left, in any order: it may have been taken."""
        self.again: deque[Request] = deque(sorted(unanswered, key=lambda request: request.ref))
        self.flight: dict[int, Request] = {}
        self.fresh: deque[Request] = deque()
        self.next_cid = max(next_cid, self.again[-1].ref + 1 if self.again else 1)

    def __len__(self) -> int:
        return len(self.again) + len(self.flight) + len(self.fresh)

    def post(self, request: Request) -> Request:
        """Number a new request and put it at the end."""
        numbered = request._replace(ref=self.next_cid)
        self.next_cid += 1
        self.fresh.append(numbered)
        return numbered

    def lose_connection(self) -> None:
        """What was in flight comes first in the next session."""
        self._put_back(self.flight.values())
        self.flight.clear()

    def answer(self, cid: int) -> Request | None:
        """The request that `cid` answers, forgotten; None for a number that is not in flight."""
        return self.flight.pop(cid, None)

    def refuse(self, cid: int) -> None:
        """Not taken this time: it is sent again, before anything new."""
        request = self.flight.pop(cid, None)
        if request is not None and self.again and self.again[-1].ref > cid:
            self._put_back([request])
        elif request is not None:  # as a rule: refusals come in order
            self.again.append(request)

    def _put_back(self, requests: Iterable[Request]) -> None:
        self.again = deque(sorted([*self.again, *requests], key=lambda request: request.ref))

    def transmit(self, flight_max: int) -> list[Request]:
        """What may leave now, moved into flight."""
        out: list[Request] = []
        for queue in (self.again, self.fresh):
            while queue and len(self.flight) < flight_max:
                request = queue.popleft()
                self.flight[request.ref] = request
                out.append(request)
        return out


# --- in ----------------------------------------------------------------------------------------------------------


class Take(Enum):
    """What an incoming seq is."""

    NEW = "new"
    REPEAT = "repeat"  # drop it
    GAP = "gap"  # something between is missing: reconnect from `processed`


class Mark(NamedTuple):
    """A place in one queue: seqs of different epochs (generations of the queue) do not compare."""

    epoch: int
    seq: int


class Incoming:
    """Where this device stands in its user's queue: `received` (handed up) and `processed` (the application is done)."""

    def __init__(self, generation: bytes, processed: int) -> None:
        self.generation = generation
        self.processed = processed
        self.received = processed
        self.epoch = 0
        self.credit = 0
        self._acked = processed  # in this session
        self._delivered = processed  # in this session: an ACK over it is BAD_ACK, and ignored
        self._hello_ref = processed
        self._suspect: tuple[int, int] | None = None  # (head, received) of a PONG that showed more than we have

    def hello(self) -> int:
        """HELLO.ref: what is processed, not what came."""
        self._hello_ref = self.processed
        return self.processed

    def welcome(self, welcome: Welcome) -> None:
        """Begin a session behind WELCOME.cursor. What we hold already of what comes behind it is dropped as repeats;
        but in a queue that was made anew, or that went back (a store restored from an older copy), what we knew by seq
        means nothing."""
        is_other = welcome.generation != self.generation
        if is_other or welcome.cursor < self._hello_ref or welcome.ref < self.received:
            self.generation = welcome.generation
            self.epoch += 1
            self.received = self.processed = welcome.cursor
        elif welcome.cursor > self.received:
            self.received = self.processed = welcome.cursor
        self.credit = welcome.credit
        self._acked = self._delivered = welcome.cursor
        self._suspect = None

    def take(self, first: int, last: int) -> Take:
        """Something for seqs first..last came (GONE has several, all else first == last)."""
        if last <= self.received:
            self._delivered = max(self._delivered, last)
            return Take.REPEAT
        if first > self.received + 1:
            return Take.GAP
        self.received = self._delivered = last
        return Take.NEW

    def is_overrun(self) -> bool:
        """Whether the server delivers far beyond the credit that it settled."""
        return self.received - self.processed > OVERRUN_FACTOR * max(self.credit, 1)

    def finish(self, mark: Mark) -> None:
        """The application is done with everything up to `mark`. A mark of an older queue is ignored."""
        if mark.epoch == self.epoch and mark.seq > self.processed:
            self.processed = min(mark.seq, self.received)

    def ack_due(self) -> int | None:
        """The seq to acknowledge now, once; None when the server knows already. What was processed since HELLO, of an
        earlier session, waits until it was delivered in this one as well."""
        seq = min(self.processed, self._delivered)
        if seq <= self._acked:
            return None
        self._acked = seq
        return seq

    def hear_pong(self, head: int) -> bool:
        """Whether something is missing: the second PONG in a row showed the same hole while credit was left."""
        is_stuck = self._suspect is not None and self._suspect[1] == self.received < self._suspect[0]
        has_credit = self.received - self.processed < self.credit
        self._suspect = (head, self.received) if head > self.received and has_credit else None
        return is_stuck and self._suspect is not None


assert all(may_return(code) == row.retry for code, row in ERRORS.items())
assert not may_return(Code.REPLACED), "two clients with one device id would throw each other out for ever"
