"""The tap between a transport and aiormq, on a transport that only keeps what is written."""

from __future__ import annotations

import asyncio

import pytest

from brokerd.links.amqp_frames import HEARTBEAT_FRAME, ChannelSink
from brokerd.links.amqp_marshal import ack_frame
from brokerd.links.amqp_tap import Tap

LEAN, OTHER = 1, 2


class KeptTransport(asyncio.Transport):
    """Keeps each write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.is_aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))

    def is_closing(self) -> bool:
        return self.is_aborted

    def abort(self) -> None:
        self.is_aborted = True


class Line:
    """A tap on a kept transport, with the reader that aiormq would have."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.changes = 0
        self.reader = asyncio.StreamReader(loop=loop)
        self.tap = Tap(self.reader, loop, self._changed)
        self.transport = KeptTransport()
        self.tap.connection_made(self.transport)
        self.tap.listen(LEAN, ChannelSink())

    def _changed(self) -> None:
        self.changes += 1

    async def passed(self) -> bytes:
        """What aiormq has to read by now."""
        self.reader.feed_eof()
        return await self.reader.read()


@pytest.fixture
async def line() -> Line:
    return Line()


async def test_what_is_written_in_one_turn_goes_out_in_one_write_in_order(line: Line) -> None:
    line.tap.write_late(lambda: b"<late>")
    line.tap.write([b"<a>", b"<b>"])
    line.tap.write([b"<c>"])
    assert line.transport.writes == []
    await asyncio.sleep(0)
    line.tap.write([b"<d>"])
    await asyncio.sleep(0)
    assert line.transport.writes == [b"<a><b><c><late>", b"<d>"]


async def test_aiormq_sees_one_heartbeat_a_second_for_all_the_lean_frames(line: Line) -> None:
    for tag in range(1, 200):
        line.tap.data_received(ack_frame(LEAN, tag, False))
    assert await line.passed() == HEARTBEAT_FRAME


async def test_aiormq_gets_the_frames_of_other_channels_as_they_came(line: Line) -> None:
    theirs = ack_frame(OTHER, 1, False)
    line.tap.data_received(theirs[:9])
    line.tap.data_received(theirs[9:])
    assert await line.passed() == theirs


async def test_a_heartbeat_is_never_put_inside_a_frame(line: Line) -> None:
    theirs = ack_frame(OTHER, 1, False)
    line.tap.data_received(ack_frame(LEAN, 1, False) + theirs[:9])
    line.tap.data_received(theirs[9:])
    assert await line.passed() == HEARTBEAT_FRAME + theirs


async def test_a_torn_stream_ends_the_connection(line: Line) -> None:
    line.tap.data_received(b"\x01\x00\x01\x00\x00\x00\x01xx")
    assert line.transport.is_aborted
    assert line.tap.is_lost
    assert "torn" in line.tap.loss


async def test_nothing_is_written_once_the_connection_is_lost(line: Line) -> None:
    line.tap.write([b"too late"])
    line.tap.connection_lost(ConnectionResetError("reset"))
    line.tap.write([b"later still"])
    await asyncio.sleep(0)
    assert line.transport.writes == []
    assert (line.tap.loss, line.changes) == ("reset", 1)
