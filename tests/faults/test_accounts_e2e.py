"""Who may log in to a real chatd and who may stay: tokens of every wrong kind, passwords, accounts that come and go while
it runs."""

from __future__ import annotations

import asyncio
import subprocess
import time
from typing import Any, Final

import pytest

from protocol.errors import ERRORS, Code
from protocol.messages import Accepted, Ack, Deliver, Error, Receipt, Send, Welcome
from protocol.wire import SECRET_BYTES_MAX, Flag, Scheme, Status
from tests.faults.house import LEEWAY_S, House
from tests.faults.raw_client import connected, session

HOUR_S: Final = 3600
GUESSES: Final = 12

WRONG_CLAIMS: Final[dict[str, tuple[dict[str, Any], Code]]] = {
    "another audience": ({"aud": "billing"}, Code.TOKEN_FOREIGN),
    "no audience": ({"aud": None}, Code.TOKEN_FOREIGN),
    "a key of another id": ({"kid": "theirs"}, Code.TOKEN_FOREIGN),
    "a key that is not ours": ({"key": "k" * 64}, Code.BAD_CREDENTIALS),
    "no signature": ({"alg": None, "key": ""}, Code.BAD_CREDENTIALS),
    "another algorithm": ({"alg": "HS512"}, Code.BAD_CREDENTIALS),
    "no end": ({"exp": None}, Code.BAD_CREDENTIALS),
    "an end that is text": ({"exp": "tomorrow"}, Code.BAD_CREDENTIALS),
    "nobody": ({"sub": ""}, Code.BAD_CREDENTIALS),
    "a subject with a line feed": ({"sub": "eve\nadmin"}, Code.BAD_CREDENTIALS),
    "another user": ({"sub": "mallory"}, Code.NOT_YOURS),
}


async def refused(house: House, user: str, secret: str, scheme: Scheme = Scheme.TOKEN) -> Code:
    """Log in; the code that the refusal has. The connection must close, and two bystanders notice nothing."""
    async with house.bystanders(), connected(house.port) as eve:
        answer = await eve.hello(user, secret, scheme=scheme)
        assert isinstance(answer, Error), answer
        assert await eve.rest() == []
        code = Code(answer.code)
        assert ERRORS[code].closes
        return code


async def logs_in(house: House, user: str, secret: str, scheme: Scheme) -> bool:
    async with connected(house.port) as someone:
        return isinstance(await someone.hello(user, secret, scheme=scheme), Welcome)


async def ctl(house: House, *words: str) -> str:
    return await asyncio.to_thread(house.server.ctl, *words)


# --- tokens


@pytest.mark.parametrize(("claims", "code"), WRONG_CLAIMS.values(), ids=WRONG_CLAIMS.keys())
async def test_a_token_with_something_wrong_about_it_is_refused(
    house: House, claims: dict[str, Any], code: Code
) -> None:
    user = house.new_name()
    assert await refused(house, user, house.signed(user, **claims)) == code


async def test_an_expired_token_is_told_apart_from_a_bad_one(house: House) -> None:
    user = house.new_name()
    token = house.signed(user, exp=int(time.time()) - LEEWAY_S - 1)
    assert await refused(house, user, token) == Code.TOKEN_EXPIRED


@pytest.mark.parametrize("claim", ["nbf", "iat"])
async def test_a_token_for_later_is_refused_now(house: House, claim: str) -> None:
    user = house.new_name()
    later: dict[str, Any] = {claim: int(time.time()) + HOUR_S}
    assert await refused(house, user, house.signed(user, **later)) == Code.BAD_CREDENTIALS


@pytest.mark.parametrize(
    "secret", ["", "x", "a.b.c", "é" * 9, "\0", "." * SECRET_BYTES_MAX, "eyJ.\n.\x1b[31m"], ids=ascii
)
async def test_what_is_no_token_is_refused(house: House, secret: str) -> None:
    assert await refused(house, "eve", secret) == Code.BAD_CREDENTIALS


async def test_a_token_whose_payload_was_changed_is_refused(house: House) -> None:
    head, _, sign = house.signed(house.new_name()).split(".")
    _, forged, _ = house.signed("admin").split(".")
    assert await refused(house, "admin", ".".join((head, forged, sign))) == Code.BAD_CREDENTIALS


async def test_a_token_names_its_user_when_hello_does_not(house: House) -> None:
    user, bob = house.new_name(), house.new_name("bob")
    async with (
        session(house.port, "", house.mint.token(user)) as eve,
        session(house.port, bob, house.mint.token(bob)) as listener,
    ):
        await eve.send(Send(1, 0, bob, b"it is me"))
        assert (await listener.next(Deliver)).sender == user


async def test_a_scheme_that_nobody_knows_is_refused(house: House) -> None:
    user = house.new_name()
    async with connected(house.port) as eve:
        answer = await eve.hello(user, house.mint.token(user), scheme=9)
        assert isinstance(answer, Error)
        assert answer.code == Code.BAD_CREDENTIALS


async def test_a_session_ends_when_its_token_does(house: House) -> None:
    user = house.new_name()
    token = house.signed(user, exp=int(time.time()) - LEEWAY_S + 2)  # good for a second or two
    async with house.bystanders(), session(house.port, user, token) as eve:
        assert (await eve.next(Error)).code == Code.TOKEN_EXPIRED
        assert await eve.rest() == []


# --- who exists


async def test_a_first_login_with_a_token_makes_the_user(house: House) -> None:
    ann, newcomer = house.new_name("ann"), house.new_name("new")
    async with session(house.port, ann, house.mint.token(ann)) as sender:
        await sender.send(Send(1, 0, newcomer, b"are you there?"))
        receipt = await sender.next(Receipt)
        assert (receipt.status, receipt.reason) == (Status.FAILED, Code.NO_SUCH_USER)
        async with session(house.port, newcomer, house.mint.token(newcomer)) as listener:
            await sender.send(Send(2, 0, newcomer, b"and now?"))
            heard = await listener.next(Deliver)
            assert (heard.ref, heard.payload) == (1, b"and now?")  # the first was never kept for later


async def test_a_refused_login_makes_no_user(house: House) -> None:
    ann, stranger = house.new_name("ann"), house.new_name("stranger")
    assert await refused(house, stranger, house.signed(stranger, aud="billing")) == Code.TOKEN_FOREIGN
    async with session(house.port, ann, house.mint.token(ann)) as sender:
        await sender.send(Send(1, 0, stranger, b"hi"))
        assert (await sender.next(Receipt)).reason == Code.NO_SUCH_USER


async def test_a_user_that_was_added_is_there_at_once_and_may_log_in_at_once(house: House) -> None:
    ann, bob = house.new_name("ann"), house.new_name("bob")
    async with session(house.port, ann, house.mint.token(ann)) as sender:
        password = await asyncio.to_thread(house.server.add_user, bob)
        async with connected(house.port) as listener:
            assert isinstance(await listener.hello(bob, password, scheme=Scheme.PASSWORD), Welcome)
        await sender.send(Send(1, 0, bob, b"welcome"))
        assert await sender.next(Accepted)
        assert not any(isinstance(message, Receipt) for message in await sender.still_works())
        async with connected(house.port) as listener:
            await listener.hello(bob, password, scheme=Scheme.PASSWORD)
            assert (await listener.next(Deliver)).payload == b"welcome"


# --- passwords


async def test_a_wrong_password_is_refused_as_an_unknown_user_is(house: House) -> None:
    user = house.new_name("pat")
    await asyncio.to_thread(house.server.add_user, user)
    async with house.bystanders(), connected(house.port) as known, connected(house.port) as unknown:
        answers = [
            await known.hello(user, "wrong", scheme=Scheme.PASSWORD),
            await unknown.hello(house.new_name("nobody"), "wrong", scheme=Scheme.PASSWORD),
        ]
        assert answers[0] == answers[1]  # the same bytes: who guesses learns no names
        assert isinstance(answers[0], Error)
        assert answers[0].code == Code.BAD_CREDENTIALS


async def test_a_changed_password_counts_at_once_and_ends_what_the_old_one_opened(house: House) -> None:
    user, new = house.new_name("pat"), "a new one, longer"
    old = await asyncio.to_thread(house.server.add_user, user)
    async with connected(house.port) as opened, session(house.port, user, house.mint.token(user), "other") as by_token:
        assert isinstance(await opened.hello(user, old, scheme=Scheme.PASSWORD), Welcome)
        await asyncio.to_thread(house.server.ctl, "user", "passwd", user, "--password-stdin", text=f"{new}\n")
        assert await refused(house, user, old, Scheme.PASSWORD) == Code.BAD_CREDENTIALS
        assert [it.code for it in await opened.rest() if isinstance(it, Error)] == [Code.REVOKED]
        assert await logs_in(house, user, new, Scheme.PASSWORD)
        await by_token.still_works()


async def test_who_guesses_is_slowed_down_and_the_true_user_gets_in_from_elsewhere(house: House) -> None:
    user = house.new_name("pat")
    password = await asyncio.to_thread(house.server.add_user, user)
    answers: list[Error] = []
    async with house.bystanders():
        for _ in range(GUESSES):
            async with connected(house.port, "127.0.0.66") as guesser:
                answer = await guesser.hello(user, "guess", scheme=Scheme.PASSWORD)
                assert isinstance(answer, Error)
                answers.append(answer)
    assert {answer.code for answer in answers} == {Code.BAD_CREDENTIALS, Code.RATE_LIMITED}
    assert all(answer.retry_after_ms > 0 for answer in answers if answer.code == Code.RATE_LIMITED)
    assert await logs_in(house, user, password, Scheme.PASSWORD)


# --- the end of an account


async def test_a_deleted_user_is_thrown_out_and_stays_out(house: House) -> None:
    user, ann = house.new_name("gone"), house.new_name("ann")
    password = await asyncio.to_thread(house.server.add_user, user)
    token = house.mint.token(user)
    async with house.bystanders(), session(house.port, user, token) as gone:
        await ctl(house, "user", "del", user)
        assert (await gone.next(Error)).code == Code.REVOKED
        assert await gone.rest() == []
    assert await refused(house, user, token) == Code.REVOKED
    assert await refused(house, user, password, Scheme.PASSWORD) == Code.BAD_CREDENTIALS
    async with session(house.port, ann, house.mint.token(ann)) as sender:
        await sender.send(Send(1, 0, user, b"farewell"))
        assert (await sender.next(Receipt)).reason == Code.NO_SUCH_USER
    with pytest.raises(subprocess.CalledProcessError):
        await ctl(house, "queue", user)


async def test_a_user_that_was_added_anew_gives_receipts_from_the_first_message_on(house: House) -> None:
    user, ann = house.new_name("back"), house.new_name("ann")
    async with session(house.port, ann, house.mint.token(ann)) as sender:
        for cid in (1, 2):
            password = await asyncio.to_thread(house.server.add_user, user)
            async with connected(house.port) as receiver:
                await receiver.hello(user, password, scheme=Scheme.PASSWORD)
                await sender.send(Send(cid, Flag.RECEIPT, user, b"seq 1 again"))
                assert (await receiver.next(Deliver)).ref == 1
                await receiver.send(Ack(1, 0))
                receipt = await sender.next(Receipt)
                assert (receipt.peer, receipt.status) == (user, Status.DELIVERED)
                assert int.from_bytes(receipt.ids[0][-7:], "big") == cid
            await ctl(house, "user", "del", user)


async def test_a_user_that_was_added_anew_finds_an_empty_queue(house: House) -> None:
    user, ann = house.new_name("back"), house.new_name("ann")
    await asyncio.to_thread(house.server.add_user, user)
    async with session(house.port, ann, house.mint.token(ann)) as sender:
        await sender.send(Send(1, 0, user, b"for the one before"))
        await sender.next(Accepted)
        await ctl(house, "user", "del", user)
        password = await asyncio.to_thread(house.server.add_user, user)
        async with connected(house.port) as listener:
            welcome = await listener.hello(user, password, scheme=Scheme.PASSWORD)
            assert isinstance(welcome, Welcome), welcome
            assert (welcome.ref, welcome.cursor) == (0, 0)
            await sender.send(Send(2, 0, user, b"for the one after"))
            assert (await listener.next(Deliver)).payload == b"for the one after"
