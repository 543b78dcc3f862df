"""Bytes that no good client sends, to a real chatd: each gets its code and the connection rule of that code, and two
bystanders notice nothing."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from typing import Final

import pytest

from protocol.codec import encode
from protocol.connection import OUR_PREFACE
from protocol.errors import ERRORS, Code
from protocol.frames import pack_frame
from protocol.messages import Accepted, Ack, Credit, Deliver, Error, Message, Ping, Read, Receipt, Send, Signal
from protocol.wire import (
    BODY_BYTES_HARD_MAX,
    BODY_BYTES_MAX_DEFAULT,
    CREDIT_MAX,
    GREETING_BODY_BYTES_MAX,
    HEAD,
    REF_MAX,
    Flag,
    Processed,
    Status,
    Type,
)
from tests.faults.bad_bytes import BAD_BODIES, BAD_HELLOS, BAD_NAMES
from tests.faults.house import House
from tests.faults.raw_client import connected, hello, is_preface, session

UNKNOWN_TYPE: Final = 77


def send_frame(body: bytes, cid: int = 1) -> bytes:
    return pack_frame(Type.SEND, 0, cid, body)


def claim(length: int, type_: int = Type.SEND, ref: int = 1) -> bytes:
    """A head without its body."""
    return HEAD.pack(length, type_, 0, 0, ref)


async def refused_before_login(house: House, *parts: bytes | Message) -> Error:
    """Say this on a new connection; the one ERROR that comes, behind which the server closes."""
    async with house.bystanders(), connected(house.port) as eve:
        await eve.send(*parts)
        [error] = await eve.rest()
        assert isinstance(error, Error)
        return error


async def told_in_session(house: House, *parts: bytes | Message) -> Error:
    """Say this in a session; the ERROR that comes. The connection must keep to the rule of its code."""
    user = house.new_name()
    async with house.bystanders(), session(house.port, user, house.mint.token(user)) as eve:
        await eve.send(*parts)
        error = await eve.next(Error)
        if ERRORS[Code(error.code)].closes:
            assert await eve.rest() == []
        else:
            assert await eve.still_works() == []
        return error


# --- before login


@pytest.mark.parametrize(
    "first",
    [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", bytes(8), b"CHTd" + bytes(4)],
    ids=["http", "tls", "zeros", "nearly"],
)
async def test_first_bytes_that_are_no_preface_are_answered_with_ours(house: House, first: bytes) -> None:
    async with house.bystanders(), connected(house.port) as eve:
        await eve.send(first)
        assert is_preface(await eve.bytes_to_the_end())


@pytest.mark.parametrize("major", [0, 2, 255])
async def test_another_major_version_is_told_which_one_is_spoken(house: House, major: int) -> None:
    async with house.bystanders(), connected(house.port) as eve:
        await eve.send(b"CHTD" + bytes((major, 0, 0, 0)), hello("eve", "x"))
        assert is_preface(await eve.bytes_to_the_end())


@pytest.mark.parametrize("kept", [0, 3, 8, 12, 24, 40])
async def test_a_login_that_is_cut_short_ends_without_a_word(house: House, kept: int) -> None:
    whole = OUR_PREFACE + encode(hello(house.new_name(), "x" * 40))
    async with house.bystanders(), connected(house.port) as eve:
        await eve.send(whole[:kept])
        eve.end()
        assert await eve.rest() == []


@pytest.mark.parametrize("length", [GREETING_BODY_BYTES_MAX + 1, BODY_BYTES_MAX_DEFAULT, 2**31, 2**32 - 1])
async def test_a_frame_over_the_greetings_limit_is_cut_at_its_head(house: House, length: int) -> None:
    error = await refused_before_login(house, OUR_PREFACE, claim(length, Type.HELLO, 0))
    assert error.code == Code.FRAME_TOO_LARGE


@pytest.mark.parametrize(
    "first",
    [
        Send(1, 0, "bob", b"hi"), Ack(0, 0), Credit(9, 0), Ping(0, 0), Signal(0, 0, "bob", b""), Read(1, 0, "bob", (bytes(16),)),
        pack_frame(UNKNOWN_TYPE, 0, 0, b""), pack_frame(UNKNOWN_TYPE, Flag.IGNORE, 0, b""), pack_frame(0, 0, 0, b""),
        pack_frame(Type.WELCOME, 0, 0, b""), pack_frame(Type.DELIVER, 0, 1, b"\xc1"), pack_frame(Type.BYE, 0, 0, b""),
    ],
    ids=lambda first: type(first).__name__ if isinstance(first, tuple) else f"type {first[4]} flags {first[5]}",
)  # fmt: skip
async def test_who_is_not_logged_in_may_say_nothing_but_hello(house: House, first: bytes | Message) -> None:
    assert (await refused_before_login(house, OUR_PREFACE, first)).code == Code.LOGIN_REQUIRED


async def test_a_message_sent_right_behind_hello_is_not_delivered(house: House) -> None:
    eve, bob = house.new_name(), house.new_name("bob")
    async with session(house.port, bob, house.mint.token(bob)) as listener:
        error = await refused_before_login(
            house, OUR_PREFACE, hello(eve, house.mint.token(eve)), Send(1, 0, bob, b"too soon")
        )
        assert error.code == Code.LOGIN_REQUIRED
        assert not any(isinstance(message, Deliver) for message in await listener.still_works())


@pytest.mark.parametrize("body", BAD_HELLOS.values(), ids=BAD_HELLOS.keys())
async def test_a_malformed_hello_is_refused(house: House, body: bytes) -> None:
    error = await refused_before_login(house, OUR_PREFACE, pack_frame(Type.HELLO, 0, 0, body))
    assert error.code == Code.BODY_MALFORMED


@pytest.mark.parametrize("name", BAD_NAMES[1:], ids=ascii)
@pytest.mark.parametrize("field", ["user", "device"])
async def test_nobody_logs_in_under_a_name_that_is_none(house: House, field: str, name: str) -> None:
    user, device = (name, "raw") if field == "user" else ("eve", name)
    async with connected(house.port) as eve:
        answer = await eve.hello(user, house.signed(user), device=device)
        assert isinstance(answer, Error)
        assert answer.code == Code.BAD_NAME
        assert await eve.rest() == []


# --- in a session


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES.keys())
async def test_a_malformed_body_ends_the_session(house: House, body: bytes) -> None:
    assert (await told_in_session(house, send_frame(body))).code == Code.BODY_MALFORMED


async def test_a_frame_over_the_limit_is_skipped_and_named(house: House) -> None:
    length = BODY_BYTES_MAX_DEFAULT + 1
    error = await told_in_session(house, claim(length, ref=5) + bytes(length))
    assert error[:4] == (5, 0, Code.TOO_LARGE, Processed.NO)
    assert error.limit == BODY_BYTES_MAX_DEFAULT


@pytest.mark.parametrize("length", [BODY_BYTES_HARD_MAX + 1, 2**31, 2**32 - 1])
async def test_a_frame_that_claims_more_than_is_ever_skipped_ends_the_session(house: House, length: int) -> None:
    assert (await told_in_session(house, claim(length))).code == Code.FRAME_TOO_LARGE


async def test_a_ref_that_not_every_language_can_hold_ends_the_session(house: House) -> None:
    assert (await told_in_session(house, claim(0, Type.PING, REF_MAX + 1))).code == Code.FRAME_MALFORMED


async def test_an_unknown_type_is_named_and_never_looked_into(house: House) -> None:
    error = await told_in_session(house, pack_frame(UNKNOWN_TYPE, 0, 7, b"\xc1"))
    assert (error.code, error.ref) == (Code.UNSUPPORTED, 7)


async def test_an_unknown_type_that_may_be_ignored_is_ignored(house: House) -> None:
    user = house.new_name()
    async with house.bystanders(), session(house.port, user, house.mint.token(user)) as eve:
        await eve.send(pack_frame(UNKNOWN_TYPE, Flag.IGNORE, 7, b"\xc1"))
        assert not any(isinstance(message, Error) for message in await eve.still_works())


@pytest.mark.parametrize(
    "parts",
    [[Deliver(1, 0, "bob", bytes(16), 0, b"forged")], [Accepted(1, 0, (1,))], [hello("eve", "x")]],
    ids=["deliver", "accepted", "hello again"],
)
async def test_what_only_the_server_may_say_ends_the_session(house: House, parts: Sequence[Message]) -> None:
    assert (await told_in_session(house, *parts)).code == Code.OUT_OF_TURN


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
async def test_a_receiver_that_is_no_name_is_refused_and_the_session_goes_on(house: House, name: str) -> None:
    user = house.new_name()
    async with session(house.port, user, house.mint.token(user)) as eve:
        await eve.send(Send(1, 0, name, b"hi"), Read(2, 0, name, (bytes(16),)), Signal(0, 0, name, b"hi"))
        for ref in (1, 2, 0):
            error = await eve.next(Error)
            assert (error.code, error.ref, error.processed) == (Code.BAD_RECEIVER, ref, Processed.NO)
        assert await eve.still_works() == []


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ([Send(1, 0, "bob", b"", 0)], Code.BAD_REQUEST),
        ([Send(1, 0, "bob", b"", 2_592_001)], Code.BAD_REQUEST),
        ([Send(0, 0, "bob", b"")], Code.BAD_CID),
        ([Ack(1, 0)], Code.BAD_ACK),
        ([Ack(REF_MAX, 0)], Code.BAD_ACK),
        ([Credit(CREDIT_MAX + 1, 0)], Code.BAD_ACK),
    ],
    ids=["ttl 0", "ttl too long", "cid 0", "ack of nothing", "ack of all", "credit without end"],
)
async def test_a_request_that_makes_no_sense_is_refused_and_the_session_goes_on(
    house: House, parts: Sequence[Message], code: Code
) -> None:
    assert (await told_in_session(house, *parts)).code == code


async def test_a_cid_that_was_used_before_is_refused_and_the_first_counts(house: House) -> None:
    eve, bob = house.new_name(), house.new_name("bob")
    async with (
        session(house.port, eve, house.mint.token(eve)) as sender,
        session(house.port, bob, house.mint.token(bob)) as listener,
    ):
        await sender.send(Send(5, 0, bob, b"first"), Send(5, 0, bob, b"second"), Send(4, 0, bob, b"third"))
        refs = [(await sender.next(Error)).ref for _ in range(2)]
        assert refs == [5, 4]
        assert (await listener.next(Deliver)).payload == b"first"
        assert not any(isinstance(message, Deliver) for message in await listener.still_works())


async def test_a_session_cut_in_the_middle_of_a_frame_delivers_what_stood_whole_before(house: House) -> None:
    eve, bob = house.new_name(), house.new_name("bob")
    async with house.bystanders(), session(house.port, bob, house.mint.token(bob)) as listener:
        async with session(house.port, eve, house.mint.token(eve)) as sender:
            whole = encode(Send(2, 0, bob, b"half"))
            await sender.send(Send(1, 0, bob, b"whole"), whole[:-1])
            sender.end()
            await sender.rest()
        assert (await listener.next(Deliver)).payload == b"whole"
        assert not any(isinstance(message, Deliver) for message in await listener.still_works())


async def test_whole_frames_before_a_faulty_one_count(house: House) -> None:
    eve, bob = house.new_name(), house.new_name("bob")
    async with (
        session(house.port, eve, house.mint.token(eve)) as sender,
        session(house.port, bob, house.mint.token(bob)) as listener,
    ):
        await sender.send(Send(1, 0, bob, b"counts"), claim(2**31), Send(2, 0, bob, b"does not"))
        assert Code.FRAME_TOO_LARGE in [message.code for message in await sender.rest() if isinstance(message, Error)]
        assert (await listener.next(Deliver)).payload == b"counts"
        assert not any(isinstance(message, Deliver) for message in await listener.still_works())


# --- a ghost


async def test_a_message_to_a_ghost_fails_and_makes_no_queue(house: House) -> None:
    user, ghost = house.new_name(), house.new_name("ghost")
    async with house.bystanders(), session(house.port, user, house.mint.token(user)) as eve:
        await eve.send(Send(1, 0, ghost, b"boo"), Signal(0, 0, ghost, b"boo"), Read(2, 0, ghost, (bytes(16),)))
        receipt = await eve.next(Receipt)
        assert (receipt.peer, receipt.status, receipt.reason) == (ghost, Status.FAILED, Code.NO_SUCH_USER)
        assert not any(isinstance(message, Error) for message in await eve.still_works())
    with pytest.raises(subprocess.CalledProcessError) as refused:
        house.server.ctl("queue", ghost)
    assert f"there is no user '{ghost}'" in refused.value.stderr


async def test_no_bad_name_ever_reached_the_log_unescaped(house: House) -> None:
    evil = "eve\n\x1b[2J{}\u2028"
    async with connected(house.port) as eve:
        await eve.hello(evil, "x")
    house.check_log()
