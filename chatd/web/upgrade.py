"""From an HTTP connection to a WebSocket: checks the request, then gives the transport to a WebSocketWire."""

from __future__ import annotations

import asyncio

from chatd.census import Stay
from chatd.ports import Door
from chatd.tcp import TransportLimits
from chatd.web.api import WS_PATH
from chatd.web.exchange import Request, Response
from chatd.web.guard import MessageLimits
from chatd.web.handshake import Admission, canonical_head, refuse_handshake, wants_websocket
from chatd.web.problem import problem_of
from chatd.web.websocket import WebSocketWire
from protocol.errors import Code


class WebSocketDoor:
    """Turns HTTP connections into WebSockets (web.service.Upgrade)."""

    def __init__(
        self, door: Door, admission: Admission, message_limits: MessageLimits, transport_limits: TransportLimits
    ) -> None:
        self._door = door
        self.admission = admission
        self._message_limits = message_limits
        self._transport_limits = transport_limits
        self.is_open = True  # False: this server stops, and tells newcomers so

    def wants(self, request: Request) -> bool:
        """See Upgrade."""
        return request.path == WS_PATH and wants_websocket(request)

    def refuse(self, request: Request) -> Response | None:
        """See Upgrade."""
        if not self.is_open:
            return problem_of(Code.GOING_AWAY)
        return refuse_handshake(request, self.admission)

    def switch(self, transport: asyncio.Transport, request: Request, rest: bytes, stay: Stay) -> None:
        """See Upgrade. Answers 101, and gives the new wire what came in behind the head."""
        wire = WebSocketWire(self._door, self._message_limits, self._transport_limits, stay)
        stay.guest = wire
        transport.set_protocol(wire)
        wire.connection_made(transport)
        wire.refeed(canonical_head(request) + rest)
