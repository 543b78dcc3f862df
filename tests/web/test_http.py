from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from chatd.listener import ListenerConfig
from chatd.tcp import TransportLimits
from chatd.web.http import HttpConnection
from chatd.web.service import HttpLimits
from tests.web.house import TOKEN, House, open_house
from tests.web.raw import connect, get, head, post

BEARER = f"Authorization: Bearer {TOKEN}"
JSON = "Content-Type: application/json"
BODY = b'{"to":"bob","text":"tea?"}'
LIMITS = HttpLimits(body_bytes_max=1000)
QUICK = HttpLimits(body_bytes_max=1000, head_s_max=0.1, body_s_max=0.1, idle_s_max=0.1, flush_s_max=0.1)


def configured(limits: HttpLimits = LIMITS) -> ListenerConfig:
    return ListenerConfig(http_limits=limits, transport=TransportLimits(close_s_max=0.2))


async def test_requests_that_are_pipelined_are_answered_in_order(house: House) -> None:
    async with connect(house.http_port) as raw:
        stream = get("/livez") + post("/api/send", BODY, BEARER, JSON) + get("/nowhere") + get("/readyz")
        await raw.send(stream)
        assert [(await raw.answer()).status for _ in range(4)] == [200, 202, 404, 200]


async def test_a_request_cut_at_every_byte_is_answered_once(house: House) -> None:
    async with connect(house.http_port) as raw:
        for byte in post("/api/send", BODY, BEARER, JSON):
            await raw.send(bytes([byte]))
        assert (await raw.answer()).status == 202
        assert (await raw.ask(get("/livez"))).status == 200
    assert len(house.desk.sent) == 1


async def test_a_thousand_pipelined_requests_are_a_loop_and_no_recursion(house: House) -> None:
    async with connect(house.http_port) as raw:
        raw.writer.write(get("/livez") * 1000)
        for _ in range(1000):
            assert (await raw.answer()).status == 200


async def test_a_pipelined_request_waits_for_the_answer_before_it(house: House) -> None:
    house.desk.gate.clear()
    async with connect(house.http_port) as raw:
        await raw.send(post("/api/send", BODY, BEARER, JSON))
        await raw.send(get("/livez"))
        async with connect(house.http_port) as fence:
            assert (await fence.ask(get("/livez"))).status == 200
        house.desk.gate.set()
        assert [(await raw.answer()).status for _ in range(2)] == [202, 200]


async def test_head_is_get_without_the_body(house: House) -> None:
    async with connect(house.http_port) as raw:
        await raw.send(get("/livez", method="HEAD") + get("/livez"))
        answer = await raw.answer(has_body=False)
        assert (answer.status, answer.headers["content-length"]) == (200, "2")
        assert (await raw.answer()).body == b"ok"


async def test_a_chunked_body_is_taken(house: House) -> None:
    async with connect(house.http_port) as raw:
        start = get("/api/send", BEARER, JSON, "Transfer-Encoding: chunked", method="POST")
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (BODY[:5], BODY[5:]))
        assert (await raw.ask(start + chunks + b"0\r\n\r\n")).status == 202
    assert house.desk.sent[0].payload == b"tea?"


async def test_a_client_that_expects_100_is_told_to_go_on(house: House) -> None:
    async with connect(house.http_port) as raw:
        start = get("/api/send", BEARER, JSON, "Expect: 100-continue", f"Content-Length: {len(BODY)}", method="POST")
        assert (await raw.ask(start)).status == 100
        assert (await raw.ask(BODY)).status == 202


async def test_a_client_that_expects_100_for_too_much_is_told_at_once() -> None:
    async with open_house(configured()) as house, connect(house.http_port) as raw:
        start = get("/api/send", BEARER, JSON, "Expect: 100-continue", "Content-Length: 1001", method="POST")
        assert (await raw.ask(start)).status == 413


async def test_an_old_client_is_answered_and_closed(house: House) -> None:
    async with connect(house.http_port) as raw:
        assert (await raw.ask(head("GET /livez HTTP/1.0"))).body == b"ok"
        assert await raw.rest() == b""


async def test_a_client_that_half_closes_behind_its_request_still_hears(house: House) -> None:
    async with connect(house.http_port) as raw:
        raw.writer.write(post("/api/send", BODY, BEARER, JSON))
        raw.writer.write_eof()
        assert (await raw.answer()).status == 202
        assert await raw.rest() == b""


async def test_a_request_for_another_authority_in_absolute_form_is_ours(house: House) -> None:
    async with connect(house.http_port) as raw:
        assert (await raw.ask(get("http://elsewhere/livez?x"))).body == b"ok"


# --- hostile

REFUSED = [
    ("no length", get("/api/send", BEARER, JSON, method="POST"), 411),
    ("a body that claims too much", get("/api/send", "Content-Length: 1001", method="POST"), 413),
    ("a body that claims far too much", get("/api/send", f"Content-Length: {'9' * 5000}", method="POST"), 400),
    ("two lengths", get("/api/send", "Content-Length: 1", "Content-Length: 2", method="POST"), 400),
    ("a length and chunks", get("/api/send", "Content-Length: 5", "Transfer-Encoding: chunked", method="POST"), 400),
    ("a negative length", get("/api/send", "Content-Length: -1", method="POST"), 400),
    ("another coding", get("/api/send", "Transfer-Encoding: gzip", method="POST"), 501),
    ("no host", head("GET /livez HTTP/1.1"), 400),
    ("two hosts", get("/livez", "Host: b"), 400),
    ("a space before the colon", get("/livez", "A : b"), 400),
    ("a folded first line", head("GET /livez HTTP/1.1", " Host: a"), 400),
    ("a header with a NUL", get("/livez", "A: b\0c"), 400),
    ("no version", b"GET /livez\r\n\r\n", 400),
    ("frames instead of HTTP", b"CHTD\1\0\0\0" + b"\r\n\r\n", 400),
    ("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    (
        "a chunk that is too long",
        get("/x", "Transfer-Encoding: chunked", method="POST") + b"fff\r\n" + b"x" * 4095,
        413,
    ),
    ("a chunk without a length", get("/x", "Transfer-Encoding: chunked", method="POST") + b"zz\r\n", 400),
]


@pytest.mark.parametrize(("name", "data", "status"), REFUSED)
async def test_what_is_no_good_request_is_refused_and_closed(name: str, data: bytes, status: int) -> None:
    async with open_house(configured()) as house, connect(house.http_port) as raw:
        await raw.send(data + b"and some more that nobody wants to read" * 1000)
        answer = await raw.answer()
        assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json")
        assert answer.fields["status"] == status
        assert answer.headers["connection"] == "close"
        assert await raw.rest() == b""


async def test_headers_without_end_are_cut(house: House) -> None:
    async with connect(house.http_port) as raw:
        raw.writer.write(b"GET /livez HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * 20_000)
        assert (await raw.answer()).status == 431
        assert await raw.rest() == b""


async def test_a_flood_behind_a_refusal_is_cut() -> None:
    limits = TransportLimits(close_s_max=60.0, discard_bytes_max=100_000)
    async with open_house(replace(configured(), transport=limits)) as house, connect(house.http_port) as raw:
        with pytest.raises(ConnectionError):
            await raw.send_for_ever(get("/api/send", BEARER, method="POST"), bytes(65536))


SLOW = [
    ("nothing", b"", None),
    ("half a head", get("/livez")[:-2], 408),
    ("half a body", post("/api/send", BODY, BEARER, JSON)[:-1], 408),
    ("nothing behind an answer", get("/livez"), 200),
]


@pytest.mark.parametrize(("name", "data", "status"), SLOW)
async def test_a_client_that_stops_in_the_middle_is_cut_in_time(name: str, data: bytes, status: int | None) -> None:
    async with open_house(configured(QUICK)) as house, connect(house.http_port) as raw:
        await raw.send(data)
        if status is not None:
            assert (await raw.answer()).status == status
        assert await raw.rest() == b""


async def test_a_head_that_drips_behind_an_answer_has_its_own_deadline() -> None:
    limits = replace(QUICK, idle_s_max=60.0)
    async with open_house(configured(limits)) as house, connect(house.http_port) as raw:
        assert (await raw.ask(get("/livez"))).status == 200
        assert (await raw.ask(get("/livez")[:9])).status == 408


def only_guest(house: House) -> HttpConnection:
    (guest,) = house.listeners.census.guests
    assert isinstance(guest, HttpConnection)
    return guest


async def test_a_client_that_never_reads_its_answers_is_cut_and_holds_one_of_them() -> None:
    async with open_house(configured(QUICK)) as house, connect(house.http_port) as raw:
        house.desk.metrics_body = bytes(1_000_000)
        assert (await raw.ask(get("/livez"))).status == 200
        raw.pause_reading()
        transport = only_guest(house)._transport
        held = 0

        def measure() -> None:
            nonlocal held
            held = max(held, transport.get_write_buffer_size())

        with pytest.raises(ConnectionError):
            await raw.send_for_ever(b"", get("/metrics") * 100, measure)
        await house.listeners.census.wait_empty()
        assert held < 1_100_000


async def test_a_client_that_pipelines_on_while_it_is_answered_is_read_no_further(house: House) -> None:
    house.desk.gate.clear()
    async with connect(house.http_port) as raw:
        await raw.send(post("/api/send", BODY, BEARER, JSON))
        await house.desk.asked.wait()
        raw.writer.transport.set_write_buffer_limits(high=0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await raw.send_for_ever(b"", get("/livez") * 1000)
        assert len(only_guest(house)._h11.trailing_data[0]) < 200_000
        house.desk.gate.set()
        assert [(await raw.answer()).status for _ in range(1001)] == [202] + [200] * 1000


async def test_a_client_that_leaves_while_it_is_answered_harms_nobody(house: House) -> None:
    house.desk.gate.clear()
    async with connect(house.http_port) as raw:
        await raw.send(post("/api/send", BODY, BEARER, JSON))
        async with connect(house.http_port) as fence:
            assert (await fence.ask(get("/livez"))).status == 200
    house.desk.gate.set()
    await house.listeners.census.wait_empty()
    assert len(house.desk.sent) == 1
    async with connect(house.http_port) as raw:
        assert (await raw.ask(get("/livez"))).status == 200
