"""A client that shares no code with the server: tests/js, Node's own sockets and @msgpack/msgpack, written from SPEC.md.

It talks to the small server of the client's tests (nothing but the protocol) and to a real embedded chatd.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.client.small_server import small_server

HERE = Path(__file__).parent
VECTORS = HERE.parents[1] / "protocol" / "vectors"
NODE = shutil.which("node")
TALK_S_MAX = 30

pytestmark = pytest.mark.skipif(
    NODE is None or not (HERE / "node_modules").exists(), reason="needs Node.js and: npm ci --prefix tests/js"
)

Event = dict[str, Any]


@dataclass
class Place:
    """A server to talk to: its ports by transport, and the passwords of ann and bob."""

    ports: dict[str, int]
    secrets: dict[str, str]


@dataclass
class Talk:
    """What one run of talk.mjs printed, and its exit status."""

    status: int
    events: list[Event]

    def of(self, kind: str) -> list[Event]:
        return [event for event in self.events if event["event"] == kind]


@pytest.fixture(params=["small", "embedded"])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    if request.param == "small":
        async with small_server() as small:
            for user in ("ann", "bob"):
                small.queue(user)
            yield Place({"tcp": small.tcp_port, "ws": small.ws_port}, {"ann": "secret", "bob": "secret"})
    else:
        server = request.getfixturevalue("embedded_server")
        secrets = {user: server.add_user(user) for user in ("ann", "bob")}
        yield Place({"tcp": server.tcp_port, "ws": server.http_port}, secrets)


async def node(*arguments: str) -> tuple[int, str]:
    """Run a script of tests/js; its exit status and what it printed."""
    assert NODE is not None
    process = await asyncio.create_subprocess_exec(
        NODE, *arguments, cwd=HERE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), TALK_S_MAX)
    except BaseException:
        process.kill()
        await process.wait()
        raise
    assert err == b"", err.decode()
    assert process.returncode is not None
    return process.returncode, out.decode()


async def talk(place: Place, transport: str, user: str, *more: str, device: str = "node", secret: str = "") -> Talk:
    """One conversation of one device."""
    login = ("--user", user, "--device", device, "--secret", secret or place.secrets[user])
    where = ("--transport", transport, "--port", str(place.ports[transport]))
    status, out = await node("talk.mjs", *where, *login, *more)
    return Talk(status, [json.loads(line) for line in out.splitlines()])


def says(*lines: str, to: str) -> list[str]:
    """The arguments that say lines to a user."""
    return ["--to", to, *(word for line in lines for word in ("--say", line))]


async def test_the_node_client_comes_to_what_every_vector_of_its_side_expects() -> None:
    """[CHAT-170] [CHAT-15] [CHAT-39], by an implementation that is not ours."""
    status, out = await node("vectors.mjs", str(VECTORS / "valid.json"), str(VECTORS / "invalid.json"))
    mine = [
        vector
        for name in ("valid", "invalid")
        for vector in json.loads((VECTORS / f"{name}.json").read_text("utf-8"))
        if vector["side"] == "client"
    ]
    assert status == 0
    assert json.loads(out) == {"vectors": len(mine)}


@pytest.mark.parametrize("transport", ["tcp", "ws"])
async def test_what_is_sent_while_the_receiver_is_away_arrives_in_order_and_is_told_delivered(
    place: Place, transport: str
) -> None:
    """[CHAT-100] [CHAT-104] [CHAT-106] [CHAT-110] [CHAT-117], over TCP and over WebSocket [CHAT-130] [CHAT-131]."""
    other = "ws" if transport == "tcp" else "tcp"
    lines = ["tea?", "grüne Soße, 茶, 🍵", "x" * 20_000]
    sent = await talk(place, transport, "ann", *says(*lines, to="bob"))
    assert sent.status == 0, sent.events
    ids = [event["id"] for event in sorted(sent.of("accepted"), key=lambda event: lines.index(event["text"]))]

    received = await talk(place, other, "bob", "--expect", "3")
    assert received.status == 0, received.events
    assert [event["text"] for event in received.of("deliver")] == lines
    assert [event["id"] for event in received.of("deliver")] == ids
    assert [event["ref"] for event in received.of("deliver")] == [1, 2, 3]
    assert {event["sender"] for event in received.of("deliver")} == {"ann"}

    told = await talk(place, transport, "ann", "--receipts", "3")
    assert told.status == 0, told.events
    receipts = told.of("receipt")
    assert [id_ for receipt in receipts for id_ in receipt["ids"]] == ids
    assert {(receipt["peer"], receipt["status"]) for receipt in receipts} == {("bob", 1)}


async def test_two_node_clients_talk_to_each_other_at_the_same_time(place: Place) -> None:
    """[CHAT-100] [CHAT-104] [CHAT-113]: three lines each way, receipts and all, one over TCP and one over WebSocket."""
    expected = ["--expect", "3", "--receipts", "3"]
    ann, bob = await asyncio.gather(
        talk(place, "tcp", "ann", *says("a1", "a2", "a3", to="bob"), *expected),
        talk(place, "ws", "bob", *says("b1", "b2", "b3", to="ann"), *expected),
    )
    assert (ann.status, bob.status) == (0, 0), [*ann.events, *bob.events]
    assert [event["text"] for event in ann.of("deliver")] == ["b1", "b2", "b3"]
    assert [event["text"] for event in bob.of("deliver")] == ["a1", "a2", "a3"]


async def test_what_was_acknowledged_does_not_come_again(place: Place) -> None:
    """[CHAT-111] [CHAT-114]: the second session of the device begins behind the ACK of the first."""
    await talk(place, "tcp", "ann", *says("one", to="bob"))
    first = await talk(place, "tcp", "bob", "--expect", "1")
    await talk(place, "tcp", "ann", *says("two", to="bob"))
    second = await talk(place, "tcp", "bob", "--expect", "1")
    assert [event["text"] for event in first.of("deliver") + second.of("deliver")] == ["one", "two"]
    assert second.of("welcome")[0]["cursor"] == 1
    assert second.of("welcome")[0]["generation"] == first.of("welcome")[0]["generation"]


@pytest.mark.parametrize("transport", ["tcp", "ws"])
async def test_a_wrong_password_is_told_as_a_code_and_the_connection_closes(place: Place, transport: str) -> None:
    """[CHAT-62] [CHAT-63] and, over WebSocket, [CHAT-135]."""
    refused = await talk(place, transport, "ann", secret="wrong")
    assert refused.status == 1
    assert [event["code"] for event in refused.of("error")] == [201]
    assert refused.of("end")[0]["code"] == 201
