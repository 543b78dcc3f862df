"""The Python client: send, iterate over what comes, forget about connections.

    async with Client("127.0.0.1", 7400, "ann", "laptop", password="…") as client:
        await client.send("bob", b"hello")
        async for message in client:
            ...

It reconnects, resumes, sends again what was not answered, drops repeats and acknowledges what the loop is done with.
How to use it: docs/client.md. What is decided is in client_core.py; the connection in client_link.py. Spec: SPEC.md §11.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Final, Self, TypeVar

from protocol.client_core import Backoff, Fate, Incoming, Mark, Outgoing, Request, Take, fate_of
from protocol.client_link import (
    Clock,
    Closed,
    ClientState,
    Connected,
    Connecting,
    Link,
    LoopClock,
    Reconnecting,
)
from protocol.client_store import Change, ClientStore, FileStore, MemoryStore, StoreBusy
from protocol.client_wire import Address
from protocol.codec import encode_body
from protocol.connection import ClientConnection
from protocol.errors import ERRORS, Code
from protocol.messages import (
    Accepted,
    Ack,
    Deliver,
    Drained,
    Error,
    Gone,
    Hello,
    Message,
    Pong,
    Read,
    ReadSync,
    Receipt,
    Send,
    Sent,
    Signal,
    Signalled,
    Welcome,
)
from protocol.names import NAME_ALLOWED, is_name, message_id
from protocol.wire import (
    BODY_BYTES_HARD_MAX,
    CREDIT_DEFAULT,
    DEVICE_TAG_BYTES,
    FEATURES,
    RECEIPT_IDS_MAX,
    REF_MAX,
    UNACCEPTED_MAX,
    VERSION_MINOR,
    Flag,
    Processed,
    Scheme,
)

__all__ = [
    "Client", "ClientClosed", "ClientState", "Closed", "Connected", "Connecting", "FileStore", "Incomings", "MemoryStore",
    "OutgoingFull", "Reconnecting", "Refused", "StoreBusy",
]  # fmt: skip

Incomings = Deliver | Sent | Receipt | ReadSync | Signalled | Gone  # what `async for` yields
SIGNALS_MAX: Final = 256  # ephemeral messages that wait for the loop; newer ones are dropped
_INFO: Final = {"client": "chatd-python", "version": "0.1"}
_T = TypeVar("_T")


class Refused(Exception):
    """The server (or this library, before sending) will not take a request: an error code of protocol.errors."""

    def __init__(self, code: int, detail: str, *, retry_after_ms: int = 0, limit: int = 0) -> None:
        super().__init__(f"{_name_of(code)}: {detail}")
        self.code = code
        self.detail = detail
        self.retry_after_ms = retry_after_ms
        self.limit = limit  # bytes, for TOO_LARGE


class ClientClosed(Exception):
    """The client is closed: by close() (code None), or by a code on which it must not come back (REPLACED …)."""

    def __init__(self, code: int | None, detail: str) -> None:
        super().__init__(detail if code is None else f"{_name_of(code)}: {detail}")
        self.code = code
        self.detail = detail


class OutgoingFull(Exception):
    """So many requests are unanswered that no more are taken; `send` waits instead, and `wait_room` waits for room."""


def _name_of(code: int) -> str:
    row = ERRORS.get(code)  # type: ignore[call-overload]
    return str(row.code.name) if row is not None else f"code {code}"


class Client:
    """One device of one user. Everything is called from one event loop; asyncio's own or uvloop."""

    def __init__(
        self, host: str, port: int, user: str, device: str, *, password: str | None = None,
        token: str | Callable[[], str] | None = None, transport: str = "tcp", path: str = "/ws",
        tls: ssl.SSLContext | None = None, credit: int = CREDIT_DEFAULT, unanswered_max: int = UNACCEPTED_MAX,
        store: ClientStore | None = None, auto_ack: bool = True, own_copies: bool = False,
        on_state: Callable[[ClientState], None] | None = None, backoff: Backoff | None = None, clock: Clock | None = None,
    ) -> None:  # fmt: skip
        """`transport`: tcp, tls, ws, wss. `token` may be a function that gives a fresh one at each login.

        `credit`: deliveries that may wait here (1..16384). `unanswered_max`: requests that may be without an answer;
        then `send` waits. `store` defaults to memory. `own_copies`: also yield SENT for what this very device sent.
        Raises ValueError for what can never work.
        """
        if (password is None) == (token is None):
            raise ValueError("give a password or a token")
        if transport not in ("tcp", "tls", "ws", "wss"):
            raise ValueError(f"transport is {transport!r}; tcp, tls, ws and wss are allowed")
        if not is_name(device) or not (is_name(user) or (user == "" and token is not None)):
            raise ValueError(f"user and device are {NAME_ALLOWED}")
        self._user, self._device = user, device
        self._secret: str | Callable[[], str] = password if token is None else token  # type: ignore[assignment]
        self._scheme = Scheme.PASSWORD if token is None else Scheme.TOKEN
        self._credit, self._unanswered_max = credit, unanswered_max
        self._auto_ack, self._own_copies, self._on_state = auto_ack, own_copies, on_state
        self._store: ClientStore = store if store is not None else MemoryStore()
        address = Address(transport, host, port, path, tls)
        self._link = Link(address, self, backoff or Backoff(random.uniform), clock or LoopClock())
        self._clock: Clock = clock or LoopClock()
        self._busy = Backoff(random.uniform)  # waits for BUSY that comes without a retry_after_ms
        self._busy_until_s = 0.0
        self._tag = b""
        self._flight_max = UNACCEPTED_MAX
        self._body_bytes_max = BODY_BYTES_HARD_MAX
        self._task: asyncio.Task[Closed] | None = None
        self._futures: dict[int, asyncio.Future[bytes]] = {}
        self._posted: list[Request] = []  # not yet in the store
        self._answered: list[int] = []
        self._inbox: deque[tuple[Mark | None, Incomings | None]] = deque()
        self._signals = 0
        self._in_hand: Mark | None = None
        self._is_iterating = False
        self._waiters: dict[str, list[asyncio.Future[None]]] = {"inbox": [], "room": [], "state": [], "quiet": []}
        self._is_drained = False
        self.state: ClientState = Connecting()
        self.recovered: list[tuple[Request, asyncio.Future[bytes]]] = []  # what an earlier run left, being sent again
