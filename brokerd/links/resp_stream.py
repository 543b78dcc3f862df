"""One connection to Redis, from its making to its loss: calls in, replies out, matched by their order.

A call keeps its place until its last reply came: a caller that was cancelled or came too late leaves its slot behind,
whose replies are read and dropped. What would break the order ends the connection, and everybody waiting hears LinkDown.

Calls that save wait for replicas too, where that is asked for: one WAIT behind all that leaves in one write.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import hiredis

from brokerd.ports import LinkDown

Command = tuple[str | bytes | int | float, ...]

_NOTHING_YET: Final = object()  # hiredis' default for it (False) is also a reply
_WRONG_SERVER: Final = ("LOADING", "READONLY", "MASTERDOWN")  # of use to nobody now: look for it anew
_pack: Callable[[Command], bytes] = cast(Any, hiredis.pack_command)


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of a connection. At the two `waiting` ones a call is refused at once with LinkDown."""

    call_s_max: float = 5.0  # a caller waits no longer than this
    stall_s_max: float = 10.0  # a server that owes a reply for so long is given up
    waiting_commands_max: int = 50_000
    waiting_bytes_max: int = 128 * 1024 * 1024  # a single call may exceed it while nothing else waits
    replicas_s_max: float = 1.0  # of one WAIT, in which the server answers nothing else on this connection


class _Call:
    """Commands written together, and the replies that came so far. `vouches` is not None for a WAIT: the calls that are
    answered by it."""

    __slots__ = ("begun_s", "failed", "future", "is_save", "replies", "size", "vouches", "want")

    def __init__(
        self, want: int, size: int, future: asyncio.Future[None], begun_s: float, *,
        is_save: bool = False, vouches: list[_Call] | None = None,
    ) -> None:  # fmt: skip
        self.want = want
        self.is_save = is_save
        self.vouches = vouches
        self.size = size
        self.future = future
        self.begun_s = begun_s
        self.replies: list[Any] = []
        self.failed = False  # there is an error among the replies


class RespStream(asyncio.Protocol):
    """The protocol of one connection. `call` may be used from connection_made on."""

    def __init__(self, limits: Limits, peer: str, replicas: int = 0) -> None:
        self.counts = {"calls": 0, "commands": 0, "late": 0, "refused": 0, "replicas_short": 0}
        self._limits, self._peer, self._replicas = limits, peer, replicas
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(notEnoughData=_NOTHING_YET)
        self._transport: asyncio.Transport | None = None
        self._lost: asyncio.Future[str] = self._loop.create_future()
        self._end: str | None = None  # why the connection is over, once it is
        self._calls: deque[_Call] = deque()
        self._waiting_commands = self._waiting_bytes = 0
        self._out: list[bytes] = []
        self._unvouched: list[_Call] = []  # written in this turn
        self._watch: asyncio.TimerHandle | None = None

    # --- for the link

    async def call(self, commands: Sequence[Command], *, is_save: bool = False) -> tuple[list[Any], bool]:
        """The replies, and whether there is an error among them. At least one command. Raises LinkDown, for `is_save` also
        when too few replicas have all that this server had when it answered."""
        call = self._begin(commands, is_save and self._replicas > 0)
        late = self._loop.call_later(self._limits.call_s_max, self._give_up, call)
        try:
            await call.future
        finally:
            late.cancel()
        return call.replies, call.failed

    async def wait_lost(self) -> str:
        """Why the connection was lost, as soon as it is."""
        return await asyncio.shield(self._lost)

    def abort(self, why: str) -> None:
        """End the connection at once. Who waits hears LinkDown now; may be called twice."""
        if self._end is None:
            self._end = why
            self._fail_all()
        if self._transport is not None:
            self._transport.abort()

    @property
    def is_open(self) -> bool:
        """Whether a call would be written."""
        return self._end is None

    def waiting(self) -> dict[str, int]:
        """What was asked and not answered."""
        return {"waiting_commands": self._waiting_commands, "waiting_bytes": self._waiting_bytes}

    # --- calls

    def _begin(self, commands: Sequence[Command], is_save: bool) -> _Call:
        if self._end is not None:
            raise LinkDown(f"redis {self._peer}: {self._end}")
        data = b"".join([_pack(command) for command in commands])
        count = len(commands)
        if self._calls and (
            self._waiting_commands + count > self._limits.waiting_commands_max
            or self._waiting_bytes + len(data) > self._limits.waiting_bytes_max
        ):
            self.counts["refused"] += 1
            raise LinkDown(f"redis {self._peer}: too much is waiting for it")
        call = _Call(count, len(data), self._loop.create_future(), self._loop.time(), is_save=is_save)
        self._calls.append(call)
        if is_save:
            self._unvouched.append(call)
        self._waiting_commands += count
        self._waiting_bytes += len(data)
        self.counts["calls"] += 1
        self.counts["commands"] += count
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)
        return call

    def _flush(self) -> None:
        """One write for what this turn of the loop brought. The transport's buffer is within waiting_bytes_max."""
        if self._unvouched and self._end is None:
            self._out.append(self._ask_replicas())
        data, self._out = b"".join(self._out), []
        if self._transport is not None and self._end is None:
            self._transport.write(data)

    def _ask_replicas(self) -> bytes:
        data = _pack(("WAIT", self._replicas, int(self._limits.replicas_s_max * 1000)))
        saves, self._unvouched = self._unvouched, []
        self._calls.append(_Call(1, 0, saves[0].future, self._loop.time(), vouches=saves))
        self._waiting_commands += 1
        return data

    def _give_up(self, call: _Call) -> None:
        """The caller hears that it is too late; the slot stays, for its replies are still to come."""
        if not call.future.done():
            self.counts["late"] += 1
            call.future.set_exception(LinkDown(f"redis {self._peer}: no answer in {self._limits.call_s_max} s"))

    def _look(self) -> None:
        """Give up a server that owes a reply for too long: a half-open connection is never lost by itself."""
        since_s = self._calls[0].begun_s if self._calls else self._loop.time()
        if self._loop.time() - since_s >= self._limits.stall_s_max:
            self.abort(f"no answer in {self._limits.stall_s_max} s")
        else:
            self._watch = self._loop.call_later(self._limits.stall_s_max / 4, self._look)

    def _fail_all(self) -> None:
        calls, self._calls = self._calls, deque()
        self._waiting_commands = self._waiting_bytes = 0
        for call in calls:
            self._fail(call.vouches or [call], str(self._end))

    def _fail(self, calls: list[_Call], why: str) -> None:
        for call in calls:
            if not call.future.done():
                call.future.set_exception(LinkDown(f"redis {self._peer}: {why}"))

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to watch for a server that does not answer."""
        self._transport = cast(asyncio.Transport, transport)
        self._look()

    def data_received(self, data: bytes) -> None:
        """Give each reply to the call whose turn it is."""
        reader = self._reader
        reader.feed(data)
        try:
            while (reply := reader.gets()) is not _NOTHING_YET:
                if self._end is not None:
                    return
                self._take(reply)
        except hiredis.ProtocolError as fault:
            self.abort(f"not RESP: {fault}")

    def _take(self, reply: Any) -> None:
        if not self._calls:
            return self.abort("a reply that nobody asked for")
        call = self._calls[0]
        call.replies.append(reply)
        if isinstance(reply, hiredis.ReplyError):
            call.failed = True
            if str(reply).startswith(_WRONG_SERVER):
                return self.abort(str(reply))
        if len(call.replies) == call.want:
            self._calls.popleft()
            self._waiting_commands -= call.want
            self._waiting_bytes -= call.size
            if not call.is_save:
                self._finish(call)
        return None

    def _finish(self, call: _Call) -> None:
        """All its replies are there; a WAIT answers for those who waited for it."""
        if call.vouches is not None and not _is_enough(call.replies[0], self._replicas):
            self.counts["replicas_short"] += 1
            return self._fail(call.vouches, f"{self._replicas} replicas are wanted, {call.replies[0]} have it")
        for one in call.vouches or (call,):
            if not one.future.done():
                one.future.set_result(None)
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        """Everybody who waits hears it at once."""
        if self._watch is not None:
            self._watch.cancel()
        self.abort(f"connection lost: {exc}" if exc else "connection closed by the server")
        self._transport = None
        if not self._lost.done():
            self._lost.set_result(self._end or "")


def _is_enough(reply: Any, replicas: int) -> bool:
    """Of a WAIT: an error is not enough."""
    return isinstance(reply, int) and reply >= replicas
