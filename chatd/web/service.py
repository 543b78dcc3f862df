"""What all HTTP connections of a listener share: who answers, who makes WebSockets of them, and the limits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from chatd.census import Stay
from chatd.tcp import TransportLimits
from chatd.web.exchange import Request, Response


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What a client may send, and how long it may take."""

    body_bytes_max: int
    head_bytes_max: int = 16 * 1024
    head_s_max: float = 5.0  # from connect, or from a further request's first byte, to the end of its head
    body_s_max: float = 10.0
    idle_s_max: float = 60.0  # between an answer and the next request
    flush_s_max: float = 15.0  # an answer that its client does not read


class Upgrade(Protocol):
    """Turns connections into WebSockets. Implemented by chatd/web/upgrade.py."""

    def wants(self, request: Request) -> bool:
        """Whether this request is for a WebSocket and not for the API."""

    def refuse(self, request: Request) -> Response | None:
        """Why it may not have one; None: it may."""

    def switch(self, transport: asyncio.Transport, request: Request, rest: bytes, stay: Stay) -> None:
        """Take the transport over; `rest` came in behind the head."""


@dataclass(frozen=True, slots=True)
class HttpService:
    """What all connections of a listener share."""

    answer: Callable[[Request], Awaitable[Response]]
    upgrade: Upgrade
    limits: HttpLimits
    transport_limits: TransportLimits
    view: memoryview  # the loop's shared buffer
    tasks: set[asyncio.Task[None]]  # the requests that are being answered; who owns the set ends them
