"""The tap in aiormq's transport: lean channels are served right where bytes come in, all other frames pass on to aiormq.

aiormq takes a TransportFactory; ours gives it a StreamReader and a StreamWriter as any other would, but over a protocol
that cuts the frames first. Lean writes go to the same transport, all of one loop turn in one write. Every write, aiormq's
and ours, is of whole frames, and all frames of one content are in one write, so they can be mixed freely.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

import aiormq
from yarl import URL

from brokerd.links.amqp_frames import (
    HEARTBEAT_FRAME,
    ChannelReader,
    ChannelSink,
    ControlReader,
    FrameCutter,
    TornStream,
)

ALIVE_EVERY_S: Final = 1.0  # how often aiormq, which sees none of the lean frames, is told that the broker lives
_CONTROL_CHANNEL: Final = 0


class Tap(asyncio.StreamReaderProtocol):
    """One connection's bytes. `on_change` is called when it is lost, blocked or unblocked."""

    def __init__(
        self, reader: asyncio.StreamReader, loop: asyncio.AbstractEventLoop, on_change: Callable[[], None]
    ) -> None:
        super().__init__(reader, loop=loop)
        self.is_lost = False
        self.loss = ""  # why
        self.alarm = ""  # why the broker takes no publishes now ("low on memory"); "" = it takes them
        self.is_choked = False  # the socket takes no more for now
        self.bytes_in = 0
        self.bytes_out = 0  # of lean writes
        self.heard_s = loop.time()
        self._reader = reader
        self._clock = loop
        self._on_change = on_change
        self._cutter = FrameCutter()
        self._cutter.readers[_CONTROL_CHANNEL] = ControlReader(self._set_blocked)
        self._wire: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._late: list[Callable[[], bytes]] = []
        self._is_flush_due = False
        self._lean_seen = 0
        self._told_s = 0.0

    # --- what a lean channel uses

    def listen(self, channel: int, sink: ChannelSink) -> None:
        """From now on the hot frames of `channel` go to `sink`, until the connection ends or another one listens."""
        self._cutter.readers[channel] = ChannelReader(sink)

    def write(self, parts: list[bytes]) -> None:
        """Send whole frames at the end of this loop turn, in the order of the calls. Nothing once the tap is lost."""
        self._out += parts
        if not self._is_flush_due:
            self._is_flush_due = True
            self._clock.call_soon(self.flush)

    def write_late(self, make: Callable[[], bytes]) -> None:
        """As `write`, but the frames are made when the turn ends: one ack for all that was done in it."""
        self._late.append(make)
        self.write([])

    def flush(self) -> None:
        """Send what is waiting, in one write."""
        self._is_flush_due = False
        if self._late:
            late, self._late = self._late, []
            self._out += [make() for make in late]
        out, self._out = self._out, []
        if not out or self._wire is None or self._wire.is_closing():
            return
        data = b"".join(out)
        self.bytes_out += len(data)
        self._wire.write(data)

    @property
    def waiting_bytes(self) -> int:
        """Bytes written but not yet taken by the socket."""
        return self._wire.get_write_buffer_size() if self._wire is not None else 0

    def abort(self, reason: str) -> None:
        """Drop the connection at once, without a word."""
        self._lose(reason)
        if self._wire is not None:
            self._wire.abort()

    def _lose(self, reason: str) -> None:
        self.is_lost = True
        self.loss = self.loss or reason
        self._out, self._late = [], []

    # --- what the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = cast(asyncio.Transport, transport)  # uvloop's transports are no subclasses of it
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self.bytes_in += len(data)
        self.heard_s = now_s = self._clock.time()
        try:
            passed = self._cutter.feed(data)
        except TornStream as error:
            return self.abort(f"torn stream: {error}")
        if self._cutter.lean_frames != self._lean_seen and now_s - self._told_s >= ALIVE_EVERY_S:
            self._lean_seen, self._told_s = self._cutter.lean_frames, now_s
            passed += HEARTBEAT_FRAME
        if passed:
            self._reader.feed_data(passed)
        return None

    def eof_received(self) -> bool:
        super().eof_received()
        return False  # a broker that stopped sending will not read either: close at once

    def connection_lost(self, exc: Exception | None) -> None:
        self._lose(str(exc or "closed by the broker"))
        self._wire = None
        super().connection_lost(exc)
        self._on_change()

    def pause_writing(self) -> None:
        self.is_choked = True
        super().pause_writing()

    def resume_writing(self) -> None:
        self.is_choked = False
        super().resume_writing()

    @property
    def is_blocked(self) -> bool:
        """The broker has an alarm and takes no publishes."""
        return bool(self.alarm)

    def _set_blocked(self, alarm: str) -> None:
        self.alarm = alarm
        self._on_change()


class TapFactory(aiormq.TransportFactory):
    """Makes the transport of one connection, plain or TLS by the scheme of the URL; `tap` is there once it is made."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self.tap: Tap | None = None

    async def create(self, url: URL, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        provider = options.pop("ssl_context_provider")
        tls = await provider.get_context() if url.scheme == "amqps" else None
        loop = asyncio.get_running_loop()
        assert url.host is not None
        assert url.port is not None
        reader = asyncio.StreamReader(loop=loop)
        tap = Tap(reader, loop, self._on_change)
        try:
            transport, _ = await loop.create_connection(lambda: tap, url.host, url.port, ssl=tls, **options)
        except OSError as error:
            raise aiormq.AMQPConnectionError(*error.args) from error
        self.tap = tap
        return reader, asyncio.StreamWriter(transport, tap, reader, loop)
