"""Both sides of a connection, without I/O: what the vectors cannot say (time, our own misuse, our own preface)."""

from __future__ import annotations

import pytest

from protocol.codec import encode
from protocol.connection import OUR_PREFACE, ClientConnection, Closing, OutOfTurn, Refused, ServerConnection
from protocol.errors import ERRORS, Code
from protocol.messages import Accepted, Ack, Bye, Error, Message, Ping, Pong, Send
from protocol.states import State
from protocol.wire import DETAIL_BYTES_MAX, Limits, Processed
from tests.vectors.session import said_in
from tests.vectors.valid import HELLO, WELCOME

LIMITS = Limits(keepalive_s=30.0, login_s_max=10.0)
WELCOME_30 = WELCOME._replace(keepalive_ms=30_000)


def server_in(state: State, now_s: float = 0.0) -> ServerConnection:
    server = ServerConnection(LIMITS, now_s=now_s)
    if state is not State.PREFACE:
        server.receive(OUR_PREFACE, now_s)
    if state in (State.LOGIN, State.OPEN):
        server.receive(encode(HELLO), now_s)
    if state is State.OPEN:
        server.welcome(WELCOME_30, now_s)
    server.bytes_to_send()
    return server


def client_in(state: State, now_s: float = 0.0) -> ClientConnection:
    client = ClientConnection(HELLO, now_s=now_s, login_s_max=10.0)
    if state is State.OPEN:
        client.receive(encode(WELCOME_30), now_s)
    client.bytes_to_send()
    return client


def said(connection: ServerConnection | ClientConnection) -> list[Message]:
    return said_in(b"".join(connection.bytes_to_send()))


# --- the first flight


def test_the_first_flight_of_a_client_is_its_preface_and_hello() -> None:
    """[CHAT-1]"""
    client = ClientConnection(HELLO, now_s=0.0, login_s_max=10.0)
    assert b"".join(client.bytes_to_send()) == OUR_PREFACE + encode(HELLO)


def test_on_a_websocket_there_is_no_preface() -> None:
    """[CHAT-130], both sides."""
    client = ClientConnection(HELLO, now_s=0.0, login_s_max=10.0, preface=False)
    server = ServerConnection(LIMITS, now_s=0.0, preface=False)
    assert server.receive(b"".join(client.bytes_to_send()), 0.0) == [HELLO]


def test_a_server_that_accepts_the_preface_says_nothing_of_its_own() -> None:
    """[CHAT-3]"""
    server = ServerConnection(LIMITS, now_s=0.0)
    assert server.receive(OUR_PREFACE, 0.0) == []
    assert server.bytes_to_send() == []
    assert server.state is State.GREETING


def test_a_client_learns_from_the_servers_preface_which_version_it_speaks() -> None:
    """[CHAT-2] [CHAT-4], with the bytes of a real refusal."""
    server = ServerConnection(LIMITS, now_s=0.0)
    server.receive(b"CHTD\x09\x00\x00\x00", 0.0)
    client = client_in(State.LOGIN)
    assert client.receive(b"".join(server.bytes_to_send()), 0.0) == [
        Closing(Code.BAD_PREFACE, "the server speaks version 1.0, this is 1")
    ]
    assert client.bytes_to_send() == []


# --- time, on the server


@pytest.mark.parametrize("state", [State.GREETING, State.LOGIN])
def test_a_login_that_takes_too_long_is_told_and_closed(state: State) -> None:
    """[CHAT-70]"""
    server = server_in(state)
    assert server.next_deadline_s == 10.0
    assert server.tick(9.9) == []
    assert [event.code for event in server.tick(10.0) if isinstance(event, Closing)] == [Code.LOGIN_TIMEOUT]
    assert [message.code for message in said(server) if isinstance(message, Error)] == [Code.LOGIN_TIMEOUT]


def test_who_never_completes_the_preface_is_closed_without_a_word() -> None:
    """[CHAT-65]"""
    server = server_in(State.PREFACE)
    server.receive(b"CHT", 5.0)
    assert [event.code for event in server.tick(10.0) if isinstance(event, Closing)] == [Code.LOGIN_TIMEOUT]
    assert server.bytes_to_send() == []


def test_bytes_do_not_lengthen_the_login() -> None:
    """[CHAT-70]: one byte a second does not keep a connection that is not logged in."""
    server = server_in(State.GREETING)
    for second in range(10):
        server.receive(encode(HELLO)[second : second + 1], float(second))
    assert len(server.tick(10.0)) == 1


def test_a_client_that_is_silent_for_two_intervals_is_dead() -> None:
    """[CHAT-71]"""
    server = server_in(State.OPEN)
    server.receive(encode(Ping(0, 0)), 20.0)
    assert server.tick(60.0) == []
    assert server.next_deadline_s == 80.0
    assert server.tick(79.9) == []
    assert [event.code for event in server.tick(80.0) if isinstance(event, Closing)] == [Code.SILENT]


def test_any_byte_counts_as_life() -> None:
    """[CHAT-71]: also one of a frame that is not whole yet."""
    server = server_in(State.OPEN)
    server.receive(encode(Ping(0, 0))[:1], 59.0)
    assert server.tick(60.0) == []


# --- time, on the client


def test_a_client_pings_after_half_an_interval_with_its_position() -> None:
    """[CHAT-72]"""
    client = client_in(State.OPEN)
    client.position = 41
    assert client.next_deadline_s == 15.0
    assert client.tick(15.0) == []
    assert said(client) == [Ping(41, 0)]


def test_a_client_that_spoke_and_heard_does_not_ping() -> None:
    """[CHAT-72]"""
    client = client_in(State.OPEN)
    client.spoke(14.0)
    client.receive(encode(Accepted(1, 0, (1,))), 14.0)
    assert client.tick(15.0) == []
    assert client.bytes_to_send() == []


def test_a_client_that_only_speaks_pings_too() -> None:
    """[CHAT-72]: sending into a dead connection proves nothing."""
    client = client_in(State.OPEN)
    client.spoke(14.0)
    client.tick(15.0)
    assert said(client) == [Ping(0, 0)]


def test_a_silent_server_is_dead_after_two_intervals_and_pinged_before() -> None:
    """[CHAT-71] [CHAT-72]: driven by its deadlines alone."""
    client = client_in(State.OPEN)
    pings, now_s = 0, 0.0
    while not client.is_over:
        now_s = client.next_deadline_s
        events = client.tick(now_s)
        pings += len(said(client))
    assert [event.code for event in events if isinstance(event, Closing)] == [Code.SILENT]
    assert 60.0 <= now_s <= 67.5
    assert pings >= 2


def test_a_client_gives_up_a_login_that_takes_too_long() -> None:
    """[CHAT-70]"""
    client = client_in(State.LOGIN)
    assert [event.code for event in client.tick(10.0) if isinstance(event, Closing)] == [Code.LOGIN_TIMEOUT]
    assert client.bytes_to_send() == [], "[CHAT-63]: a client says no ERROR"


def test_a_client_answers_ping_with_its_position() -> None:
    """[CHAT-73]"""
    client = client_in(State.OPEN)
    client.position = 7
    assert client.receive(encode(Ping(9, 0)), 1.0) == [Ping(9, 0)]
    assert said(client) == [Pong(7, 0, known=False, time_ms=0)]


# --- what our own side may say


def test_our_own_words_out_of_turn_raise() -> None:
    """[CHAT-60] [CHAT-61]: a bug of ours is an exception, a fault of the peer is a value."""
    with pytest.raises(OutOfTurn):
        client_in(State.LOGIN).send(Send(1, 0, "bob", b"x"))
    with pytest.raises(OutOfTurn):
        client_in(State.OPEN).send(WELCOME)
    with pytest.raises(OutOfTurn):
        server_in(State.OPEN).send(Send(1, 0, "bob", b"x"))
    with pytest.raises(OutOfTurn):
        server_in(State.LOGIN).send_frames(b"")


def test_after_bye_nothing_is_sent_or_read() -> None:
    """[CHAT-64]"""
    client = client_in(State.OPEN)
    client.send(Bye(0, 0))
    assert client.receive(encode(Ping(0, 0)), 1.0) == []
    with pytest.raises(OutOfTurn):
        client.send(Ack(1, 0))
    assert said(client) == [Bye(0, 0)]


@pytest.mark.parametrize("code", list(Code), ids=lambda code: code.name)
def test_in_a_session_a_refusal_closes_when_the_registry_says_so(code: Code) -> None:
    """[CHAT-63], every code."""
    server = server_in(State.OPEN)
    outcome = server.refuse(5, code, processed=Processed.UNKNOWN, retry_after_ms=250)
    assert isinstance(outcome, Closing if ERRORS[code].closes else Refused)
    assert said(server) == [Error(5, 0, code, Processed.UNKNOWN, 250, ERRORS[code].english)]
    assert server.is_over == ERRORS[code].closes


@pytest.mark.parametrize("code", list(Code), ids=lambda code: code.name)
def test_before_welcome_every_error_closes_on_both_sides(code: Code) -> None:
    """[CHAT-62]: also BUSY, and a 3xx."""
    server, client = server_in(State.LOGIN), client_in(State.LOGIN)
    server.fail(code)
    client.receive(b"".join(server.bytes_to_send()), 0.0)
    assert server.is_over
    assert client.is_over


@pytest.mark.parametrize("code", list(Code), ids=lambda code: code.name)
def test_a_client_closes_on_the_codes_that_close(code: Code) -> None:
    """[CHAT-63] [CHAT-90]"""
    client = client_in(State.OPEN)
    client.receive(encode(Error(0, 0, code, 0, 0, "")), 1.0)
    assert client.is_over == ERRORS[code].closes


def test_a_long_detail_is_cut_within_its_bytes_and_between_characters() -> None:
    """SPEC §4: at most 512 bytes."""
    server = server_in(State.OPEN)
    server.refuse(1, Code.BAD_REQUEST, detail="x" + "é" * 1000)
    (error,) = said(server)
    assert isinstance(error, Error)
    assert error.detail == "x" + "é" * 255
    assert len(error.detail.encode()) <= DETAIL_BYTES_MAX


def test_the_limits_of_welcome_count_from_welcome_on() -> None:
    """[CHAT-10] [CHAT-12] [CHAT-13]: what closes before it is skipped behind it."""
    big = encode(Send(1, 0, "bob", bytes(70_000)))
    assert [e.code for e in server_in(State.GREETING).receive(big, 0.0) if isinstance(e, Closing)] == [
        Code.FRAME_TOO_LARGE
    ]
    assert server_in(State.OPEN).receive(big, 0.0) == [Refused(Code.TOO_LARGE, 1)]
