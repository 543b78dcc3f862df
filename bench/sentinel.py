"""A primary, two replicas and three sentinels on this machine: private ports and folders, loopback only.

Who is the primary changes; `primary` asks. A server that was killed starts again as what it was told to be meanwhile,
because it keeps that in its own file.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

from bench.ports import free_port
from bench.servers import POLL_S, START_S_MAX, STOP_S_MAX, Fsync, RedisServer, ServerFailed

NAME: Final = "chat"  # what the sentinels call the primary
REPLICAS: Final = 2
SENTINELS: Final = 3
QUORUM: Final = 2
QUICK: Final = ("--repl-diskless-sync-delay", "0")  # or a replica's first copy begins after 5 s
DOWN_AFTER_MS: Final = 2000  # the machine is crowded; a pause of it must not look like a death
FAILOVER_MS: Final = 10_000


class SentinelServer:
    """One sentinel, with what it learned in its own file."""

    def __init__(self, folder: Path, primary: RedisServer, down_after_ms: int) -> None:
        self.port = free_port()
        self._conf = folder / "sentinel.conf"
        folder.mkdir(parents=True, exist_ok=True)
        self._conf.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {folder}\nlogfile {folder}/log\n"
            f"sentinel monitor {NAME} 127.0.0.1 {primary.port} {QUORUM}\n"
            f"sentinel down-after-milliseconds {NAME} {down_after_ms}\n"
            f"sentinel failover-timeout {NAME} {FAILOVER_MS}\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start, with what it knew last."""
        program = shutil.which("redis-server")
        if program is None:
            raise ServerFailed("redis-server is not installed: apt-get install redis-server")
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(
            [program, str(self._conf), "--sentinel"], stdin=quiet, stdout=quiet, stderr=quiet
        )
        end_s = time.monotonic() + START_S_MAX
        while not _ask(self.port, "PING"):
            if self._process.poll() is not None or time.monotonic() > end_s:
                raise ServerFailed("a sentinel does not answer")
            time.sleep(POLL_S)

    def kill9(self) -> None:
        """The process dies at once."""
        self.end()

    def end(self) -> None:
        """`kill9`, if it runs."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(STOP_S_MAX)


class SentinelRedis:
    """`with SentinelRedis(folder) as redis:` starts all and ends all. `servers` and `sentinels` can each be killed."""

    def __init__(
        self, folder: Path, *, appendfsync: Fsync = "always", down_after_ms: int = DOWN_AFTER_MS,
        options: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.folder = folder
        self.servers: list[RedisServer] = []
        for number in range(1 + REPLICAS):
            home = folder / f"redis{number + 1}"
            home.mkdir(parents=True, exist_ok=True)
            conf = home / "redis.conf"
            conf.write_text(f"replicaof 127.0.0.1 {self.servers[0].port}\n" if self.servers else "")
            self.servers.append(RedisServer(home, appendfsync=appendfsync, options=(*QUICK, *options), conf=conf))
        self.sentinels = [
            SentinelServer(folder / f"sentinel{number + 1}", self.servers[0], down_after_ms)
            for number in range(SENTINELS)
        ]

    @property
    def url(self) -> str:
        """As chatd and brokerd take it."""
        return f"redis+sentinel://{','.join(f'127.0.0.1:{one.port}' for one in self.sentinels)}/{NAME}/0"

    def start(self) -> None:
        """All of them; returns when the replicas are in step and every sentinel knows all the others."""
        for server in self.servers:
            server.start()
        for sentinel in self.sentinels:
            sentinel.start()
        self.wait_whole()

    def stop(self) -> None:
        """End everything that runs. Not gently: a replica that writes its first AOF would not listen."""
        for sentinel in self.sentinels:
            sentinel.end()
        for server in self.servers:
            server.end()

    def primary(self) -> RedisServer | None:
        """The server that most sentinels name, when it says the same of itself."""
        named = [self._named_by(sentinel) for sentinel in self.sentinels]
        for server in self.servers:
            if named.count(server.port) >= QUORUM and _said(server, "ROLE").startswith(b"*3\r\n$6\r\nmaster"):
                return server
        return None

    def wait_primary(self, other_than: RedisServer | None = None, s_max: float = START_S_MAX) -> RedisServer:
        """The primary, once there is one that is not `other_than`. Raises ServerFailed."""
        end_s = time.monotonic() + s_max
        while (found := self.primary()) is None or found is other_than:
            if time.monotonic() > end_s:
                raise ServerFailed(f"no new primary in {s_max:.0f} s")
            time.sleep(POLL_S)
        return found

    def wait_whole(self, s_max: float = START_S_MAX) -> None:
        """Until there is a primary with both replicas in step, known to every sentinel. Raises ServerFailed."""
        end_s = time.monotonic() + s_max
        while not self._is_whole():
            if time.monotonic() > end_s:
                raise ServerFailed(f"not whole after {s_max:.0f} s")
            time.sleep(POLL_S)

    def _is_whole(self) -> bool:
        primary = self.primary()
        if primary is None:
            return False
        fields = [f"slave{number}:".encode() for number in range(REPLICAS)]
        about = _said(primary, "INFO", "replication")
        in_step = [line for line in about.splitlines() if line.startswith(tuple(fields)) and b"state=online" in line]
        know_all = [
            _field(_ask(sentinel.port, "SENTINEL", "MASTER", NAME), b"num-other-sentinels") == b"%d" % (SENTINELS - 1)
            and _field(_ask(sentinel.port, "SENTINEL", "MASTER", NAME), b"num-slaves") == b"%d" % REPLICAS
            for sentinel in self.sentinels
        ]
        return len(in_step) == REPLICAS and all(know_all)

    def _named_by(self, sentinel: SentinelServer) -> int:
        words = _ask(sentinel.port, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME).split(b"\r\n")
        return int(words[4]) if len(words) > 4 else 0

    def __enter__(self) -> SentinelRedis:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _said(server: RedisServer, *words: str) -> bytes:
    """What it answers, or nothing when it is away or frozen."""
    return _ask(server.port, *words)


def _ask(port: int, *words: str) -> bytes:
    """What stands at that port answers, raw; nothing when it is away."""
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as link:
            link.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w.encode()) for w in words))
            return link.recv(65536)
    except OSError:
        return b""


def _field(reply: bytes, name: bytes) -> bytes:
    """The value behind a name in a flat list."""
    words = reply.split(b"\r\n")
    return words[words.index(name) + 2] if name in words else b""
