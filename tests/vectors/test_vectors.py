"""The golden vectors, fed whole, byte by byte, at every cut, and with a tail, to our own two sides."""

from __future__ import annotations

import json
from typing import Any

import pytest

from protocol.codec import encode
from protocol.connection import OUR_PREFACE, ClientConnection, Closing, Connection, Event, Refused, ServerConnection
from protocol.messages import Ack, Drained, Error
from protocol.states import State
from protocol.wire import Limits, Type
from tests.vectors import session
from tests.vectors.case import Json, message_to_json
from tests.vectors.make_vectors import VECTORS, all_cases, stale
from tests.vectors.valid import HELLO, WELCOME

CUTS_MAX = 600  # at every cut up to so many bytes; longer vectors are cut in as many places
FILES = [row for name in ("valid", "invalid") for row in json.loads((VECTORS / f"{name}.json").read_text("utf-8"))]
every_vector = pytest.mark.parametrize("vector", FILES, ids=[row["name"] for row in FILES])


def connection_in(vector: Json) -> Connection:
    """A connection of the side that reads, in the state in which it reads."""
    state = vector["state"]
    if vector["side"] == "client":
        client = ClientConnection(HELLO, now_s=0.0, login_s_max=10.0)
        if state == "open":
            client.receive(encode(WELCOME), 0.0)
        client.bytes_to_send()
        assert client.state is State(state)
        return client
    server = ServerConnection(Limits(**vector.get("limits", {})), now_s=0.0)
    if state != "preface":
        server.receive(OUR_PREFACE, 0.0)
    if state in ("login", "open"):
        server.receive(encode(HELLO), 0.0)
    if state == "open":
        server.welcome(WELCOME, 0.0)
    server.bytes_to_send()
    assert server.state is State(state)
    return server


def event_to_json(event: Event) -> Json:
    """An event as the vectors write it."""
    if isinstance(event, Closing):
        return {"closing": int(event.code)}
    if isinstance(event, Refused):
        return {"refused": int(event.code), "ref": event.ref}
    return message_to_json(event)


def answers_of(connection: Connection) -> list[Json]:
    """What was queued, as the vectors write it; `limit` only where there is one."""
    data = b"".join(connection.bytes_to_send())
    if data == OUR_PREFACE:
        return [{"preface": data.hex()}]
    out: list[Json] = []
    for message in session.said_in(data):
        if not isinstance(message, Error):
            out.append(message_to_json(message))
            continue
        answer: Json = {"message": "ERROR", "ref": message.ref, "code": message.code, "processed": message.processed}
        out.append({**answer, "limit": message.limit} if message.limit else answer)
    return out


def read_in(vector: Json, pieces: list[bytes]) -> Json:
    """What a vector's bytes lead to when they come in these pieces."""
    connection = connection_in(vector)
    events = [event for piece in pieces for event in connection.receive(piece, 1.0)]
    answers = answers_of(connection)
    return {"events": [event_to_json(e) for e in events], "answers": answers, "state": connection.state.value}


@every_vector
def test_a_vector_is_read_whole(vector: Json) -> None:
    """[CHAT-170] for bytes that come in one read.

    The vectors prove [CHAT-2] [CHAT-4] [CHAT-5] (preface); [CHAT-10] [CHAT-12] [CHAT-13] [CHAT-14] [CHAT-16] [CHAT-17]
    (heads); [CHAT-30] [CHAT-31] [CHAT-32] [CHAT-33] [CHAT-34] [CHAT-35] [CHAT-36] [CHAT-37] [CHAT-38] (bodies);
    [CHAT-22] [CHAT-60] [CHAT-61] [CHAT-64] (turns); [CHAT-73] [CHAT-90] [CHAT-141].
    """
    assert read_in(vector, [bytes.fromhex(vector["hex"])]) == vector["expect"]


@every_vector
def test_a_vector_is_read_byte_by_byte(vector: Json) -> None:
    """[CHAT-170] [CHAT-15] for bytes that come one at a time."""
    data = bytes.fromhex(vector["hex"])
    assert read_in(vector, [data[at : at + 1] for at in range(len(data))]) == vector["expect"]


@every_vector
def test_a_vector_is_read_once_and_whole_whatever_the_cut(vector: Json) -> None:
    """[CHAT-170] [CHAT-15] for bytes that come in two reads, cut at every place."""
    data = bytes.fromhex(vector["hex"])
    step = 1 + len(data) // CUTS_MAX
    for cut in range(0, len(data) + 1, step):
        assert read_in(vector, [data[:cut], data[cut:]]) == vector["expect"], f"cut at {cut}"


def takes_a_tail(vector: Json) -> bool:
    """Not where the last frame is not whole, and not before a session, where the tail would be out of turn."""
    is_cut = vector["name"].startswith(("cut_", "preface_cut", "oversize_claim"))
    return not is_cut and vector["expect"]["state"] in ("open", "closed")


WITH_TAIL = [vector for vector in FILES if takes_a_tail(vector)]


@pytest.mark.parametrize("vector", WITH_TAIL, ids=[row["name"] for row in WITH_TAIL])
def test_a_vector_with_a_tail_reads_the_tail_or_is_closed(vector: Json) -> None:
    """[CHAT-170] [CHAT-64]: a closed connection reads nothing more; an open one that has whole frames reads on."""
    expect = vector["expect"]
    tail = Drained(77, 0) if vector["side"] == "client" else Ack(77, 0)
    got = read_in(vector, [bytes.fromhex(vector["hex"]) + encode(tail)])
    more = [message_to_json(tail)] if expect["state"] == "open" else []
    assert got == {**expect, "events": expect["events"] + more}


def test_the_files_are_what_the_case_files_and_the_code_make() -> None:
    """The vectors and the printed parts of SPEC.md are up to date: python -m tests.vectors.make_vectors."""
    assert [path.name for path in stale()] == []


def test_every_vector_has_its_own_name() -> None:
    """A name is how another implementation says which vector it fails."""
    names = [case.name for case in all_cases()]
    assert sorted(names) == sorted(set(names))


def test_every_message_type_has_a_vector() -> None:
    """[CHAT-170]"""
    seen = {event.get("message") for case in all_cases() for event in case.events}
    assert {type_.name for type_ in Type} <= seen


def test_the_worked_session_is_what_two_ends_say_to_each_other() -> None:
    """SPEC §13, played: each side reads what the other says, and may say what it says."""
    server = ServerConnection(Limits(), now_s=0.0)
    first, hello, *rest = session.STEPS
    assert first[1] is None
    assert hello[1] is not None
    client = ClientConnection(hello[1], now_s=0.0, login_s_max=10.0)
    assert server.receive(b"".join(client.bytes_to_send()), 0.0) == [hello[1]]
    spoken: list[Any] = []
    for speaker, message, _ in rest:
        assert message is not None
        mine, other = (client, server) if speaker == "client" else (server, client)
        if mine is server and server.state is State.LOGIN:
            server.welcome(message, 0.0)  # type: ignore[arg-type]
        else:
            mine.send(message)
        assert other.receive(b"".join(mine.bytes_to_send()), 0.0) == [message]
        spoken.append(message)
    assert server.is_over
    assert client.is_over
