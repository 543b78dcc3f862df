"""chatctl top: what it says of a running chatd, and that it leaves terminals and pipes as they should be."""

from __future__ import annotations

import asyncio
import json
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import ioctl
from typing import Any

import pytest

from bench.processes import Chatd
from protocol.client import Client
from tests.operate.asking import client, ctl, told

WAIT_S_MAX = 30
LEAVE = b"\x1b[?1049l"


async def keep_saying(speaker: Client, to: str) -> None:
    while True:
        await speaker.send(to, b"x" * 100)


async def until(server: Chatd, is_so: Any) -> dict[str, Any]:
    """The first frame of which it is so."""
    async with asyncio.timeout(WAIT_S_MAX):
        while True:
            frame: dict[str, Any] = await asyncio.to_thread(told, server, "top", "--count", "1", "--interval", "0.2")
            if is_so(frame):
                return frame


async def test_it_tells_rates_and_who_does_not_read(embedded_server: Chatd) -> None:
    ann, bob = embedded_server.add_user("ann"), embedded_server.add_user("bob")
    async with (
        client(embedded_server, "ann", "pc", ann) as speaker,
        client(embedded_server, "bob", "phone", bob) as silent,
    ):
        await speaker.wait_connected()
        await silent.wait_connected()
        talk = asyncio.create_task(keep_saying(speaker, "bob"))
        frame = await until(embedded_server, lambda it: it["slowest"] and it["slowest"][0]["unread"] > 50)
        talk.cancel()
        rates = frame["rates"]
        assert rates["accepted"] > 0
        assert rates["bytes_in"] > 100 * rates["accepted"]  # the payload alone is so much
        assert (rates["failed"], rates["expired"], rates["logins"]) == (0, 0, 0)
        assert (frame["ready"], frame["sessions"], frame["users"], frame["paused"]) == (True, 2, 2, 0)
        [slow] = [it for it in frame["slowest"] if it["user"] == "bob"]
        assert slow["device"] == "phone"
        assert frame["queues"][0]["user"] == "bob"
        assert (frame["queues"][0]["unread"], frame["queues"][0]["sessions"]) == (slow["unread"], 1)
        for _ in range(slow["unread"]):
            await anext(silent)
        talk = asyncio.create_task(keep_saying(speaker, "nobody"))
        failed = await until(embedded_server, lambda it: it["rates"]["failed"] > 0)
        talk.cancel()
        assert failed["times_ms"]["loop"] is None or failed["times_ms"]["loop"]["count"] >= 1


def test_without_a_terminal_frames_come_one_after_another_and_so_do_lines_of_json(embedded_server: Chatd) -> None:
    plain = ctl(embedded_server, "top", "--count", "2", "--interval", "0.1", "--rows", "1")
    assert (plain.returncode, plain.stderr) == (0, "")
    first, second = (part.splitlines() for part in re.split(r"\n\n(?=chatd:)", plain.stdout))
    assert first[0].startswith("chatd:")
    assert " ready " in second[0]
    assert "\x1b" not in plain.stdout
    scripted = ctl(embedded_server, "top", "--count", "2", "--interval", "0.1", "--json")
    assert [json.loads(line)["sessions"] for line in scripted.stdout.splitlines()] == [0, 0]
    for words in (["--interval", "0"], ["--interval", "nan"], ["--count", "0"]):
        assert ctl(embedded_server, "top", *words).returncode == 2
    refused = ctl(embedded_server, "top", "--count", "1", "--rows", "101")
    assert (refused.returncode, refused.stderr) == (1, "chatctl: rows is a number from 0 to 100\n")


def test_a_reader_who_has_enough_ends_it_without_a_word(embedded_server: Chatd) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "chatd.ctl", "top", "--interval", "0.1"],
        env={**os.environ, **embedded_server.env}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as top:  # fmt: skip
        assert top.stdout is not None
        assert top.stderr is not None
        assert top.stdout.readline().startswith("chatd:")
        top.stdout.close()
        assert top.wait(WAIT_S_MAX) == 0
        assert top.stderr.read() == ""


class Terminal:
    """chatctl top on a terminal of its own."""

    def __init__(self, server: Chatd, columns: int) -> None:
        self._ours, self._theirs = os.openpty()
        ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.mode = termios.tcgetattr(self._theirs)
        self._server = server
        self.output = b""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "chatd.ctl", "top", "--interval", "0.2"],
            env={**os.environ, **server.env, "COLUMNS": "", "LINES": ""},
            stdin=self._theirs, stdout=self._theirs, stderr=self._theirs, start_new_session=True,
            preexec_fn=lambda: ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip

    def see(self, text: bytes) -> bytes:
        """Wait until this was written, after what was seen before; what came between."""
        end_s = time.monotonic() + WAIT_S_MAX
        while text not in self.output:
            assert select.select([self._ours], [], [], max(0, end_s - time.monotonic()))[0], self.output[-2000:]
            self.output += os.read(self._ours, 65536)
        between, _, self.output = self.output.partition(text)
        return between

    def type(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def is_as_before(self) -> bool:
        return termios.tcgetattr(self._theirs) == self.mode

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)


@contextmanager
def terminal(server: Chatd, columns: int = 100) -> Iterator[Terminal]:
    it = Terminal(server, columns)
    try:
        yield it
    finally:
        it.close()


@pytest.mark.parametrize(
    ("keys", "number", "status"), [(b"q", None, 0), (b"\x03", None, 0), (b"", signal.SIGTERM, 143)]
)
def test_a_terminal_is_given_back_as_it_was(
    embedded_server: Chatd, keys: bytes, number: signal.Signals | None, status: int
) -> None:
    with terminal(embedded_server) as top:
        top.see(b"per second")
        assert not top.is_as_before()
        top.type(b"x")  # means nothing
        top.see(b"per second")
        if number is None:
            top.type(keys)
        else:
            top.process.send_signal(number)
        top.see(LEAVE)
        assert top.process.wait(WAIT_S_MAX) == status
        assert top.is_as_before()


def test_lines_are_cut_to_the_terminal_and_a_restart_is_watched(embedded_server: Chatd) -> None:
    with terminal(embedded_server, columns=30) as top:
        top.see(b"\x1b[H")
        shown = top.see(b"\x1b[J").decode().replace("\x1b[K", "").split("\r\n")
        assert max(len(line) for line in shown) == 30
        embedded_server.kill9()
        top.see(b"no chatd runs here")
        embedded_server.start()
        top.see(b"per second")
        top.type(b"q")
        assert top.process.wait(WAIT_S_MAX) == 0
