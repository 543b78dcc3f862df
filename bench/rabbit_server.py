"""A throw-away RabbitMQ for tests and measurements: private, on loopback, on free ports, with all it writes in a folder.

It has its own epmd, cookie, node name and configuration, so it meets no other RabbitMQ of the machine. A start takes 5 to
15 seconds: share one where possible.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple

from bench.ports import free_port
from bench.servers import ServerFailed

PROGRAMS: Final = Path("/usr/lib/rabbitmq/bin")  # the one on the PATH insists on root and changes the user
START_S_MAX: Final = 120.0
STOP_S_MAX: Final = 30.0
CTL_S_MAX: Final = 60.0
POLL_S: Final = 0.05
LOG_CHARS_MAX: Final = 2000
_PROTOCOL_HEADER: Final = b"AMQP\x00\x00\x09\x01"
_METHOD_FRAME: Final = b"\x01"  # Connection.Start begins with it


class Family(NamedTuple):
    """What the nodes of one RabbitMQ cluster share: an epmd of their own, and the secret by which they know each other."""

    epmd_port: int
    cookie: str

    @classmethod
    def new(cls) -> Family:
        """A family that nobody belongs to yet."""
        return cls(free_port(), secrets.token_hex(16))


class RabbitServer:
    """One private RabbitMQ with its data in `folder`. `with RabbitServer(folder) as rabbit:` starts it and stops it.

    `conf` are further lines of rabbitmq.conf; `family` is that of a cluster, whose epmd outlives the node. start, kill9,
    stop, restart and ctl block for seconds; `await` start_soon() and the like through asyncio.to_thread where a loop must
    go on. Data stay from one start to the next.
    """

    def __init__(
        self, folder: Path, *, conf: str = "", plugins: str = "", family: Family | None = None, schedulers: int = 2
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self.conf = conf
        self._plugins = plugins
        self._dist_port = free_port()
        self._is_alone = family is None
        self._epmd_port, self._cookie = family or Family.new()
        self._schedulers = schedulers
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def node_name(self) -> str:
        """What other nodes of its cluster call it."""
        return f"t{self.port}@localhost"

    @property
    def url(self) -> str:
        """The address, with the user that RabbitMQ has on loopback from the start."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of the running server's Erlang machine."""
        return int((self.folder / "beam.pid").read_text())

    def start(self) -> None:
        """Start, with the data of the last time, and wait until it speaks AMQP. Raises ServerFailed."""
        if not (PROGRAMS / "rabbitmq-server").exists():
            raise ServerFailed("RabbitMQ is not installed: apt-get install rabbitmq-server")
        self._lay_out()
        with (self.folder / "log" / "stdout").open("ab") as output:
            self._process = subprocess.Popen(
                [PROGRAMS / "rabbitmq-server"],
                env=self._environment(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C ends the tests, and they end it
            )
        try:
            self._wait_ready(time.monotonic() + START_S_MAX)
        except BaseException:
            with suppress(ProcessLookupError):  # it ended by itself
                os.killpg(self._process.pid, signal.SIGKILL)
            self._wait_end()
            self.stop()
            raise

    def kill9(self) -> None:
        """The Erlang machine dies at once, as in a crash."""
        self._signal(signal.SIGKILL)
        self._wait_end()

    def end(self) -> None:
        """`kill9`, if it runs."""
        if self._process is not None:
            self.kill9()

    def stop(self) -> None:
        """A clean end, of its epmd too (which a kill leaves running). May be called when nothing runs."""
        if self._process is not None:
            self._signal(signal.SIGTERM)
            self._wait_end()
        if self._is_alone:
            self.end_epmd()

    def end_epmd(self) -> None:
        """End the epmd of this server, or of its family."""
        epmd = shutil.which("epmd")
        if epmd is not None:
            command = [epmd, "-port", str(self._epmd_port), "-kill"]
            subprocess.run(command, env=self._environment(), check=False, capture_output=True, timeout=STOP_S_MAX)

    def restart(self) -> None:
        """Stop (if it runs) and start again on the same data and port."""
        self.stop()
        self.start()

    async def start_soon(self) -> None:
        """`start`, while the loop goes on."""
        await asyncio.to_thread(self.start)

    def ctl(self, *words: str) -> str:
        """Run rabbitmqctl against it; give what it printed. Takes a second or two. Raises ServerFailed."""
        done = subprocess.run(
            [PROGRAMS / "rabbitmqctl", *words],
            env=self._environment(), cwd=self.folder, check=False, capture_output=True, text=True, timeout=CTL_S_MAX,
        )  # fmt: skip
        if done.returncode:
            raise ServerFailed(f"rabbitmqctl {' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    def __enter__(self) -> RabbitServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError, FileNotFoundError):  # it has ended by itself, or has not begun
            os.kill(self.pid, number)

    def _lay_out(self) -> None:
        for name in ("home", "mnesia", "log", "gen"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        cookie = self.folder / "home" / ".erlang.cookie"
        if not cookie.exists():
            cookie.write_text(self._cookie)
            cookie.chmod(0o400)  # Erlang refuses one that others may read
        (self.folder / "env.conf").touch()  # keeps the machine's own configuration out
        (self.folder / "enabled_plugins").write_text(f"[{self._plugins}].")
        (self.folder / "beam.pid").unlink(missing_ok=True)
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.default = 127.0.0.1:{self.port}\n"
            "log.file.level = info\n"
            f"disk_free_limit.absolute = 50MB\n{self.conf}\n"
        )

    def _environment(self) -> dict[str, str]:
        folder = self.folder
        loopback = "-kernel inet_dist_use_interface {127,0,0,1}"
        own = {
            "HOME": folder / "home",
            "RABBITMQ_NODENAME": self.node_name,
            "RABBITMQ_NODE_PORT": self.port,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_DIST_PORT": self._dist_port,
            "ERL_EPMD_PORT": self._epmd_port,
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_MNESIA_BASE": folder / "mnesia",
            "RABBITMQ_LOG_BASE": folder / "log",
            "RABBITMQ_PID_FILE": folder / "beam.pid",
            "RABBITMQ_CONF_ENV_FILE": folder / "env.conf",
            "RABBITMQ_CONFIG_FILE": folder / "rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": folder / "enabled_plugins",
            "RABBITMQ_GENERATED_CONFIG_DIR": folder / "gen",
            "RABBITMQ_FEATURE_FLAGS_FILE": folder / "feature_flags",
            # few schedulers, and no busy waiting in them: the tests need the machine too
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{loopback} +S {self._schedulers}:{self._schedulers} +SDio 4"
            " +sbwt none +sbwtdcpu none +sbwtdio none",
            "RABBITMQ_CTL_ERL_ARGS": loopback,
        }
        kept = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}
        return kept | {name: str(value) for name, value in own.items()}

    def _wait_ready(self, until_s: float) -> None:
        while not self._speaks_amqp():
            if self._process is None or self._process.poll() is not None:
                raise ServerFailed(f"RabbitMQ ended at its start:\n{self._log_end()}")
            if time.monotonic() > until_s:
                raise ServerFailed(f"RabbitMQ does not answer:\n{self._log_end()}")
            time.sleep(POLL_S)

    def _speaks_amqp(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as link:
                link.settimeout(5)
                link.sendall(_PROTOCOL_HEADER)
                return link.recv(1) == _METHOD_FRAME
        except OSError:
            return False

    def _wait_end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        try:
            process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise ServerFailed(f"RabbitMQ did not stop in {STOP_S_MAX} s") from None

    def _log_end(self) -> str:
        log = self.folder / "log" / "stdout"
        return log.read_text(errors="replace")[-LOG_CHARS_MAX:] if log.exists() else "(no log)"
