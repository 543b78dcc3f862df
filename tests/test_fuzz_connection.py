"""A hundred thousand frames, most of them wrong: no exception comes out of a connection, only declared outcomes.

Seeded: a red run prints its seed, and CHATD_FUZZ_SEED repeats it.
"""

from __future__ import annotations

import os
from random import Random

import pytest

from protocol.codec import encode
from protocol.connection import OUR_PREFACE, ClientConnection, Closing, Connection, Refused, ServerConnection
from protocol.errors import ERRORS, Code
from protocol.messages import Error
from protocol.states import State
from protocol.wire import HEAD, Limits
from tests.vectors.case import Case
from tests.vectors.make_vectors import all_cases
from tests.vectors.session import said_in
from tests.vectors.test_vectors import connection_in
from tests.vectors.valid import HELLO, WELCOME

SEED = int(os.environ.get("CHATD_FUZZ_SEED", "20260"))
FRAMES = 50_000  # for each side
DATA_BYTES_MAX = 4096
MUST_MEET = {
    "server": {
        Code.BAD_PREFACE, Code.VERSION_UNSUPPORTED, Code.FRAME_MALFORMED, Code.BODY_MALFORMED, Code.FRAME_TOO_LARGE,
        Code.OUT_OF_TURN, Code.LOGIN_REQUIRED, Code.UNSUPPORTED, Code.TOO_LARGE,
    },
    "client": {
        Code.BAD_PREFACE, Code.VERSION_UNSUPPORTED, Code.FRAME_MALFORMED, Code.BODY_MALFORMED, Code.FRAME_TOO_LARGE,
        Code.OUT_OF_TURN, Code.LOGIN_REQUIRED,
    },
}  # fmt: skip
EDGES = [0, 1, 0x7F, 0x80, 0x90, 0x9F, 0xC0, 0xC1, 0xC4, 0xC6, 0xC7, 0xD4, 0xDB, 0xDD, 0xDF, 0xFF]


def mutated(random: Random, data: bytes) -> bytes:
    """The data with a few bytes flipped, put in, left out, repeated, or its head made to lie."""
    out = bytearray(data)
    for _ in range(random.choice((0, 0, 1, 1, 2, 5))):
        at = random.randrange(len(out) + 1)
        match random.randrange(6):
            case 0 if at < len(out):
                out[at] ^= 1 << random.randrange(8)
            case 1 if at < len(out):
                out[at] = random.choice(EDGES)
            case 2:
                out[at:at] = random.randbytes(random.randrange(1, 5))
            case 3:
                del out[at : at + random.randrange(1, 5)]
            case 4:
                out += out[at : at + 32]
            case 5 if len(out) >= 4:
                out[0:4] = random.choice((0, 1, 64, 4097, 65536, 1 << 20, (1 << 20) + 1, 2**32 - 1)).to_bytes(4, "big")
    return bytes(out[:DATA_BYTES_MAX])


def with_true_length(data: bytes) -> bytes:
    """The head of the first frame made to fit, so that the mutation reaches the body."""
    if len(data) < HEAD.size:
        return data
    return (len(data) - HEAD.size).to_bytes(4, "big") + data[4:]


def pieces(random: Random, data: bytes) -> list[bytes]:
    """The data cut at random."""
    at = random.randrange(len(data) + 1) if data else 0
    return [data] if random.random() < 0.5 else [data[:at], data[at:]]


def check(connection: Connection, events: list[object]) -> None:
    """Only what is declared: messages, refusals of codes that stay open, and at most one Closing, as the last."""
    for event in events[:-1]:
        assert not isinstance(event, Closing)
    for event in events:
        if isinstance(event, Refused):
            assert not ERRORS[event.code].closes
    if events and isinstance(events[-1], Closing):
        assert connection.state is State.CLOSED
        assert events[-1].code in ERRORS


def check_answers(connection: Connection) -> None:
    """A server answers with ERRORs of the registry or with its preface; every answer is a frame that can be read."""
    data = b"".join(connection.bytes_to_send())
    if data == OUR_PREFACE:
        return
    for message in said_in(data):
        if isinstance(message, Error):
            assert message.code in set(Code)


@pytest.mark.parametrize("side", ["server", "client"])
def test_no_bytes_of_a_peer_bring_an_exception_out_of_a_connection(side: str) -> None:
    """[CHAT-39] [CHAT-37], for FRAMES mutated vectors and sessions, several in a row on one connection."""
    random = Random(f"{SEED} {side}")
    cases = [case for case in all_cases() if case.side == side and case.data]
    print(f"CHATD_FUZZ_SEED={SEED}")
    met: set[Code] = set()
    connection = start(random.choice(cases))
    for _ in range(FRAMES):
        if connection.is_over or random.random() < 0.05:
            connection = start(random.choice(cases))
        data = mutated(random, random.choice(cases).data)
        if random.random() < 0.6:
            data = with_true_length(data)
        for piece in pieces(random, data):
            events = connection.receive(piece, 1.0)
            check(connection, list(events))
            met |= {event.code for event in events if isinstance(event, (Closing, Refused))}
        check_answers(connection)
    assert met >= MUST_MEET[side], "the fuzz no longer reaches what it is there for"


def start(case: Case) -> Connection:
    """A connection as the case wants it, with little room, so that limits are met."""
    if case.side == "server" and case.state == "open":
        server = ServerConnection(Limits(body_bytes_max=512), now_s=0.0, preface=False)
        server.receive(encode(HELLO), 0.0)
        server.welcome(WELCOME, 0.0)
        server.bytes_to_send()
        return server
    return connection_in(case.to_json())


@pytest.mark.parametrize("seed", range(5))
def test_random_bytes_close_or_wait(seed: int) -> None:
    """[CHAT-2]: noise on the port, both sides."""
    random = Random(f"{SEED} noise {seed}")
    for _ in range(200):
        server = ServerConnection(Limits(), now_s=0.0, preface=random.random() < 0.5)
        client = ClientConnection(HELLO, now_s=0.0, login_s_max=10.0)
        for connection in (server, client):
            check(connection, list(connection.receive(random.randbytes(random.randrange(1, 200)), 0.0)))
