"""Support's side of a running system: people who send with cids that are in the sample or not, and chatctl as a process."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from bench.processes import Chatd
from brokerd.support_ports import DeadLetter, Verdict
from brokerd.tracing import ONE_IN_DEFAULT, Sample
from chatd.config import ChatConfig, read
from chatd.ctl.letters import row_of
from chatd.ctl.traces import as_json, find_out
from chatd.stores import open_dead_letters
from protocol.messages import Accepted, Send, Welcome
from protocol.names import device_tag, message_id
from protocol.wire import Flag, Scheme
from tests.faults.raw_client import RawClient, connected

SEEN_S_MAX = 30.0
DEVICE = "raw"
SAMPLE = Sample(ONE_IN_DEFAULT)  # as the servers have it: the tests choose cids that are in it, or not
_numbers = itertools.count()


def cids(user: str, *, sampled: bool) -> list[int]:
    """Some cids of the user's device whose message ids are in the sample, or are not."""
    tag = device_tag(user, DEVICE)
    fitting = (cid for cid in itertools.count(1) if SAMPLE.has(message_id(tag, cid)) == sampled)
    return list(itertools.islice(fitting, 8))


def id_of(user: str, cid: int) -> str:
    """As a client shows it."""
    return message_id(device_tag(user, DEVICE), cid).hex()


@dataclass
class Told:
    """How a chatctl ended."""

    code: int
    out: str
    err: str


@dataclass
class Desk:
    """One system: `near` is where senders are, `far` where receivers are (one process, when it is embedded)."""

    near: Chatd
    far: Chatd

    @property
    def config(self) -> ChatConfig:
        return read(None, self.near.env)

    def new_user(self, stem: str) -> tuple[str, str]:
        """A name and its password."""
        name = f"{stem}-{next(_numbers)}"
        return name, self.near.add_user(name)

    def run(self, *words: str) -> Told:
        """chatctl WORDS, beside the running servers."""
        done = subprocess.run(
            [sys.executable, "-m", "chatd.ctl", *words],
            env={**os.environ, **self.near.env},
            capture_output=True,
            text=True,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Told(done.returncode, done.stdout, done.stderr)

    def out(self, *words: str) -> str:
        """The same, of a command that must go well."""
        told = self.run(*words)
        assert told.code == 0, told.err
        return told.out

    def trace(self, id_: str, *more: str) -> dict[str, Any]:
        """chatctl trace ID --json."""
        answer: dict[str, Any] = json.loads(self.out("trace", id_, "--json", *more))
        return answer

    async def wait_trace(self, id_: str, is_so: Callable[[dict[str, Any]], bool], *more: str) -> dict[str, Any]:
        """Until the trace says so (hops are seen half a second later); then chatctl's own answer, which must say so too."""
        end_s = time.monotonic() + SEEN_S_MAX
        while not is_so(found := as_json(bytes.fromhex(id_), *await find_out(self.config, bytes.fromhex(id_), None))):
            assert time.monotonic() < end_s, found
            await asyncio.sleep(0.1)
        answer = await asyncio.to_thread(self.trace, id_, *more)
        assert is_so(answer), answer
        return answer

    def letters(self) -> list[dict[str, Any]]:
        """chatctl dead list --json."""
        found: list[dict[str, Any]] = json.loads(self.out("dead", "list", "--json"))
        return found

    async def wait_letters(self, is_so: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        """Until the dead letters, as the list has them, are so."""
        end_s = time.monotonic() + SEEN_S_MAX
        while True:
            found: list[dict[str, Any]] = []

            def keep(letter: DeadLetter, found: list[dict[str, Any]] = found) -> Verdict:
                found.append(row_of(letter))
                return Verdict.KEEP

            await open_dead_letters(self.config).walk(keep)
            if is_so(found):
                return found
            assert time.monotonic() < end_s, found
            await asyncio.sleep(0.1)


def kinds(answer: dict[str, Any]) -> list[str]:
    """What happened, by name."""
    return [hop["kind"] for hop in answer["hops"]]


@asynccontextmanager
async def logged_in(node: Chatd, user: str, password: str) -> AsyncIterator[RawClient]:
    """A session that acknowledges nothing by itself."""
    async with connected(node.tcp_port) as client:
        answer = await client.hello(user, password, device=DEVICE, scheme=Scheme.PASSWORD)
        assert isinstance(answer, Welcome), answer
        yield client


async def send(client: RawClient, cid: int, to: str, payload: bytes = b"tea?", ttl_s: int | None = None) -> None:
    """Until it is accepted, with a receipt asked for."""
    await client.send(Send(cid, int(Flag.RECEIPT), to, payload, ttl_s))
    accepted = await client.next(Accepted)
    assert cid in accepted.cids, accepted
