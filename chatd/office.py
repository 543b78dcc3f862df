"""The back office: what back ends ask over HTTP (chatd.ports.BackOffice), done with the node's own parts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from brokerd.metrics import Metrics
from brokerd.ports import LinkDown, StoreChanged
from chatd.effects import PostEntry
from chatd.ports import Presence, Refusal, SendRequest
from chatd.posts import Origin, message_copy, message_post
from chatd.switchboard import Switchboard
from protocol.errors import ERRORS, Code
from protocol.names import NAME_ALLOWED, is_name, keyed_message_id
from protocol.wire import TTL_S_MAX, Processed

SENDS_MAX: Final = 10_000  # HTTP sends without an answer; beyond it BUSY
RETRY_MS: Final = 1000


class _Sender:
    """A Poster with one thing to post."""

    def __init__(self, done: asyncio.Future[None]) -> None:
        self._done = done

    def accepted(self, cids: Sequence[int]) -> None:
        """It is durable."""
        if not self._done.done():
            self._done.set_result(None)

    def refused(self, cid: int, code: Code, processed: Processed, retry_after_ms: int) -> None:
        """It was not taken, or nobody knows: with the same idempotency key it may be sent again in either case."""
        if not self._done.done():
            self._done.set_exception(Refusal(code, ERRORS[code].english, retry_after_ms))


class Office:
    """One for a node."""

    def __init__(self, board: Switchboard, metrics: Metrics, health: Callable[[], Mapping[str, str]]) -> None:
        self._board = board
        self._metrics = metrics
        self._health = health
        self._sending = 0

    async def send(self, request: SendRequest) -> bytes:
        """See BackOffice. The id is made of sender and key, so a repeat has the same and is stored once."""
        if not is_name(request.to):
            raise Refusal(Code.BAD_RECEIVER, f"to: {NAME_ALLOWED}")
        if request.ttl_s is not None and not 0 < request.ttl_s <= TTL_S_MAX:
            raise Refusal(Code.BAD_REQUEST, f"ttl_s is {request.ttl_s}; 1..{TTL_S_MAX} is allowed")
        board = self._board
        if board.store_fault():
            raise _down(Code.STORE_CHANGED)
        if not board.gate.is_open or self._sending >= SENDS_MAX:
            raise Refusal(board.gate.refusing(Code.BUSY), ERRORS[Code.BUSY].english, RETRY_MS)
        id_ = keyed_message_id(request.sender, request.key)
        by, now_ms = Origin(request.sender, id_), board.now_ms()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        effect = PostEntry(
            0,
            message_post(by, 0, request.to, id_, request.flags, request.payload, request.ttl_s, now_ms),
            # for the sender's devices, if it has any: the store leaves a copy out for whoever has fewer than two
            None
            if request.to == request.sender
            else message_copy(by, 0, request.to, id_, request.flags, request.payload, now_ms),
        )
        self._sending += 1
        try:
            board.postbox.post(_Sender(done), effect)
            board.wake()
            await done
            board.counts.accepted += 1
        except Refusal as refusal:
            board.gate.refusing(refusal.code)
            board.tracer.refused_id(id_, request.to, int(refusal.code), "HTTP")
            raise
        finally:
            self._sending -= 1
        return id_

    async def presence(self, user: str) -> list[Presence]:
        """See BackOffice."""
        board = self._board
        try:
            exists, [seats] = await asyncio.gather(board.sent_queue.has_user(user), board.register.seats([user]))
        except LinkDown as down:
            raise _down(Code.STORE_CHANGED if isinstance(down, StoreChanged) else Code.STORE_DOWN) from None
        if not exists:
            raise Refusal(Code.NO_SUCH_USER, f"there is no user {user}")
        return [Presence(seat.device, seat.node.partition(":")[0]) for seat in seats]

    def health(self) -> Mapping[str, str]:
        """See BackOffice."""
        return self._health()

    def metrics(self, accept: str) -> tuple[bytes, str]:
        """See BackOffice."""
        return self._metrics.exposition(accept)


def _down(code: Code) -> Refusal:
    return Refusal(code, ERRORS[code].english, RETRY_MS)
