from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import replace
from typing import Any

import msgpack
import pytest

from chatd.listener import ListenerConfig
from chatd.ports import Refusal
from chatd.web.body import body_bytes_max_for, read_json, read_msgpack
from chatd.web.problem import STATUS_OF
from protocol.errors import ERRORS, Code
from protocol.wire import TTL_S_MAX, Flag
from tests.web.house import MESSAGE_ID, TOKEN, House, open_house
from tests.web.raw import Answer, connect, get, post

BEARER = f"Authorization: Bearer {TOKEN}"
JSON = "Content-Type: application/json"
MSGPACK = "Content-Type: application/msgpack"
BODY = b'{"to":"bob","text":"tea?"}'


async def ask(house: House, data: bytes) -> Answer:
    async with connect(house.http_port) as raw:
        return await raw.ask(data)


# --- POST /api/send


async def test_a_message_of_a_back_end_is_sent_and_its_id_comes_back(house: House) -> None:
    body = json.dumps({"to": "bob", "text": "tea? ☕", "ttl_s": 60, "receipt": True, "read_receipt": True}).encode()
    answer = await ask(house, post("/api/send", body, BEARER, JSON, "Idempotency-Key: order-7"))
    assert (answer.status, answer.fields) == (202, {"id": MESSAGE_ID.hex()})
    flags = Flag.RECEIPT | Flag.READ_RECEIPT
    assert house.desk.sent == [("ann", "bob", "tea? ☕".encode(), "order-7", flags, 60)]


async def test_bytes_are_sent_as_base64_or_as_msgpack(house: House) -> None:
    blob = bytes(range(256))
    as_json = json.dumps({"to": "bob", "payload_b64": b64encode(blob).decode()}).encode()
    as_msgpack = msgpack.packb({"to": "bob", "payload": blob})
    assert (await ask(house, post("/api/send", as_json, BEARER, f"{JSON}; charset=utf-8"))).status == 202
    assert (await ask(house, post("/api/send", as_msgpack, BEARER, MSGPACK))).status == 202
    assert [sent.payload for sent in house.desk.sent] == [blob, blob]


async def test_every_request_without_a_key_gets_one_of_its_own(house: House) -> None:
    for _ in range(2):
        await ask(house, post("/api/send", BODY, BEARER, JSON))
    one, other = house.desk.sent
    assert one.key != other.key
    assert len(one.key) == 32


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "application/json"),
        ("Accept: */*", "application/json"),
        ("Accept: application/msgpack", "application/msgpack"),
        ("Accept: application/json;q=0.5, application/x-msgpack", "application/msgpack"),
        ("Accept: application/json, application/msgpack", "application/json"),
        ("Accept: application/msgpack;q=x", "application/json"),
    ],
)
async def test_the_answer_has_the_type_that_is_asked_for(house: House, accept: str, content_type: str) -> None:
    answer = await ask(house, post("/api/send", BODY, BEARER, JSON, accept or "A: b"))
    assert answer.headers["content-type"] == content_type
    if content_type == "application/msgpack":
        assert msgpack.unpackb(answer.body) == {"id": MESSAGE_ID.hex()}


@pytest.mark.parametrize("key", ["", "x" * 129, "caf\u00e9", "a\tb"])
async def test_a_bad_idempotency_key_is_refused(house: House, key: str) -> None:
    answer = await ask(house, post("/api/send", BODY, BEARER, JSON, f"Idempotency-Key: {key}"))
    assert (answer.status, answer.fields["code"]) == (400, Code.BAD_REQUEST)
    assert house.desk.sent == []


@pytest.mark.parametrize("kind", ["Content-Type: text/plain", "Content-Type: application/json, text/plain", "A: b"])
async def test_another_content_type_is_refused(house: House, kind: str) -> None:
    answer = await ask(house, post("/api/send", BODY, BEARER, kind))
    assert (answer.status, answer.headers["accept-post"]) == (415, "application/json, application/msgpack")


BAD_JSON: list[tuple[bytes, Code]] = [
    (b"", Code.BAD_REQUEST),
    (b"[]", Code.BAD_REQUEST),
    (b"null", Code.BAD_REQUEST),
    (b"{", Code.BAD_REQUEST),
    (b'{"to":"bob","text":"\xff"}', Code.BAD_REQUEST),
    (b'\xef\xbb\xbf{"to":"bob","text":"a"}', Code.BAD_REQUEST),
    (b'{"to":"bob","text":"a"} x', Code.BAD_REQUEST),
    (b'{"to":"bob","to":"eve","text":"a"}', Code.BAD_REQUEST),
    (b'{"to":"bob","text":"a","tttl":1}', Code.BAD_REQUEST),
    (b'{"to":"bob","text":"a","payload":"a"}', Code.BAD_REQUEST),
    (b'{"to":"bob","text":"a","payload_b64":"YQ=="}', Code.BAD_REQUEST),
    (b'{"to":"bob"}', Code.BAD_REQUEST),
    (b'{"text":"a"}', Code.BAD_REQUEST),
    (b'{"to":7,"text":"a"}', Code.BAD_REQUEST),
    (b'{"to":"Bob","text":"a"}', Code.BAD_RECEIVER),
    (b'{"to":"bob\\u0000","text":"a"}', Code.BAD_RECEIVER),
    (b'{"to":"bob","text":7}', Code.BAD_REQUEST),
    (b'{"to":"bob","text":"\\ud800"}', Code.BAD_REQUEST),
    (b'{"to":"bob","payload_b64":"YQ"}', Code.BAD_REQUEST),
    (b'{"to":"bob","payload_b64":"Y Q=="}', Code.BAD_REQUEST),
    (b'{"to":"bob","payload_b64":7}', Code.BAD_REQUEST),
    (b'{"to":"bob","text":"a","ttl_s":0}', Code.BAD_REQUEST),
    (b'{"to":"bob","text":"a","ttl_s":1.0}', Code.BAD_REQUEST),
    (b'{"to":"bob","text":"a","ttl_s":true}', Code.BAD_REQUEST),
    (b'{"to":"bob","text":"a","ttl_s":NaN}', Code.BAD_REQUEST),
    (b'{"to":"bob","text":"a","ttl_s":%d}' % (TTL_S_MAX + 1), Code.BAD_REQUEST),
    (b'{"to":"bob","text":"a","ttl_s":%s}' % (b"9" * 5000), Code.BAD_REQUEST),
    (b'{"to":"bob","text":"a","receipt":1}', Code.BAD_REQUEST),
    (b'{"to":"bob","text":"a","receipt":null}', Code.BAD_REQUEST),
    (b'{"to":' + b"[" * 50_000, Code.BAD_REQUEST),
    (b'{"to":"bob","text":"%s"}' % (b"x" * 101), Code.TOO_LARGE),
]


@pytest.mark.parametrize(("body", "code"), BAD_JSON, ids=range(len(BAD_JSON)))
def test_a_bad_json_body_has_its_code(body: bytes, code: Code) -> None:
    with pytest.raises(Refusal) as caught:
        read_json(body, "ann", "key", 100)
    assert caught.value.code == code
    assert len(caught.value.detail) < 300


def packed(value: Any) -> bytes:
    out: bytes = msgpack.packb(value)
    return out


GOOD = {"to": "bob", "payload": b"a"}
BAD_MSGPACK: list[tuple[bytes, Code]] = [
    (b"", Code.BAD_REQUEST),
    (b"\xc1", Code.BAD_REQUEST),
    (packed([]), Code.BAD_REQUEST),
    (packed(GOOD) + b"\xc0", Code.BAD_REQUEST),
    (packed(GOOD)[:-1], Code.BAD_REQUEST),
    (b"\x82\xa2to\xa3bob\xa2to\xa3eve", Code.BAD_REQUEST),
    (packed({**GOOD, "payload": "a"}), Code.BAD_REQUEST),
    (packed({**GOOD, "payload": [1]}), Code.BAD_REQUEST),
    (packed({**GOOD, "payload_b64": "YQ=="}), Code.BAD_REQUEST),
    (packed({**GOOD, "to": b"bob"}), Code.BAD_REQUEST),
    (packed({"to": "bob", 7: b"a"}), Code.BAD_REQUEST),
    (packed({**GOOD, "ttl_s": msgpack.ExtType(5, b"a")}), Code.BAD_REQUEST),
    (packed({**GOOD, "ttl_s": msgpack.Timestamp(5)}), Code.BAD_REQUEST),
    (b"\xdf\xff\xff\xff\xff", Code.BAD_REQUEST),
    (b"\x91" * 100_000, Code.BAD_REQUEST),
    (packed({**GOOD, "to": "b:b"}), Code.BAD_RECEIVER),
    (packed({**GOOD, "payload": bytes(101)}), Code.TOO_LARGE),
]


@pytest.mark.parametrize(("body", "code"), BAD_MSGPACK, ids=range(len(BAD_MSGPACK)))
def test_a_bad_msgpack_body_has_its_code(body: bytes, code: Code) -> None:
    with pytest.raises(Refusal) as caught:
        read_msgpack(body, "ann", "key", 100)
    assert caught.value.code == code


async def test_the_longest_payload_fits_as_base64_and_one_byte_more_is_too_large(house: House) -> None:
    longest = ListenerConfig().limits.body_bytes_max - 128
    for size, status in ((longest, 202), (longest + 1, 413)):
        body = json.dumps({"to": "b" * 64, "payload_b64": b64encode(bytes(size)).decode()}).encode()
        assert len(body) < body_bytes_max_for(ListenerConfig().limits.body_bytes_max)
        answer = await ask(house, post("/api/send", body, BEARER, JSON))
        assert answer.status == status


# --- who asks


@pytest.mark.parametrize(
    ("line", "status", "code"),
    [
        ("A: b", 401, Code.LOGIN_REQUIRED),
        ("Authorization: Basic YTpi", 401, Code.LOGIN_REQUIRED),
        ("Authorization: Bearer", 401, Code.LOGIN_REQUIRED),
        ("Authorization: Bearer wrong", 401, Code.BAD_CREDENTIALS),
        (f"Authorization: Bearer {'x' * 4000}", 401, Code.BAD_CREDENTIALS),
        (f"{BEARER}\r\nAuthorization: Bearer other", 401, Code.LOGIN_REQUIRED),
    ],
)
async def test_without_a_good_token_nothing_is_done(house: House, line: str, status: int, code: Code) -> None:
    for request in (post("/api/send", BODY, line, JSON), get("/api/users/ann/presence", line)):
        answer = await ask(house, request)
        assert (answer.status, answer.fields["code"]) == (status, code)
        assert answer.headers["www-authenticate"] == 'bearer realm="chatd"'
        assert "secret reason" not in answer.body.decode()
    assert house.desk.sent == []


async def test_too_many_logins_are_told_when_to_come_back(house: House) -> None:
    answer = await ask(house, get("/api/users/ann/presence", "Authorization: bearer slow-down"))
    assert (answer.status, answer.headers["retry-after"]) == (429, "2")
    assert answer.fields["retry_after_ms"] == 1500


# --- the other paths


async def test_presence_lists_the_sessions_of_a_user(house: House) -> None:
    answer = await ask(house, get("/api/users/bob%2B1/presence", BEARER))
    assert answer.fields == {"user": "bob+1", "sessions": [{"device": "phone", "node": "n1"}]}
    assert (await ask(house, get("/api/users/ghost/presence", BEARER))).fields["code"] == Code.NO_SUCH_USER
    assert (await ask(house, get("/api/users/Bob/presence", BEARER))).fields == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
    }


async def test_ready_means_that_every_part_is_up(house: House) -> None:
    assert (await ask(house, get("/readyz"))).fields == {"ready": True, "parts": {"redis": "up"}}
    house.desk.parts = {"redis": "up", "rabbitmq": "blocked"}
    answer = await ask(house, get("/readyz"))
    assert (answer.status, answer.fields["parts"]["rabbitmq"]) == (503, "blocked")
    assert (await ask(house, get("/livez"))).status == 200


async def test_metrics_are_what_the_node_says(house: House) -> None:
    answer = await ask(house, get("/metrics"))
    assert (answer.body, answer.headers["content-type"]) == (b"up 1\n", "text/plain; version=0.0.4")


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("DELETE", "/livez", 405, "get, head"),
        ("GET", "/api/send", 405, "post"),
        ("OPTIONS", "/api/users/bob/presence", 405, "get, head"),
        ("GET", "/", 404, None),
        ("GET", "/livez/", 404, None),
        ("GET", "/api/users/bob%00/presence", 404, None),
        ("GET", "/ws", 426, None),
    ],
)
async def test_a_wrong_path_or_method_is_told_apart(
    house: House, method: str, path: str, status: int, allow: str | None
) -> None:
    answer = await ask(house, get(path, method=method))
    assert (answer.status, answer.headers.get("allow")) == (status, allow)


# --- refusals of the node


@pytest.mark.parametrize("code", Code)
async def test_every_code_of_the_registry_is_a_problem_with_its_status(house: House, code: Code) -> None:
    house.desk.refusal = Refusal(code, "", 2001)
    answer = await ask(house, post("/api/send", BODY, BEARER, JSON))
    assert answer.status == STATUS_OF[code]
    assert answer.headers["retry-after"] == "3"
    assert answer.fields == {
        "type": f"urn:chatd:error:{int(code)}",
        "title": code.name,
        "status": STATUS_OF[code],
        "detail": ERRORS[code].english,
        "code": int(code),
        "retry_after_ms": 2001,
    }


async def test_a_bug_of_ours_is_500_and_tells_nothing(house: House) -> None:
    house.desk.refusal = ZeroDivisionError("the inside")
    answer = await ask(house, post("/api/send", BODY, BEARER, JSON))
    assert (answer.status, answer.fields["code"]) == (500, Code.INTERNAL)
    assert b"inside" not in answer.body


async def test_a_node_that_does_not_answer_in_time_is_busy() -> None:
    async with open_house(replace(ListenerConfig(), answer_s_max=0.05)) as house:
        house.desk.gate.clear()
        answer = await ask(house, post("/api/send", BODY, BEARER, JSON))
        assert (answer.status, answer.fields["code"]) == (503, Code.BUSY)
        assert "same key" in answer.fields["detail"]


async def test_requests_over_the_bound_are_told_busy() -> None:
    async with open_house(replace(ListenerConfig(), requests_max=1)) as house, connect(house.http_port) as first:
        house.desk.gate.clear()
        await first.send(post("/api/send", BODY, BEARER, JSON))
        async with connect(house.http_port) as second:
            while (answer := await second.ask(get("/livez"))).status == 200:
                pass
            assert answer.fields["code"] == Code.BUSY
        house.desk.gate.set()
        assert (await first.answer()).status == 202
