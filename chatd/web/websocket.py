"""A WebSocket as a session's Wire: picows parses and masks, the guard says what may come, and this class joins them.

What one read brought is given to the session in one piece, so that it answers with one write (an echo of 16 pipelined
messages costs a quarter of answering each). One message of ours is one binary frame.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import structlog
from picows import WSAutoPingStrategy, WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, WSUpgradeResponse
from picows.common import WSUpgradeResponseWithListener
from picows.picows import WSProtocol  # type: ignore[attr-defined]

from chatd.census import Stay
from chatd.ports import Door, Endpoint
from chatd.tcp import Flow, TransportLimits, peer_of
from chatd.web.guard import (  # fmt: skip
    CLOSE_CODE_BASE,
    Breach,
    CloseCode,
    MessageGuard,
    MessageLimits,
    Opcode,
    close_reason,
    is_close_code,
)
from protocol.errors import Code
from protocol.wire import WEBSOCKET_SUBPROTOCOL

READ_BYTES_MAX: Final = 32 * 1024
READ_BUFFER_BYTES: Final = 4096  # at first: an idle connection keeps it (11 KiB in all, 23 with picows' own default)
HEAD_ROOM: Final = bytes(14)  # where picows writes the frame's head

_log = structlog.get_logger("chatd.web")


class WebSocketWire(WSProtocol):  # type: ignore[misc]  # untyped: picows' own .pyi leaves it out
    """A Wire on a transport whose HTTP request was accepted. Made by upgrade.WebSocketDoor."""

    def __init__(self, door: Door, messages: MessageLimits, limits: TransportLimits, stay: Stay) -> None:
        super().__init__(
            None, None, False, self._welcome, _PicowsLog(), True, None, False, 0, 0,
            WSAutoPingStrategy.PING_WHEN_IDLE, False, messages.message_bytes_max, None, READ_BUFFER_BYTES,
        )  # fmt: skip
        self._door = door
        self._limits = limits
        self._greeting_bytes_left = messages.greeting_bytes_max
        self._has_spoken = False
        self._stay = stay
        self._frames = _Frames(self, MessageGuard(messages))
        self._endpoint: Endpoint | None = None  # until picows has sent 101
        self._loop = asyncio.get_running_loop()
        self._deadline: asyncio.TimerHandle | None = None
        self._discarded = 0
        self._reason = ""
        self.is_over = False  # closing, cut or lost: nothing is given to the endpoint but lost()
        self.flow = Flow(limits.stall_s_max, self.abort)

    # --- Wire

    def write(self, chunks: list[bytes]) -> None:
        """See ports.Wire. Ignored after close().

        Not picows' send(): over 8 KiB that one hands the transport a view of memory which the next send() overwrites.
        """
        if self.is_over:
            return
        self._has_spoken = True
        self.transport.send_reuse_external_bytearray(
            WSMsgType.BINARY, bytearray().join((HEAD_ROOM, *chunks)), len(HEAD_ROOM)
        )
        if self.flow.is_slow and self.pending_bytes() > self._limits.pending_bytes_max:
            self.abort(f"slow reader: over {self._limits.pending_bytes_max} bytes wait for it")

    def pending_bytes(self) -> int:
        """See ports.Wire."""
        size: int = self.transport.underlying_transport.get_write_buffer_size()
        return size

    def pause_reading(self) -> None:
        """See ports.Wire. What this read has brought already is still given to the endpoint."""
        self.transport.underlying_transport.pause_reading()

    def resume_reading(self) -> None:
        """See ports.Wire."""
        self.transport.underlying_transport.resume_reading()

    def greeted(self) -> None:
        """See ports.Wire."""
        self._stay.greeted()

    def close(self, code: Code | None, detail: str) -> None:
        """See ports.Wire. Sends a close frame and waits for the peer's, a few seconds long."""
        close_code = CLOSE_CODE_BASE + code if code else CloseCode.DONE
        self.say_close(close_code, detail, f"closed: {code.name if code else 'done'} {detail}".rstrip())

    def abort(self, reason: str) -> None:
        """End it now; what was written and has not left is dropped."""
        self.is_over = True
        self._reason = self._reason or reason
        self.transport.underlying_transport.abort()

    # --- for WebSocketDoor and _Frames

    def refeed(self, data: bytes) -> None:
        """Read bytes that were read before this was the protocol."""
        rest = memoryview(data)
        while rest and not (self.is_over and self.transport.underlying_transport.is_closing()):
            room = self.get_buffer(len(rest))
            count = min(len(room), len(rest))
            room[:count] = rest[:count]
            self.buffer_updated(count)
            rest = rest[count:]

    def say_close(self, close_code: int, detail: str, reason: str) -> None:
        """Send a close frame; end when the peer's comes, it closes, or time is up."""
        if self.is_over:
            return
        self.is_over = True
        self._reason = reason
        self.transport.send_close(close_code, close_reason(detail))
        self._bound_the_end()
        self.resume_reading()

    def peer_closed(self, close_code: int | None) -> None:
        """The peer's close frame came: answer it unless it is the answer, then end when all has left."""
        if not self.is_over:
            self._deliver()  # what stood before it, so that an answer still leaves
            code = CloseCode.DONE if close_code is None else close_code
            code = code if is_close_code(code) else CloseCode.PROTOCOL_ERROR
            self.say_close(code, "", f"the peer closed: {close_code or 'no code'}")
        self.transport.disconnect()

    # --- asyncio.BufferedProtocol, what picows does not do itself

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=self._limits.write_high_bytes, low=self._limits.write_low_bytes)

    def get_buffer(self, sizehint: int) -> memoryview:
        """picows doubles its buffer, for good, whenever a read fills it: a flood would take what the kernel holds, some
        megabytes. So a read is bounded, and only a long frame makes the buffer grow."""
        view: memoryview = WSProtocol.get_buffer(self, sizehint)
        return view if len(view) <= READ_BYTES_MAX else view[:READ_BYTES_MAX]

    def buffer_updated(self, nbytes: int) -> None:
        WSProtocol.buffer_updated(self, nbytes)
        if self._frames.arrived:
            self._deliver()
        if not self._has_spoken:
            self._bound_greeting(nbytes)
        if self.is_over:
            self._discard(nbytes)
        elif self.transport.is_close_frame_sent:  # by picows: the bytes are no WebSocket frames
            self.is_over = True
            self._reason = "bad WebSocket frames"
            self._bound_the_end()
        elif self._frames.ping is not None:
            self._pong()

    def eof_received(self) -> bool:
        self.is_over = True
        self._reason = self._reason or "the peer closed"
        self._bound_the_end()
        return False

    def pause_writing(self) -> None:
        self.flow.slow()

    def resume_writing(self) -> None:
        self.flow.fast()
        self._pong()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_over = True
        self.flow.end()
        if self._deadline is not None:
            self._deadline.cancel()
        self._stay.end()
        super().connection_lost(exc)
        if self._endpoint is not None:
            self._endpoint.lost(self._reason or (str(exc) if exc else "the peer closed"))

    # --- inside

    def _welcome(self, request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        response = WSUpgradeResponse.create_101_response({"Sec-WebSocket-Protocol": WEBSOCKET_SUBPROTOCOL})
        return WSUpgradeResponseWithListener(response, self._frames)

    def enter(self) -> None:
        """101 is out: this is a session now, or there is no room for one."""
        self._endpoint = self._door.enter(self, peer_of(self.transport.underlying_transport), preface=False)
        if self._endpoint is None:
            self.close(Code.SERVER_FULL, "no more connections are taken")
        else:
            self.flow.serve(self._endpoint)

    def _deliver(self) -> None:
        arrived, self._frames.arrived = self._frames.arrived, []
        if self._endpoint is not None and arrived:
            self._endpoint.receive(arrived[0] if len(arrived) == 1 else b"".join(arrived))

    def _bound_greeting(self, nbytes: int) -> None:
        """picows keeps a frame until it is whole: somebody who has not logged in may not make it keep a megabyte."""
        self._greeting_bytes_left -= nbytes
        if self._greeting_bytes_left < 0:
            self.say_close(CloseCode.TOO_BIG, "too much before the login", "breach: too much before the login")

    def _pong(self) -> None:
        """Answer the newest ping only (RFC 6455 §5.5.3), and none while the peer does not read."""
        if self._frames.ping is not None and not self.flow.is_slow and not self.is_over:
            self.transport.send_pong(self._frames.ping)
            self._frames.ping = None

    def _bound_the_end(self) -> None:
        if self._deadline is None:
            abort = self.transport.underlying_transport.abort
            self._deadline = self._loop.call_later(self._limits.close_s_max, abort)

    def _discard(self, nbytes: int) -> None:
        self._discarded += nbytes
        if self._discarded > self._limits.discard_bytes_max:
            self.transport.underlying_transport.abort()


class _Frames(WSListener):
    """What picows calls for each frame; keeps what it brought until the read is over."""

    def __init__(self, wire: WebSocketWire, guard: MessageGuard) -> None:
        self._wire = wire
        self._guard = guard
        self._time = asyncio.get_running_loop().time
        self.arrived: list[bytes] = []
        self.ping: bytes | None = None  # the newest that is not answered

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._wire.enter()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        opcode = int(frame.msg_type)  # type: ignore[call-overload]
        if opcode == Opcode.CLOSE:
            code = int(frame.get_close_code()) if frame.payload_size else None  # type: ignore[call-overload]
            self._wire.peer_closed(code)
        elif not self._wire.is_over:
            try:
                self._take(opcode, frame)
            except Breach as breach:
                self._wire.say_close(breach.code, breach.detail, f"breach: {breach.detail}")

    def _take(self, opcode: int, frame: WSFrame) -> None:
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            raise Breach(CloseCode.PROTOCOL_ERROR, "reserved bits are set")
        payload = frame.get_payload_as_bytes()
        if opcode <= Opcode.BINARY:
            message = self._guard.take_data(opcode, frame.fin, payload, self._time())
            if message:
                self.arrived.append(message)
            return
        self._guard.take_idle(self._time())
        if opcode == Opcode.PING:
            self.ping = payload


class _PicowsLog:
    """picows logs each connection at INFO and each fault of a peer at ERROR; only a bug of ours is worth a line."""

    def isEnabledFor(self, level: int) -> bool:
        return False

    def debug(self, *_: Any) -> None:
        """Nothing: so are the next three."""

    log = info = warning = error = debug

    def exception(self, text: str, *_: Any) -> None:
        """Called in an except block."""
        _log.exception("websocket_failed", says=text)
