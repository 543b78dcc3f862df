"""chatd and brokerd as child processes: start, wait until ready, kill -9, stop, start again on the same ports and data.

Used by the bench, the demo, `make cluster` and the tests. Every process ends with its parent, whatever happens to that.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Final

from bench.ports import free_port

READY_S_MAX: Final = 90.0  # a start under chaos may find its links held for 25 s, on a crowded machine
STOP_S_MAX: Final = 20.0
PR_SET_PDEATHSIG: Final = 1
_prctl = ctypes.CDLL(None).prctl


def end_with_parent() -> None:
    """In a child, before it becomes its program: it is told to end when this thread does."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class DaemonDied(Exception):
    """The process ended before it was ready; the text holds the end of its log."""


class Daemon:
    """One child process. `env` is what its configuration is made of; its log goes to `log_path`."""

    def __init__(self, module: str, env: dict[str, str], log_path: Path) -> None:
        self.module = module
        self.env = env
        self.log_path = log_path
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = threading.Event()

    @property
    def pid(self) -> int:
        """The pid of the running process."""
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def begin(self) -> None:
        """Start without waiting."""
        self._ready.clear()
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self.module],
                env={**os.environ, **self.env},
                stdout=subprocess.PIPE,
                stderr=log,
                preexec_fn=end_with_parent,
                start_new_session=True,  # Ctrl-C is for us: we stop them in order
            )
        threading.Thread(target=self._read, args=(self._process,), daemon=True).start()

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                if b"ready" in line:
                    self._ready.set()

    def wait_ready(self, s_max: float = READY_S_MAX) -> None:
        """Wait for its ready line. Raises DaemonDied."""
        end_s = time.monotonic() + s_max
        while not self._ready.wait(0.05):
            if not self.is_running or time.monotonic() > end_s:
                tail = self.log_path.read_text(errors="replace")[-3000:]
                raise DaemonDied(f"{self.module} is not ready; its log ends:\n{tail}")

    def start(self) -> None:
        """Start, and wait until it is ready."""
        self.begin()
        self.wait_ready()

    def kill9(self) -> None:
        """End it as a crash does."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """End it as an operator does; its exit code."""
        return self._end(signal.SIGTERM)

    def signal(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def _end(self, number: int) -> int:
        if self._process is None:
            return 0
        if self.is_running:
            self._process.send_signal(number)
        try:
            return self._process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise

    async def restart(self) -> None:
        """Start again on the same ports and data. Started from this thread: the child ends with the thread that made it
        (PR_SET_PDEATHSIG), and a worker thread ends with its loop."""
        self.begin()
        await asyncio.to_thread(self.wait_ready)


class Chatd(Daemon):
    """One chatd, embedded or in a cluster."""

    def __init__(self, data_dir: Path, name: str = "chatd", env: dict[str, str] | None = None) -> None:
        data_dir.mkdir(parents=True, exist_ok=True)
        self.data_dir = data_dir
        self.tcp_port = free_port()
        self.http_port = free_port()
        ours = {
            "CHATD_NODE": name,
            "CHATD_DATA_DIR": str(data_dir),
            "CHATD_TCP_PORT": str(self.tcp_port),
            "CHATD_HTTP_PORT": str(self.http_port),
            "CHATD_LOG_FORMAT": "json",
        }
        super().__init__("chatd", {**ours, **(env or {})}, data_dir / f"{name}.log")

    def wait_serving(self, s_max: float = READY_S_MAX) -> None:
        """Wait until /readyz says 200: RabbitMQ and Redis are reached too. Raises DaemonDied."""
        end_s = time.monotonic() + s_max
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/readyz", timeout=5):
                    return
            except OSError as fault:  # a 503 is one too
                if time.monotonic() > end_s:
                    raise DaemonDied(f"{self.module} does not serve: {fault}") from fault
            time.sleep(0.05)

    def ctl(self, *words: str, text: str | None = None) -> str:
        """Run chatctl with this chatd's configuration; what it printed. Raises CalledProcessError."""
        done = subprocess.run(
            [sys.executable, "-m", "chatd.ctl", *words],
            env={**os.environ, **self.env},
            input=text,
            capture_output=True,
            text=True,
        )
        try:
            done.check_returncode()
        except subprocess.CalledProcessError as failed:
            failed.add_note(done.stderr)  # why: the exception keeps it to itself
            raise
        return done.stdout

    def add_user(self, name: str) -> str:
        """Make a user with a password; the password."""
        password = f"{name}-{os.urandom(6).hex()}"
        self.ctl("user", "add", name, "--password-stdin", text=password + "\n")
        return password


class Brokerd(Daemon):
    """One brokerd."""

    def __init__(self, data_dir: Path, name: str, env: dict[str, str]) -> None:
        data_dir.mkdir(parents=True, exist_ok=True)
        self.http_port = free_port()
        ours = {"BROKERD_NAME": name, "BROKERD_LOG_FORMAT": "json", "BROKERD_HTTP_PORT": str(self.http_port)}
        super().__init__("brokerd", {**ours, **env}, data_dir / f"{name}.log")
