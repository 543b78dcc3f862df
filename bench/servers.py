"""Throw-away servers for tests and measurements: private, on loopback, on a free port, with data in a folder of their own.

They stand for the real ones that an operator runs, so they can also be killed, stopped and started again on their data.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Literal

from bench.ports import free_port

START_S_MAX: Final = 60.0
STOP_S_MAX: Final = 20.0
POLL_S: Final = 0.01
SOCKET_PATH_BYTES_MAX: Final = 107

Fsync = Literal["always", "everysec", "no"]


class ServerFailed(Exception):
    """The server did not start, or did not stop. The text says why."""


class RedisServer:
    """One private Redis with its data in `folder`. `with RedisServer(folder) as redis:` starts it and stops it.

    appendfsync: "always" and "everysec" keep an append-only file; "no" keeps nothing at all. `options` are further
    arguments of redis-server; `conf` is a file in which it keeps what it is told while it runs. All methods block (a start takes about 0.1 s); a test may call them from its loop.
    """

    def __init__(
        self, folder: Path, *, appendfsync: Fsync = "always", options: Sequence[str] = (), conf: Path | None = None
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self._socket = folder / "s"
        self._appendfsync = appendfsync
        self._options = options
        self._conf = conf
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The address over TCP."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def unix_url(self) -> str:
        """The address over the unix socket."""
        return f"unix://{self._socket}"

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of the running server."""
        return self._running().pid

    def start(self) -> None:
        """Start, with the data of the last time, and wait until it answers and has loaded them. Raises ServerFailed."""
        program = shutil.which("redis-server")
        if program is None:
            raise ServerFailed("redis-server is not installed: apt-get install redis-server")
        if len(os.fsencode(self._socket)) > SOCKET_PATH_BYTES_MAX:
            raise ServerFailed(f"{self.folder} is too long for a unix socket")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._socket.unlink(missing_ok=True)  # a kill leaves it
        self._process = subprocess.Popen(
            [program, *self._arguments()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._wait_ready(time.monotonic() + START_S_MAX)

    def kill9(self) -> None:
        """The process dies at once, as in a crash."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """A clean end. Does nothing when it is not running."""
        if self._process is not None:
            self._end(signal.SIGTERM)

    def end(self) -> None:
        """`kill9`, if it runs."""
        if self._process is not None:
            self.kill9()

    def restart(self) -> None:
        """Stop (if it runs) and start again on the same data and port."""
        self.stop()
        self.start()

    def command(self, *words: str | bytes) -> bytes:
        """Send one command on a connection of its own; what came back first, raw. For tests that look from outside."""
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(STOP_S_MAX)
            link.connect(str(self._socket))
            parts = [word.encode() if isinstance(word, str) else word for word in words]
            link.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts))
            return link.recv(65536)

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _arguments(self) -> list[str]:
        keeps = ["--appendonly", "no"]
        if self._appendfsync != "no":
            keeps = ["--appendonly", "yes", "--appendfsync", self._appendfsync, "--aof-load-truncated", "yes"]
        return [
            *([str(self._conf)] if self._conf is not None else []),
            *("--port", str(self.port), "--bind", "127.0.0.1", "--protected-mode", "yes"),
            *("--unixsocket", str(self._socket), "--unixsocketperm", "700"),
            *("--dir", str(self.folder), "--logfile", str(self.folder / "log"), "--daemonize", "no"),
            *("--maxmemory-policy", "noeviction", "--tcp-backlog", "511", "--save", "", *keeps, *self._options),
        ]

    def _wait_ready(self, until_s: float) -> None:
        while True:
            if self._running().poll() is not None:
                self._process = None
                raise ServerFailed(f"redis-server ended at its start:\n{self._log_end()}")
            try:
                if not self.command("PING").startswith(b"-LOADING"):
                    return
            except OSError as fault:
                if time.monotonic() > until_s:
                    raise ServerFailed(f"redis-server does not answer ({fault}):\n{self._log_end()}") from None
            time.sleep(POLL_S)

    def _end(self, how: signal.Signals) -> None:
        process = self._running()
        process.send_signal(how)
        try:
            process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise ServerFailed(f"redis-server did not stop in {STOP_S_MAX} s") from None
        finally:
            self._process = None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ServerFailed("redis-server is not running")
        return self._process

    def _log_end(self) -> str:
        log = self.folder / "log"
        return log.read_text(errors="replace")[-1000:] if log.exists() else "(no log)"
