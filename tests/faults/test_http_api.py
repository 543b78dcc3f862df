"""The HTTP door of a real chatd: what back ends post is delivered once, and what is wrong with a request is said in
problem+json, while two bystanders on the other port notice nothing."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final

import msgpack
import pytest

from bench.cluster import Cluster
from bench.tokens import Mint
from protocol.errors import Code
from protocol.messages import Deliver, Receipt
from protocol.wire import BODY_BYTES_MAX_DEFAULT, Status
from tests.faults.house import House
from tests.faults.raw_client import session
from tests.faults.talk import talking, wait_ready
from tests.web.raw import Answer, connect, get, post

JSON: Final = "Content-Type: application/json"
MSGPACK: Final = "Content-Type: application/msgpack"


def bearer(token: str) -> str:
    return f"Authorization: Bearer {token}"


async def ask(port: int, request: bytes) -> Answer:
    async with connect(port) as raw:
        return await raw.ask(request)


async def send(house: House, token: str, fields: dict[str, Any], *lines: str) -> Answer:
    request = post("/api/send", json.dumps(fields).encode(), JSON, bearer(token), *lines)
    return await ask(house.server.http_port, request)


def check_problem(answer: Answer, status: int, code: Code | None = None) -> dict[str, Any]:
    """It is problem+json, and says the same as the status line."""
    assert answer.status == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.fields["status"] == status
    assert answer.fields.get("code") == code
    return answer.fields


# --- sending


@pytest.mark.parametrize("form", ["text", "payload_b64", "msgpack"])
async def test_what_a_back_end_posts_is_delivered_with_the_id_that_it_was_told(house: House, form: str) -> None:
    shop, bob = house.new_name("shop"), house.new_name("bob")
    token = house.mint.token(shop)
    async with session(house.port, bob, house.mint.token(bob)) as listener:
        if form == "msgpack":
            body = msgpack.packb({"to": bob, "payload": "grüße".encode()})
            request = post("/api/send", body, MSGPACK, bearer(token), "Accept: application/msgpack")
            answer = await ask(house.server.http_port, request)
            id_ = msgpack.unpackb(answer.body)["id"]
        else:
            answer = await send(house, token, {"to": bob, form: "grüße" if form == "text" else "Z3LDvMOfZQ=="})
            id_ = answer.fields["id"]
        assert answer.status == 202
        heard = await listener.next(Deliver)
        assert (heard.sender, heard.payload, heard.id.hex()) == (shop, "grüße".encode(), id_)


async def test_a_post_repeated_under_its_key_has_the_same_id_and_is_delivered_once(house: House) -> None:
    shop, bob = house.new_name("shop"), house.new_name("bob")
    token = house.mint.token(shop)
    fields = {"to": bob, "text": "once"}
    async with session(house.port, bob, house.mint.token(bob)) as listener:
        answers = await asyncio.gather(*(send(house, token, fields, "Idempotency-Key: order-7") for _ in range(5)))
        answers.append(await send(house, token, fields, "Idempotency-Key: order-7"))
        assert {answer.status for answer in answers} == {202}
        assert len({answer.fields["id"] for answer in answers}) == 1
        last = await send(house, token, {"to": bob, "text": "twice"}, "Idempotency-Key: order-8")
        heard = [await listener.next(Deliver), await listener.next(Deliver)]
        assert [message.payload for message in heard] == [b"once", b"twice"]
        assert heard[1].id.hex() == last.fields["id"] != heard[0].id.hex()


async def test_posts_without_a_key_are_each_delivered(house: House) -> None:
    shop, bob = house.new_name("shop"), house.new_name("bob")
    async with session(house.port, bob, house.mint.token(bob)) as listener:
        for _ in range(2):
            assert (await send(house, house.mint.token(shop), {"to": bob, "text": "again"})).status == 202
        assert [(await listener.next(Deliver)).ref for _ in range(2)] == [1, 2]


async def test_the_same_key_of_two_senders_is_two_messages(house: House) -> None:
    bob = house.new_name("bob")
    async with session(house.port, bob, house.mint.token(bob)) as listener:
        shops = [house.new_name("shop") for _ in range(2)]
        for shop in shops:
            await send(house, house.mint.token(shop), {"to": bob, "text": "mine"}, "Idempotency-Key: 1")
        assert [(await listener.next(Deliver)).sender for _ in shops] == shops


async def test_a_post_to_a_ghost_is_told_to_the_senders_devices(house: House) -> None:
    shop, ghost = house.new_name("shop"), house.new_name("ghost")
    token = house.mint.token(shop)
    async with house.bystanders(), session(house.port, shop, token) as desk:
        answer = await send(house, token, {"to": ghost, "text": "boo"})
        assert answer.status in (202, 404)
        receipt = await desk.next(Receipt)
        assert (receipt.peer, receipt.status, receipt.reason) == (ghost, Status.FAILED, Code.NO_SUCH_USER)
        assert [id_.hex() for id_ in receipt.ids] == [answer.fields["id"]]


# --- who asks


@pytest.mark.parametrize("line", ["X-Nothing: 1", "Authorization: Basic ZXZlOng=", "Authorization: Bearer "])
async def test_without_a_token_nothing_is_sent(house: House, line: str) -> None:
    request = post("/api/send", b'{"to": "bob", "text": "hi"}', JSON, line)
    answer = await ask(house.server.http_port, request)
    check_problem(answer, 401, Code.LOGIN_REQUIRED)
    assert answer.headers["www-authenticate"].startswith("bearer")


async def test_a_bad_token_is_refused_with_its_code(house: House) -> None:
    user = house.new_name()
    wrong = {
        house.signed(user, aud="billing"): Code.TOKEN_FOREIGN,
        house.signed(user, exp=1): Code.TOKEN_EXPIRED,
        house.signed(user, key="k" * 64): Code.BAD_CREDENTIALS,
        house.signed(user, alg=None, key=""): Code.BAD_CREDENTIALS,
        "x": Code.BAD_CREDENTIALS,
    }
    async with house.bystanders():
        for token, code in wrong.items():
            check_problem(await send(house, token, {"to": "bob", "text": "hi"}), 401, code)


async def test_nobody_sends_as_another_user(house: House) -> None:
    fields = {"to": "bob", "text": "hi", "sender": "admin"}
    answer = await send(house, house.mint.token(house.new_name()), fields)
    assert "sender" in check_problem(answer, 400, Code.BAD_REQUEST)["detail"]


# --- what is asked


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, Code.BAD_REQUEST),
        (b"{", 400, Code.BAD_REQUEST),
        (b"[]", 400, Code.BAD_REQUEST),
        (b"\xff\xfe", 400, Code.BAD_REQUEST),
        (b"[" * 50_000, 400, Code.BAD_REQUEST),
        (b'{"to": "bob", "to": "eve", "text": "hi"}', 400, Code.BAD_REQUEST),
        (b'{"to": "bob"}', 400, Code.BAD_REQUEST),
        (b'{"to": "bob", "text": "hi", "payload_b64": ""}', 400, Code.BAD_REQUEST),
        (b'{"to": "bob", "payload_b64": "%%"}', 400, Code.BAD_REQUEST),
        (b'{"to": "bob", "text": "\\ud800"}', 400, Code.BAD_REQUEST),
        (b'{"to": "bob", "text": "hi", "ttl_s": 0}', 400, Code.BAD_REQUEST),
        (b'{"to": "bob", "text": "hi", "ttl_s": NaN}', 400, Code.BAD_REQUEST),
        (b'{"to": "bob", "text": "hi", "ttl_s": true}', 400, Code.BAD_REQUEST),
        (b'{"to": "a:b\\u0000\\n", "text": "hi"}', 422, Code.BAD_RECEIVER),
        (b'{"to": "Bob", "text": "hi"}', 422, Code.BAD_RECEIVER),
        (b'{"to": "bob", "text": "' + b"x" * BODY_BYTES_MAX_DEFAULT + b'"}', 413, Code.TOO_LARGE),
    ],
    ids=lambda value: value[:40].decode(errors="replace") if isinstance(value, bytes) else None,
)
async def test_a_body_with_something_wrong_about_it_is_refused(
    house: House, body: bytes, status: int, code: Code
) -> None:
    token = house.mint.token(house.new_name())
    async with house.bystanders():
        request = post("/api/send", body, JSON, bearer(token))
        check_problem(await ask(house.server.http_port, request), status, code)


async def test_msgpack_is_held_to_the_same(house: House) -> None:
    token = house.mint.token(house.new_name())
    bodies = [b"\xc1", b"\x91" * 60_000, b"\xdf\xff\xff\xff\xff", b"\x82\xa2to\xa3bob\xa2to\xa3eve", msgpack.packb([])]
    async with house.bystanders():
        for body in bodies:
            request = post("/api/send", body, MSGPACK, bearer(token))
            check_problem(await ask(house.server.http_port, request), 400, Code.BAD_REQUEST)


async def test_wrong_paths_methods_and_types_are_told_apart(house: House) -> None:
    port, login = house.server.http_port, bearer(house.mint.token(house.new_name()))
    check_problem(await ask(port, get("/api/nothing", login)), 404)
    check_problem(await ask(port, get("/api/users/UPPER/presence", login)), 404)
    check_problem(await ask(port, get("/api/users/a%00b/presence", login)), 404)
    wrong = await ask(port, get("/api/send", login))
    check_problem(wrong, 405)
    assert wrong.headers["allow"] == "post"
    check_problem(await ask(port, post("/api/users/bob/presence", b"", login)), 405)
    check_problem(await ask(port, post("/api/send", b"to=bob", "Content-Type: text/plain", login)), 415)


# --- presence


async def test_presence_shows_the_devices_that_are_there(house: House) -> None:
    bob, ghost = house.new_name("bob"), house.new_name("ghost")
    login = bearer(house.mint.token(house.new_name()))

    async def sessions() -> list[dict[str, str]]:
        answer = await ask(house.server.http_port, get(f"/api/users/{bob}/presence", login))
        assert answer.status == 200
        found: list[dict[str, str]] = answer.fields["sessions"]
        return found

    async with session(house.port, bob, house.mint.token(bob), "phone"):
        assert await sessions() == [{"device": "phone", "node": "chatd"}]
    async with asyncio.timeout(5):
        while await sessions():  # he left: the register learns it in a moment
            continue
    check_problem(await ask(house.server.http_port, get(f"/api/users/{ghost}/presence", login)), 404, Code.NO_SUCH_USER)
    check_problem(await ask(house.server.http_port, get(f"/api/users/{bob}/presence")), 401, Code.LOGIN_REQUIRED)


# --- while the queue is away


@pytest.mark.timeout(150)
async def test_a_post_while_rabbitmq_is_away_is_told_busy_and_its_repeat_is_delivered_once(cluster: Cluster) -> None:
    node = cluster.nodes[0]
    mint = Mint(node.data_dir)
    async with talking(*cluster.nodes) as talk:
        body = json.dumps({"to": talk.bob_name, "text": "once", "receipt": True}).encode()
        login = bearer(mint.token(talk.ann_name))
        request = post("/api/send", body, JSON, login, "Idempotency-Key: 1")
        cluster.rabbit.kill9()
        await wait_ready(node, not_up="rabbitmq")
        refused = await ask(node.http_port, request)
        check_problem(refused, 503, Code.BUSY)
        assert int(refused.headers["retry-after"]) >= 1
        await cluster.rabbit.start_soon()
        for each in cluster.nodes:
            await wait_ready(each)
        first, again = await ask(node.http_port, request), await ask(node.http_port, request)
        assert (first.status, first.fields) == (202, again.fields)
        await talk.say(1)
        await talk.wait_all_heard((bytes.fromhex(first.fields["id"]), b"once"))
