"""One chatd with made-up people in it: tokens of every kind, and two bystanders who must not notice what others do."""

from __future__ import annotations

import itertools
import json
import time
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import jwt

from bench.processes import Chatd
from bench.tokens import KID, Mint
from protocol.messages import Accepted, Deliver, Send
from tests.faults.raw_client import RawClient, session

LEEWAY_S: Final = 30  # how far a minter's clock may be off
SPOKEN: Final = b"nobody but us two reads this"
_numbers = itertools.count()


class House:
    """A running chatd and the key that its tokens are signed with."""

    def __init__(self, server: Chatd, mint: Mint) -> None:
        self.server = server
        self.mint = mint
        keys = tomllib.loads(mint.path.read_text())
        self.key: str = keys["keys"][KID]["secret"]

    @property
    def port(self) -> int:
        """Where frames are taken."""
        return self.server.tcp_port

    def new_name(self, stem: str = "eve") -> str:
        """A user that nobody has seen yet."""
        return f"{stem}{next(_numbers)}"

    def signed(
        self, user: str, *, alg: str | None = "HS256", kid: str = KID, key: str | None = None, **claims: Any
    ) -> str:
        """A token with these claims over the usual ones; a claim that is None is left out."""
        now_s = int(time.time())
        whole = {"sub": user, "aud": "chatd", "iat": now_s, "exp": now_s + 3600, **claims}
        said = {name: value for name, value in whole.items() if value is not None}
        return jwt.encode(said, self.key if key is None else key, algorithm=alg, headers={"kid": kid})

    @asynccontextmanager
    async def bystanders(self) -> AsyncIterator[None]:
        """Two who talk before and after, over the same two connections."""
        names = self.new_name("carol"), self.new_name("dave")
        carol_token, dave_token = (self.mint.token(name) for name in names)
        async with session(self.port, names[0], carol_token) as carol, session(self.port, names[1], dave_token) as dave:
            await _say(carol, dave, names[1], 1)
            yield
            await _say(carol, dave, names[1], 2)

    def log_lines(self) -> list[dict[str, Any]]:
        """The log. Every line is one JSON object of printable characters, whatever anybody was called."""
        lines = []
        for line in self.server.log_path.read_bytes().decode().splitlines():
            assert line.isprintable(), line
            lines.append(json.loads(line))
            assert isinstance(lines[-1], dict), line
        return lines

    def check_log(self) -> None:
        """Nothing went wrong on our side, and nobody's words or tokens stand in it."""
        for line in self.log_lines():
            assert line["level"] not in ("error", "critical"), line
            assert "exception" not in line, line
        text = self.server.log_path.read_text()
        assert SPOKEN.decode() not in text
        assert self.key not in text
        assert "Traceback" not in text


async def _say(carol: RawClient, dave: RawClient, to: str, cid: int) -> None:
    await carol.send(Send(cid, 0, to, SPOKEN))
    assert await carol.next(Accepted) == Accepted(cid, 0, (cid,))
    heard = await dave.next(Deliver)
    assert (heard.ref, heard.payload) == (cid, SPOKEN)
