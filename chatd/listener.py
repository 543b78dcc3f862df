"""Opens the ports: frames on TCP or TLS, HTTP and WebSocket on another. Counts who comes; ends who is left.

`async with Listeners(...)` binds, accepts, and at the end closes what is still open. Before that, `stop_accepting()`
shuts the door for sessions while health and metrics still answer, so that a drain can be watched.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import structlog

from chatd.census import Census, Stay
from chatd.ports import Accounts, BackOffice, Door
from chatd.tcp import TcpWire, TransportLimits, shared_buffer, tune_listening_socket
from chatd.web.api import Api
from chatd.web.body import body_bytes_max_for
from chatd.web.guard import MessageLimits
from chatd.web.handshake import Admission
from chatd.web.http import HttpConnection
from chatd.web.service import HttpLimits, HttpService
from chatd.web.upgrade import WebSocketDoor
from protocol.wire import BODY_BYTES_HARD_MAX, HEAD_BYTES, Limits

TLS_HANDSHAKE_S_MAX = 10.0
BACKLOG = 4096  # a node that restarts finds all of its clients waiting here; the kernel cuts it to net.core.somaxconn

_log = structlog.get_logger("chatd.listener")
_Serve = Callable[[asyncio.Transport, Stay], TcpWire | HttpConnection]


@dataclass(frozen=True, slots=True)
class Place:
    """Where to listen. Port 0 takes a free one; `inherited` is a bound socket from the service manager instead."""

    host: str = "127.0.0.1"
    port: int = 0
    tls: ssl.SSLContext | None = None
    inherited: socket.socket | None = None


@dataclass(frozen=True, slots=True)
class ListenerConfig:
    """All that the listeners are told."""

    tcp: tuple[Place, ...] = (Place(),)
    http: tuple[Place, ...] = (Place(),)
    limits: Limits = field(default_factory=Limits)
    transport: TransportLimits = field(default_factory=TransportLimits)
    admission: Admission = field(default_factory=Admission)
    connections_max: int = 20_000
    connections_per_address_max: int = 1_000
    strangers_max: int = 4_096  # connections that have not yet said who they are
    strangers_per_address_max: int = 512
    requests_max: int = 1_024  # answered at once
    answer_s_max: float = 30.0
    end_s_max: float = 3.0  # how long a stop waits for HTTP answers and closing sockets
    reuse_port: bool = False
    http_limits: HttpLimits | None = None  # None: from `limits`
    message_limits: MessageLimits | None = None  # None: from `limits`

    def http_limits_or_default(self) -> HttpLimits:
        """What HTTP may take."""
        return self.http_limits or HttpLimits(body_bytes_max=body_bytes_max_for(self.limits.body_bytes_max))

    def message_limits_or_default(self) -> MessageLimits:
        """What a WebSocket message may hold: a frame over the negotiated limit is still answered TOO_LARGE (SPEC §12)."""
        return self.message_limits or MessageLimits(message_bytes_max=HEAD_BYTES + BODY_BYTES_HARD_MAX)


def server_tls(cert: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.2 and later with this certificate chain and key (PEM). Raises OSError, ssl.SSLError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(cert, key)
    return context


class _Certificate:
    """What new TLS handshakes of a port use. A handshake asks at its beginning, so the port stays open while it changes."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.current = context
        context.sni_callback = self._choose  # called for clients that name no server too

    def _choose(self, handshake: ssl.SSLObject, _name: str, _first: ssl.SSLContext) -> None:
        handshake.context = self.current


@dataclass(slots=True)
class _Opened:
    servers: list[asyncio.Server] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)
    certificates: list[_Certificate | None] = field(default_factory=list)

    def close(self) -> None:
        for server in self.servers:
            server.close()


class Listeners:
    """The open ports of one chatd, and the tasks that answer its HTTP requests: none outlives the `async with`."""

    def __init__(self, config: ListenerConfig, door: Door, accounts: Accounts, back_office: BackOffice) -> None:
        self._config = config
        self._door = door
        self._api = Api(
            accounts,
            back_office,
            frame_body_bytes_max=config.limits.body_bytes_max,
            in_flight_max=config.requests_max,
            answer_s_max=config.answer_s_max,
        )
        self._upgrade = WebSocketDoor(door, config.admission, config.message_limits_or_default(), config.transport)
        self.census = Census(
            config.connections_max,
            config.connections_per_address_max,
            config.strangers_max,
            config.strangers_per_address_max,
        )
        self._tcp = _Opened()
        self._http = _Opened()
        self._tasks: set[asyncio.Task[None]] = set()
        self._view = shared_buffer()
        self._service = self._http_service()

    @property
    def tcp_ports(self) -> list[int]:
        """The bound ports, in the order of config.tcp."""
        return self._tcp.ports

    @property
    def http_ports(self) -> list[int]:
        """The bound ports, in the order of config.http."""
        return self._http.ports

    async def __aenter__(self) -> Self:
        """Bind and accept. Raises OSError (the address is in use, …) and leaves nothing open then."""
        try:
            for place in self._config.tcp:
                await self._open(place, self._tcp, self._serve_tcp)
            for place in self._config.http:
                await self._open(place, self._http, self._serve_http)
        except BaseException:
            self._tcp.close()
            self._http.close()
            raise
        _log.info("listening", tcp=self.tcp_ports, http=self.http_ports)
        return self

    async def inside(self) -> socket.socket:
        """A socket for a client in this process: its other end is served as one that came to the TCP port, but without TLS,
        and nobody else can be there."""
        ours, theirs = socket.socketpair()
        try:
            for sock in (ours, theirs):
                sock.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.connect_accepted_socket(lambda: _Arrival(self.census, self._serve_tcp), theirs)
        except BaseException:
            ours.close()
            theirs.close()
            raise
        return ours

    def stop_accepting(self) -> None:
        """No new sessions: the TCP ports close, a WebSocket is told GOING_AWAY. HTTP goes on. May be called twice."""
        self._tcp.close()
        self._upgrade.is_open = False

    def take_over(self, config: ListenerConfig) -> None:
        """Limits, origins and certificates, for whoever comes from now on. Places stay as they are, open or closed, with
        TLS or without."""
        self._config = replace(config, tcp=self._config.tcp, http=self._config.http)
        self._api.take_over(config.limits.body_bytes_max)
        self._upgrade.admission = config.admission
        self._service = self._http_service()
        self.census.take_over(
            config.connections_max,
            config.connections_per_address_max,
            config.strangers_max,
            config.strangers_per_address_max,
        )
        for opened, places in ((self._tcp, config.tcp), (self._http, config.http)):
            for certificate, place in zip(opened.certificates, places, strict=True):
                if certificate is not None and place.tls is not None:
                    certificate.current = place.tls

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let HTTP answers and closing sockets finish within end_s_max, then abort what is left."""
        self.stop_accepting()
        self._http.close()
        for guest in self.census.guests:
            if isinstance(guest, HttpConnection):
                guest.drain()
        await self._wait_empty(self._config.end_s_max)
        for guest in self.census.guests:
            guest.abort("the server stops")
        await self._wait_empty(self._config.end_s_max)  # connection_lost comes in the loop's next turn
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _wait_empty(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self.census.wait_empty()
        except TimeoutError:
            _log.info("connections_left", count=len(self.census))

    # --- opening

    async def _open(self, place: Place, opened: _Opened, serve: _Serve) -> None:
        config = self._config
        sock = place.inherited or _bind(place, reuse_port=config.reuse_port)
        tune_listening_socket(sock, config.transport)
        opened.ports.append(sock.getsockname()[1])
        opened.certificates.append(_Certificate(place.tls) if place.tls else None)
        server = await asyncio.get_running_loop().create_server(
            lambda: _Arrival(self.census, serve),
            sock=sock,
            backlog=BACKLOG,
            ssl=place.tls,
            ssl_handshake_timeout=TLS_HANDSHAKE_S_MAX if place.tls else None,
            ssl_shutdown_timeout=config.transport.close_s_max if place.tls else None,
        )
        opened.servers.append(server)

    def _serve_tcp(self, transport: asyncio.Transport, stay: Stay) -> TcpWire:
        return TcpWire(transport, self._door, self._view, self._config.transport, stay)

    def _serve_http(self, transport: asyncio.Transport, stay: Stay) -> HttpConnection:
        return HttpConnection(transport, self._service, stay)

    def _http_service(self) -> HttpService:
        return HttpService(
            answer=self._api.answer,
            upgrade=self._upgrade,
            limits=self._config.http_limits_or_default(),
            transport_limits=self._config.transport,
            view=self._view,
            tasks=self._tasks,
        )


class _Arrival(asyncio.Protocol):
    """A connection in its first moment: counted, then given to the class that serves it, which is never unconnected."""

    def __init__(self, census: Census, serve: _Serve) -> None:
        self._census = census
        self._serve = serve

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        connected = cast(asyncio.Transport, transport)
        name = transport.get_extra_info("peername")
        stay = self._census.admit(name[0] if isinstance(name, tuple) else "unknown")
        if stay is None:
            connected.abort()
            return
        protocol = self._serve(connected, stay)
        stay.guest = protocol
        connected.set_protocol(protocol)


def _bind(place: Place, *, reuse_port: bool) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)[0]
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setblocking(False)
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock
