"""A Redis connection for hot paths: whole pipelines in one write, one future for each, healed by itself.

All calls of one turn of the loop leave in one write, and replies are matched by their order alone. Hence the one rule of
this file: a call that was written keeps its place in the queue until its last reply came, whatever became of its caller,
and a connection whose order is in doubt is thrown away. Not for Redis Cluster. Redis 7 or newer, trusted.

With sentinels in the URL it is the primary that they name, asked for anew after every loss and again and again meanwhile.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha1
from typing import Any, Final

import hiredis

from brokerd.links.resp_stream import Command, Limits, RespStream
from brokerd.links.resp_url import RedisUrl
from brokerd.links.sentinels import Primary, find_primary
from brokerd.ports import LinkDown, StoreChanged

CONNECT_S_MAX: Final = 5.0
RETRY_S_FIRST: Final = 0.05
RETRY_S_MAX: Final = 2.0
CHECK_S_MAX: Final = 10.0  # what a check may take at a connect
CHECK_EVERY_S: Final = 2.0  # and so often it is made again; a primary that hangs, or was cut off, is not lost by itself

_RUN_ID: Final = re.compile(rb"^run_id:(\w+)", re.MULTILINE)
Ask = Callable[[Command], Awaitable[Any]]


class RespLink:
    """One Redis server, connected again and again by `run`, which the owner starts as a task.

    `name` is what CLIENT LIST shows. `wait_s` gives the pause before a reconnect from its upper bound. `check(ask)`
    raises StoreChanged when this is not the right server: at every connect, before anybody may use it, and again and again.
    What is saved (`is_save`) counts only when `wait_replicas` replicas have it as well.
    """

    def __init__(
        self, url: str, *, name: str, limits: Limits | None = None, check: Callable[[Ask], Awaitable[None]] | None = None,
        wait_replicas: int = 0,
        wait_s: Callable[[float], float] = lambda most_s: random.uniform(most_s / 2, most_s),
    ) -> None:  # fmt: skip
        self._url = RedisUrl.parse(url)
        self._tls = self._url.tls()
        self._name = name
        self._limits = limits or Limits()
        self._wait_replicas = wait_replicas
        self._run_id = b""
        self._greeters: list[Callable[[Ask], Awaitable[None]]] = []
        self._wait_s = wait_s
        self._check = check
        self._scripts: dict[str, str] = {}  # sha → text
        self._stream: RespStream | None = None
        self._ready = asyncio.Event()
        self._why: LinkDown = LinkDown("not connected yet")
        self._counts = {"connects": 0, "connect_failures": 0, "scripts_loaded_again": 0, "checks_put_off": 0}
        self._counts["other_servers"] = 0
        self._totals = {"calls": 0, "commands": 0, "late": 0, "refused": 0, "replicas_short": 0}

    # --- for callers

    @property
    def is_ready(self) -> bool:
        """Whether a call would be written now."""
        return self._stream is not None and self._stream.is_open

    @property
    def state(self) -> str:
        """ "up", or why not."""
        return "up" if self.is_ready else str(self._why)

    @property
    def changed(self) -> str:
        """What became of the store, when the server that answers is not the one that was known; else ""."""
        return str(self._why) if not self.is_ready and isinstance(self._why, StoreChanged) else ""

    async def check(self) -> None:
        """Ask now whether this is the right server. Raises StoreChanged, LinkDown."""
        stream = self._stream
        if stream is None:
            await self._call(())
        elif self._check is not None:
            try:
                await self._check(_asking(stream))
            except StoreChanged as changed:
                self._why = changed
                stream.abort(str(changed))
                raise

    async def wait_ready(self) -> None:
        """Wait until the server was reached and told who we are. Returns at once when it is."""
        while not self.is_ready:
            self._ready.clear()  # it may have ended just now, and `run` has not seen that yet
            await self._ready.wait()

    def learn(self, script: str) -> str:
        """Keep a script, so that it is loaded with every connect; its name for EVALSHA. It must be idempotent."""
        sha = sha1(script.encode(), usedforsecurity=False).hexdigest()
        self._scripts[sha] = script
        return sha

    def on_other_server(self, greet: Callable[[Ask], Awaitable[None]]) -> None:
        """`greet(ask)` is awaited when the server is not the one that was connected before (started anew, or another one),
        before anybody else may ask. LinkDown from it ends that connection."""
        self._greeters.append(greet)

    async def pipeline(self, commands: Sequence[Command], *, is_save: bool = False) -> list[Any]:
        """One round trip: a reply for each command, in order (bytes, int, None, list, or hiredis.ReplyError for a
        command that failed: an error touches no other command). A command is a tuple of str, bytes, int and float.

        Other callers' commands may run between these. A script the server forgot is loaded and its commands are repeated,
        behind the others. `is_save`: the replies come when `wait_replicas` replicas have all that was saved up to here.
        Raises LinkDown: not connected, lost, too late, too much waiting, too few replicas; then each may have been carried
        out or not.
        """
        replies, failed = await self._call(commands, is_save)
        if failed:
            forgotten = [at for at, reply in enumerate(replies) if _is_forgotten(reply)]
            if forgotten:
                await self._repeat(commands, replies, forgotten, is_save)
        return replies

    def statistics(self) -> dict[str, int]:
        """Counters since the start, and what waits for a reply now."""
        waiting = {"waiting_commands": 0, "waiting_bytes": 0}
        totals = dict(self._totals)
        if self._stream is not None:
            waiting = self._stream.waiting()
            for key, value in self._stream.counts.items():
                totals[key] += value
        return {**self._counts, **totals, **waiting}

    async def _call(self, commands: Sequence[Command], is_save: bool = False) -> tuple[list[Any], bool]:
        if self._stream is None:
            raise type(self._why)(f"redis {self._url.shown}: {self._why}")
        if not commands:
            return [], False
        return await self._stream.call(commands, is_save=is_save)

    async def _repeat(
        self, commands: Sequence[Command], replies: list[Any], forgotten: list[int], is_save: bool
    ) -> None:
        self._counts["scripts_loaded_again"] += 1
        load: list[Command] = [("SCRIPT", "LOAD", text) for text in self._scripts.values()]
        again, _ = await self._call([*load, *(commands[at] for at in forgotten)], is_save)
        for at, reply in zip(forgotten, again[len(load) :], strict=True):
            replies[at] = reply

    # --- the owner's task

    async def run(self) -> None:
        """Connect, and connect again whenever the connection is lost, until cancelled. Then nobody waits any more."""
        pause_s = RETRY_S_FIRST
        loop = asyncio.get_running_loop()
        while True:
            begun_s = loop.time()
            try:
                await self._serve_once()
            except (OSError, LinkDown) as down:
                self._why = down if isinstance(down, LinkDown) else LinkDown(str(down) or type(down).__name__)
                self._counts["connect_failures"] += 1
            if loop.time() - begun_s > RETRY_S_MAX:
                pause_s = RETRY_S_FIRST  # it had been well for a while
            await asyncio.sleep(self._wait_s(pause_s))
            pause_s = min(pause_s * 2, RETRY_S_MAX)

    async def _serve_once(self) -> None:
        """One connection, from connect to loss. Raises OSError or LinkDown when it never became ready."""
        primary = await find_primary(self._url, self._tls) if self._url.sentinels else None
        async with asyncio.timeout(CONNECT_S_MAX):  # TimeoutError is an OSError
            stream = await self._open(primary)
        try:
            async with asyncio.timeout(CONNECT_S_MAX):
                await self._greet(stream)
            if self._check is not None:
                async with asyncio.timeout(CHECK_S_MAX):
                    await self._check(_asking(stream))
            async with asyncio.timeout(CHECK_S_MAX):
                await self._compare(stream)
            self._stream = stream
            self._counts["connects"] += 1
            self._ready.set()
            await self._watch(stream, primary)
        finally:
            self._stream = None
            self._ready.clear()
            stream.abort("closed by its owner")
            for key, value in stream.counts.items():
                self._totals[key] += value

    async def _compare(self, stream: RespStream) -> None:
        """Let those who want it look at a server that is not the one before."""
        if not self._greeters:
            return
        ask = _asking(stream)
        found = _RUN_ID.search(await ask(("INFO", "server")))
        before, self._run_id = self._run_id, found[1] if found else b""
        if before and before != self._run_id:
            self._counts["other_servers"] += 1
            for greet in self._greeters:
                await greet(ask)

    async def _watch(self, stream: RespStream, primary: Primary | None) -> None:
        """Until it is lost. Raises StoreChanged when it turns out to be the wrong server."""
        while True:
            try:
                async with asyncio.timeout(CHECK_EVERY_S):
                    why = await stream.wait_lost()
            except TimeoutError:
                if primary is not None and await self._has_moved(primary):
                    stream.abort("the sentinels name another primary now")
                else:
                    await self._look_again(stream)
            else:
                if why != str(self._why):  # or it was `check` that ended it
                    self._why = LinkDown(why)
                return

    async def _look_again(self, stream: RespStream) -> None:
        try:
            if self._check is not None:
                await self._check(_asking(stream))
        except StoreChanged:
            raise
        except LinkDown:
            self._counts["checks_put_off"] += 1  # slow, or nobody can say now: no reason to leave it

    async def _has_moved(self, primary: Primary) -> bool:
        """Whether a newer configuration names another server. Sentinels that are away change nothing."""
        try:
            named = await find_primary(self._url, self._tls)
        except LinkDown:
            return False
        return named.epoch > primary.epoch and named.address != primary.address

    async def _open(self, primary: Primary | None) -> RespStream:
        loop = asyncio.get_running_loop()
        url = self._url
        if url.path is not None:
            _, stream = await loop.create_unix_connection(self._new_stream, url.path)
        else:
            host, port = (url.host, url.port) if primary is None else primary.address
            _, stream = await loop.create_connection(self._new_stream, host, port, ssl=self._tls)
        return stream

    def _new_stream(self) -> RespStream:
        return RespStream(self._limits, self._url.shown, self._wait_replicas)

    async def _greet(self, stream: RespStream) -> None:
        """Everything a new connection must be told, in one round trip. Raises LinkDown when any of it is refused."""
        greeting: list[Command] = []
        if self._url.password is not None:
            user = (self._url.user,) if self._url.user else ()
            greeting.append(("AUTH", *user, self._url.password))
        if self._url.sentinels:
            greeting.append(("ROLE",))
        greeting.append(("SELECT", self._url.db))
        greeting.append(("CLIENT", "SETNAME", self._name))
        greeting += [("SCRIPT", "LOAD", text) for text in self._scripts.values()]
        replies, _ = await stream.call(greeting)
        for command, reply in zip(greeting, replies, strict=True):
            if isinstance(reply, hiredis.ReplyError):
                raise LinkDown(f"{command[0]!s} refused: {reply}")  # never the arguments: they hold the password
            if command[0] == "ROLE" and reply[0] != b"master":
                raise LinkDown("the server that the sentinels name is not a primary, or not yet")


def _asking(stream: RespStream) -> Ask:
    """One command on a connection that others may not use yet. Raises LinkDown for an error too."""

    async def ask(command: Command) -> Any:
        [reply], failed = await stream.call((command,))
        if failed:
            raise LinkDown(f"{command[0]!s} refused: {reply}")
        return reply

    return ask


def _is_forgotten(reply: Any) -> bool:
    return isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOSCRIPT")
