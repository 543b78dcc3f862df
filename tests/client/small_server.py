"""A server of one file on protocol.ServerConnection, which misbehaves when told to. No store, no passwords, one process.

It keeps the promises that a client relies on (seq, cursor, dedupe by cid, credit), so that what a client makes of a
broken network can be seen at its far end.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

from picows import (
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponseWithListener,
    ws_create_server,
)
from picows.common import WSUpgradeResponse

from protocol.client_bell import Bell
from protocol.codec import encode_body
from protocol.connection import Closing, ServerConnection
from protocol.errors import Code
from protocol.frames import pack_frame
from protocol.messages import (
    Accepted,
    Ack,
    Bye,
    Deliver,
    Drained,
    Hello,
    Message,
    Ping,
    Pong,
    Read,
    ReadSync,
    Receipt,
    Send,
    Sent,
    Signal,
    Signalled,
    Welcome,
)  # fmt: skip
from protocol.names import device_tag, message_id
from protocol.states import State
from protocol.wire import FEATURES, WEBSOCKET_SUBPROTOCOL, Flag, Limits, Processed, Scheme, Status, Type

HOST = "127.0.0.1"


@dataclass
class Queue:
    """One user."""

    generation: bytes = b"gen-0001"
    entries: list[Message] = field(default_factory=list)  # seq = index + 1
    cursors: dict[str, int] = field(default_factory=dict)
    owed: dict[int, tuple[str, bytes]] = field(default_factory=dict)  # seq -> sender, id: wants a receipt


@dataclass
class Trouble:
    """What goes wrong next. Counters go down as it happens."""

    cut_after_bytes: int | None = None  # the connection is cut when so many bytes came, once
    lose_accepted: int = 0
    repeat_deliveries: bool = False
    leave_out: set[int] = field(default_factory=set)  # seqs that are not delivered, once
    refuse: deque[tuple[Code, Processed, int]] = field(default_factory=deque)  # for the next SENDs: with retry_after_ms
    refuse_login: deque[Code] = field(default_factory=deque)
    unheard_logins: int = 0  # the connection is cut at so many HELLOs
    silent_accepts: bool = False  # nothing is answered while this is set


class SmallServer:
    """Start with `small_server()`."""

    def __init__(self) -> None:
        self.tcp_port = 0
        self.ws_port = 0
        self.limits = Limits()
        self.users: dict[str, Queue] = {}
        self.taken: dict[tuple[bytes, str], int] = {}
        self.trouble = Trouble()
        self.sessions: list[SmallSession] = []  # every one that ever logged in
        self.heard: list[Message] = []
        self.connections = 0
        self._bell = Bell()
        self._server: asyncio.Server | None = None

    # --- what tests ask

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until something that was heard makes the condition true."""
        async with asyncio.timeout(10):
            while not condition():
                await self._bell.wait()

    def queue(self, user: str) -> Queue:
        return self.users.setdefault(user, Queue())

    def payloads(self, user: str) -> list[bytes]:
        """What was stored for a user, in order."""
        return [entry.payload for entry in self.queue(user).entries if isinstance(entry, Deliver)]

    def of(self, kind: type) -> list[Message]:
        return [message for message in self.heard if type(message) is kind]

    @property
    def live(self) -> list[SmallSession]:
        return [session for session in self.sessions if session.conn.state is State.OPEN]

    def deliver(self, to: str, payload: bytes, sender: str = "zoe", flags: int = 0) -> int:
        """Store a message as if somebody had sent it."""
        count = len(self.queue(to).entries)
        return self.append(to, Deliver(0, flags, sender, message_id(device_tag(sender, "x"), count + 1), 1, payload))

    def append(self, to: str, entry: Message) -> int:
        queue = self.queue(to)
        queue.entries.append(entry)
        for session in self.live:
            if session.user == to:
                session.push()
        return len(queue.entries)

    # --- running

    async def start_tcp(self, port: int = 0) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Tcp(self), HOST, port)
        self.tcp_port = self._server.sockets[0].getsockname()[1]

    async def stop_tcp(self) -> None:
        """Refuse connections and cut those there are."""
        assert self._server is not None
        self._server.close()
        for session in self.live:
            session.drop()
        await self._server.wait_closed()

    def note(self, message: Message) -> None:
        self.heard.append(message)
        self.ring()

    def ring(self) -> None:
        self._bell.ring()


class SmallSession:
    """One connection."""

    def __init__(
        self, server: SmallServer, write: Callable[[bytes], None], drop: Callable[[], None], preface: bool
    ) -> None:
        self.server = server
        self.conn = ServerConnection(server.limits, now_s=0.0, preface=preface)
        self.drop = drop
        self.user = self.device = ""
        self.tag = b""
        self.sent = self.acked = self.credit = 0
        self.drain_to: int | None = None
        self._write = write
        server.connections += 1

    def receive(self, data: bytes) -> None:
        trouble = self.server.trouble
        if trouble.cut_after_bytes is not None:
            keep, trouble.cut_after_bytes = trouble.cut_after_bytes, trouble.cut_after_bytes - len(data)
            if trouble.cut_after_bytes <= 0:
                data, trouble.cut_after_bytes = data[:keep], None
                self._take(data)
                self.drop()
                return
        self._take(data)

    def _take(self, data: bytes) -> None:
        accepted: list[int] = []
        for event in self.conn.receive(data, 0.0):
            match event:
                case Hello():
                    self._log_in(event)
                case Send() | Read():
                    self._post(event, accepted)
                case Ack():
                    self._acknowledge(event.ref)
                case Signal():
                    for other in self.server.live:
                        if other.user == event.to:
                            other.say(Signalled(0, 0, self.user, event.payload))
                case Ping():
                    self.conn.send(Pong(len(self.server.queue(self.user).entries), 0, True, 1))
                case Bye() | Closing():
                    self.flush()
                    self.drop()
            if not isinstance(event, tuple) or isinstance(event, Message):
                self.server.note(event)
        if accepted and not self.server.trouble.silent_accepts:
            if self.server.trouble.lose_accepted:
                self.server.trouble.lose_accepted -= 1
                self.drop()
                return
            self.conn.send(Accepted(max(accepted), 0, tuple(reversed(accepted))))
        self.flush()

    def _log_in(self, hello: Hello) -> None:
        if self.server.trouble.unheard_logins:
            self.server.trouble.unheard_logins -= 1
            self.drop()
        elif self.server.trouble.refuse_login:
            self.conn.fail(self.server.trouble.refuse_login.popleft(), retry_after_ms=700)
        elif hello.scheme == Scheme.PASSWORD and hello.secret != "secret":
            self.conn.fail(Code.BAD_CREDENTIALS)
        else:
            self._open(hello)

    def _open(self, hello: Hello) -> None:
        for other in self.server.live:
            if (other.user, other.device) == (hello.user, hello.device):
                other.conn.fail(Code.REPLACED)
                other.flush()
                other.drop()
        queue = self.server.queue(hello.user)
        self.user, self.device, self.credit = hello.user, hello.device, hello.credit
        self.tag = device_tag(hello.user, hello.device)
        known = hello.ref if hello.generation == queue.generation else 0
        self.acked = self.sent = max(queue.cursors.get(hello.device, 0), known)
        queue.cursors[hello.device] = self.acked
        self.drain_to = len(queue.entries)
        limits = self.server.limits
        self.conn.welcome(
            Welcome(
                len(queue.entries), 0, 0, FEATURES, "node~1", f"s{len(self.server.sessions)}", 1, self.tag, self.acked,
                queue.generation, limits.body_bytes_max, int(limits.keepalive_s * 1000), limits.unaccepted_max, hello.credit,
            ),
            0.0,
        )  # fmt: skip
        self.server.sessions.append(self)
        self.push()

    def _post(self, request: Send | Read, accepted: list[int]) -> None:
        refuse = self.server.trouble.refuse
        if refuse:
            code, processed, retry_after_ms = refuse.popleft()
            self.conn.refuse(request.ref, code, processed=processed, retry_after_ms=retry_after_ms)
            return
        if request.to not in self.server.users:
            self.conn.refuse(request.ref, Code.NO_SUCH_USER)
            return
        accepted.append(request.ref)
        if self.server.taken.get((self.tag, request.to), 0) >= request.ref:
            return
        self.server.taken[self.tag, request.to] = request.ref
        self._store(request)

    def _store(self, request: Send | Read) -> None:
        server = self.server
        many = len(server.queue(self.user).cursors) > 1
        if isinstance(request, Read):
            server.append(request.to, Receipt(0, 0, self.user, Status.READ, request.ids, 1, 0))
            if many:
                server.append(self.user, ReadSync(0, 0, request.to, request.ids, 1))
            return
        id_ = message_id(self.tag, request.ref)
        queue = server.queue(request.to)
        if request.flags & Flag.RECEIPT:
            queue.owed[len(queue.entries) + 1] = (self.user, id_)
        server.append(request.to, Deliver(0, request.flags, self.user, id_, 1, request.payload))
        if many:
            server.append(self.user, Sent(0, request.flags, request.to, id_, 1, request.payload))

    def _acknowledge(self, seq: int) -> None:
        queue = self.server.queue(self.user)
        self.acked = queue.cursors[self.device] = max(seq, self.acked)
        for owed in [owed for owed in queue.owed if owed <= seq]:
            sender, id_ = queue.owed.pop(owed)
            self.server.append(sender, Receipt(0, 0, self.user, Status.DELIVERED, (id_,), 1, 0))
        self.push()

    def push(self) -> None:
        """Deliver what credit allows."""
        entries, trouble = self.server.queue(self.user).entries, self.server.trouble
        while self.sent < len(entries) and self.sent < self.acked + self.credit and self.conn.state is State.OPEN:
            self.sent += 1
            if self.sent in trouble.leave_out:
                trouble.leave_out.discard(self.sent)
                continue
            entry = entries[self.sent - 1]
            frame = pack_frame(Type[_type_name(entry)], entry.flags, self.sent, encode_body(entry))
            self.conn.send_frames(frame * (2 if trouble.repeat_deliveries else 1))
        if self.drain_to is not None and self.sent >= self.drain_to:
            self.conn.send(Drained(self.drain_to, 0))
            self.drain_to = None
        self.flush()

    def say(self, message: Message) -> None:
        """Send anything."""
        self.conn.send(message)
        self.flush()

    def fail(self, code: Code, retry_after_ms: int = 0) -> None:
        """End with a code."""
        self.conn.fail(code, retry_after_ms=retry_after_ms)
        self.flush()
        self.drop()

    def flush(self) -> None:
        data = b"".join(self.conn.bytes_to_send())
        if data:
            self._write(data)

    def lost(self) -> None:
        self.conn.state = State.CLOSED
        self.server.ring()


def _type_name(entry: Message) -> str:
    return {ReadSync: "READ_SYNC"}.get(type(entry), type(entry).__name__.upper())


class _Tcp(asyncio.Protocol):
    def __init__(self, server: SmallServer) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast(asyncio.Transport, transport)  # uvloop's is one, but not by inheritance
        self._session = SmallSession(self._server, stream.write, stream.close, True)

    def data_received(self, data: bytes) -> None:
        self._session.receive(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._session.lost()


class _WebSocket(WSListener):
    def __init__(self, server: SmallServer) -> None:
        self._server = server

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._session = SmallSession(
            self._server, lambda data: transport.send(WSMsgType.BINARY, data), transport.disconnect, False
        )

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.BINARY:
            self._session.receive(frame.get_payload_as_bytes())
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._session.lost()


@asynccontextmanager
async def small_server() -> AsyncIterator[SmallServer]:
    """One on free ports, with the users ann and bob."""
    server = SmallServer()
    server.queue("ann")
    server.queue("bob")
    await server.start_tcp()

    def listener(request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        response = WSUpgradeResponse.create_101_response({"Sec-WebSocket-Protocol": WEBSOCKET_SUBPROTOCOL})
        return WSUpgradeResponseWithListener(response, _WebSocket(server))

    web = await ws_create_server(listener, HOST, 0)
    server.ws_port = web.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        await server.stop_tcp()
        web.close()
        await web.wait_closed()
