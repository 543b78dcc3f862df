"""python-socketio: two servers on one Redis, senders at the first and receivers at the second, over WebSocket.

The client is by hand, so that it costs little: engine.io's text frames with a binary attachment for each message.
"""

from __future__ import annotations

import importlib.util
import json
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from bench.crowd import Target
from bench.peers.packages import Missing
from bench.peers.shape import COUNTER, Party, Receiving, Sending, pairs_of
from bench.ports import free_port
from bench.processes import end_with_parent
from bench.servers import RedisServer
from bench.transports import Door
from bench.waiting import wait_port

SERVERS: Final = 2
_TEXT, _BINARY, _CLOSE = 0x81, 0x82, 0x88
_MASKED: Final = 0x80  # with a key of zeros, which changes nothing
_U16: Final = struct.Struct(">H")
_U64: Final = struct.Struct(">Q")
_ANSWER: Final = re.compile(rb"43(\d+)\[")
_UPGRADE: Final = (
    b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


@contextmanager
def socketio_servers(home: Path) -> Iterator[Target]:
    """The servers, and a private Redis that keeps nothing, as the Redis manager needs nothing kept."""
    for library in ("socketio", "aiohttp", "redis"):
        if importlib.util.find_spec(library) is None:
            raise Missing(f"the library {library} is not installed: pip install -e '.[bench]'")
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer(home / "redis", appendfsync="no"))
        pids, doors = {"redis": redis.pid}, []
        for number in range(1, SERVERS + 1):
            port = free_port()
            words = [sys.executable, "-m", "bench.peers.socketio_server", str(port), redis.url]
            process = stack.enter_context(subprocess.Popen(words, preexec_fn=end_with_parent))
            stack.callback(process.kill)
            wait_port(port)
            pids[f"socketio{number}"] = process.pid
            doors.append(Door(port))
        yield Target(doors, pids, dict, lambda user: user, pairs=pairs_of(SocketIoSender, SocketIoReceiver))


def _frame(head: int, payload: bytes) -> bytes:
    size = len(payload)
    length = bytes((_MASKED | size,)) if size < 126 else bytes((_MASKED | 126,)) + _U16.pack(size)
    return bytes((head,)) + length + b"\0\0\0\0" + payload


class _Socket(Party):
    """The WebSocket of one client, and engine.io's greetings on it."""

    def __init__(self, *words: object) -> None:
        super().__init__(*words)  # type: ignore[arg-type]  # those of the class beside it
        self._is_upgraded = False

    def greet(self) -> None:
        self.transport.write(_UPGRADE)

    def take(self, data: bytes) -> int:
        at, end = 0, len(data)
        if not self._is_upgraded:
            head = data.find(b"\r\n\r\n")
            if head < 0:
                return 0
            self._is_upgraded, at = True, head + 4
        while end - at >= 2:
            size, body = data[at + 1], at + 2
            if size == 126 and end - body >= 2:
                size, body = _U16.unpack_from(data, body)[0], body + 2
            elif size == 127 and end - body >= 8:
                size, body = _U64.unpack_from(data, body)[0], body + 8
            if (size in (126, 127) and body == at + 2) or body + size > end:
                break
            self._frame(data[at], data, body, body + size)
            at = body + size
        return at

    def _frame(self, head: int, data: bytes, at: int, stop: int) -> None:
        if head == _BINARY:
            self.binary(data, at)
        elif head == _CLOSE:
            self.errors.append("closed by the server")
        elif data[at] == ord("0"):
            self.transport.write(_frame(_TEXT, b"40" + json.dumps({"user": self.user}).encode()))
        elif data[at] == ord("2"):
            self.transport.write(_frame(_TEXT, b"3"))
        elif data.startswith(b"40", at):
            self.welcome()
        else:
            self.text(data[at:stop])

    def binary(self, data: bytes, at: int) -> None:
        """A payload."""

    def text(self, text: bytes) -> None:
        """An event or an answer."""


class SocketIoSender(_Socket, Sending):
    """Emits `send` with an answer asked for."""

    def pack(self, number: int) -> bytes:
        event = b'451-%d["send","%b",{"_placeholder":true,"num":0}]' % (number, self.to.encode())
        return _frame(_TEXT, event) + _frame(_BINARY, COUNTER.pack(number) + self.pad)

    def text(self, text: bytes) -> None:
        if found := _ANSWER.match(text):
            self.took(int(found[1]))


class SocketIoReceiver(_Socket, Receiving):
    """Counts attachments, and says once a read how many it has."""

    def binary(self, data: bytes, at: int) -> None:
        self.came(data, at)

    def turn(self) -> None:
        if self.delivered > self.reads:
            self.reads = self.delivered
            self.transport.write(_frame(_TEXT, b'42["ack",%d]' % self.delivered))
