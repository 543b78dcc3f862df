from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
import websockets
from picows.picows import WSProtocol
from websockets.exceptions import ConnectionClosed, InvalidStatus

from chatd.listener import ListenerConfig
from chatd.tcp import TransportLimits
from chatd.web.guard import MessageLimits
from chatd.web.handshake import Admission
from chatd.web.service import HttpLimits
from protocol.errors import Code
from tests.web.house import House, open_house
from tests.web.raw import KEY, connect, connect_ws, frame, upgrade

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
QUICK = TransportLimits(write_high_bytes=16 * 1024, write_low_bytes=4096, stall_s_max=0.2, close_s_max=0.2)


def client(house: House, **options: object) -> websockets.connect:
    return websockets.connect(house.url, subprotocols=["chatd.1"], max_size=None, **options)  # type: ignore[arg-type, list-item]


# --- a client with manners


async def test_a_client_that_is_not_ours_talks_and_leaves(echo_house: House) -> None:
    async with client(echo_house) as ws:
        assert ws.subprotocol == "chatd.1"
        assert "sec-websocket-extensions" not in ws.response.headers
        for size in (1, 125, 126, 4096, 65535, 65536, 1_000_000):
            await ws.send(bytes([size % 251]) * size)
            assert await ws.recv() == bytes([size % 251]) * size
    caller = echo_house.hall.callers[0]
    assert (caller.preface, caller.peer.startswith("127.0.0.1:")) == (False, True)
    assert await caller.wait_lost() == "the peer closed: 1000"


async def test_what_is_written_is_one_binary_message(house: House) -> None:
    async with client(house) as ws:
        caller = await house.hall.caller()
        caller.wire.write([b"one ", b"two ", b"x" * 70_000])
        caller.wire.write([b"three"])
        assert await ws.recv() == b"one two " + b"x" * 70_000
        assert await ws.recv() == b"three"


async def test_fragments_arrive_as_one_message(echo_house: House) -> None:
    async with client(echo_house) as ws:
        await ws.send([b"a", b"b", b"c"])
        assert await ws.recv() == b"abc"


@pytest.mark.parametrize(("code", "close_code"), [(None, 1000), (Code.REPLACED, 4204), (Code.SLOW_READER, 4405)])
async def test_a_close_has_the_code_of_the_registry(house: House, code: Code | None, close_code: int) -> None:
    async with client(house) as ws:
        caller = await house.hall.caller()
        caller.wire.write([b"last words"])
        caller.wire.close(code, "enough")
        caller.wire.write([b"too late"])
        assert await ws.recv() == b"last words"
        with pytest.raises(ConnectionClosed) as caught:
            await ws.recv()
        assert caught.value.rcvd is not None
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (close_code, "enough")
    assert (await caller.wait_lost()).startswith("closed: ")


async def test_words_before_a_close_frame_in_the_same_read_are_heard_and_answered(echo_house: House) -> None:
    async with connect_ws(echo_house.http_port) as raw:
        await raw.send(frame(BINARY, b"bye") + frame(CLOSE, (3001).to_bytes(2, "big")))
        assert await raw.frame() == (BINARY, b"bye")
        assert await raw.close_code() == 3001
        assert await raw.rest() == b""


async def test_frames_that_came_with_the_handshake_are_heard(echo_house: House) -> None:
    words = [bytes([index]) * 3000 for index in range(4)]
    async with connect(echo_house.http_port) as raw:
        answer = await raw.ask(upgrade() + b"".join(frame(BINARY, word) for word in words))
        assert answer.status == 101
        heard = b""
        while len(heard) < 12_000:
            heard += (await raw.frame())[1]
        assert heard == b"".join(words)


async def test_frames_cut_at_every_byte_are_heard_once_and_whole(echo_house: House) -> None:
    async with connect_ws(echo_house.http_port) as raw:
        stream = frame(BINARY, b"a" * 130) + frame(PING, b"p") + frame(BINARY, b"b", fin=False) + frame(CONT, b"c")
        for at in range(len(stream)):
            await raw.send(stream[at : at + 1])
        caller = await echo_house.hall.caller()
        assert await caller.wait_bytes(132) == b"a" * 130 + b"bc"
        heard = {BINARY: b"", PONG: b""}
        while heard != {BINARY: b"a" * 130 + b"bc", PONG: b"p"}:
            opcode, payload = await raw.frame()
            heard[opcode] += payload


async def test_what_one_read_brings_is_given_in_one_piece(house: House) -> None:
    async with connect_ws(house.http_port) as raw:
        await raw.send(b"".join(frame(BINARY, b"%d" % index) for index in range(9)))
        caller = await house.hall.caller()
        assert await caller.wait_bytes(9) == b"012345678"
        assert len(caller.received) < 9


async def test_a_reader_that_is_paused_hears_no_more_until_it_resumes(house: House) -> None:
    async with client(house) as ws:
        caller = await house.hall.caller()
        caller.wire.pause_reading()
        caller.wire.pause_reading()
        await ws.send(b"x")
        caller.wire.write([b"fence"])
        assert await ws.recv() == b"fence"
        assert caller.received == []
        caller.wire.resume_reading()
        caller.wire.resume_reading()
        assert await caller.wait_bytes(1) == b"x"


async def test_when_there_is_no_room_the_client_hears_server_full(house: House) -> None:
    house.hall.is_open = False
    async with connect_ws(house.http_port) as raw:
        assert await raw.close_code() == 4000 + Code.SERVER_FULL


async def test_a_server_that_stops_tells_newcomers_and_keeps_the_others(echo_house: House) -> None:
    async with client(echo_house) as ws:
        echo_house.listeners.stop_accepting()
        with pytest.raises(InvalidStatus) as caught:
            await client(echo_house).__aenter__()
        assert caught.value.response.status_code == 503
        await ws.send(b"still here")
        assert await ws.recv() == b"still here"


# --- the handshake

REFUSED = [
    ("version 7", upgrade(Sec_WebSocket_Version="7"), 426),
    ("no version", upgrade(Sec_WebSocket_Version=None), 426),
    ("two versions", upgrade(Sec_WebSocket_Version="13\r\nSec-WebSocket-Version: 13"), 426),
    ("two keys", upgrade(Sec_WebSocket_Key=f"{KEY}\r\nSec-WebSocket-Key: {KEY}"), 400),
    ("no key", upgrade(Sec_WebSocket_Key=None), 400),
    ("a short key", upgrade(Sec_WebSocket_Key="c2hvcnQ="), 400),
    ("a key that is no base64", upgrade(Sec_WebSocket_Key="!" * 24), 400),
    ("two hosts", upgrade(Host="localhost\r\nHost: localhost"), 400),
    ("no host", upgrade(Host=None), 400),
    ("no subprotocol", upgrade(Sec_WebSocket_Protocol=None), 400),
    ("another subprotocol", upgrade(Sec_WebSocket_Protocol="chatd.2, mqtt"), 400),
    ("no Connection: Upgrade", upgrade(Connection="keep-alive"), 400),
    ("HTTP/1.0", upgrade(version="1.0"), 400),
    ("HEAD", upgrade(method="HEAD"), 400),
    ("a body", upgrade(Content_Length="1") + b"x", 400),
    ("a foreign page", upgrade(Origin="http://evil.example"), 403),
    ("a page without an origin", upgrade(Origin="null"), 403),
    ("our host on another port", upgrade(Origin="http://localhost:81"), 403),
    ("our host as part of a name", upgrade(Origin="http://localhost.evil.example"), 403),
    ("two origins", upgrade(Origin="http://localhost\r\nOrigin: http://localhost"), 403),
    ("another path", upgrade(path="/livez/x"), 404),
    ("another host by name", upgrade(Host="evil.example", Origin="http://evil.example"), 403),
]
ADMISSION = Admission(origins=frozenset({"https://Chat.example"}), hosts=frozenset({"localhost"}))


@pytest.mark.parametrize(("name", "request_head", "status"), REFUSED)
async def test_a_bad_handshake_is_refused(name: str, request_head: bytes, status: int) -> None:
    async with open_house(ListenerConfig(admission=ADMISSION)) as house, connect(house.http_port) as raw:
        await raw.send(request_head)
        answer = await raw.answer(has_body=not request_head.startswith(b"HEAD"))
        assert answer.status == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert house.hall.callers == []
        if status == 426:
            assert answer.headers["sec-websocket-version"] == "13"


@pytest.mark.parametrize(
    "request_head",
    [
        upgrade(),
        upgrade(Connection="keep-alive, Upgrade"),
        upgrade(Upgrade="WebSocket"),
        upgrade(Sec_WebSocket_Protocol="chatd.2, chatd.1"),
        upgrade(Sec_WebSocket_Extensions="permessage-deflate"),
        upgrade(Origin="https://chat.example"),
        upgrade(Origin="http://localhost"),
        upgrade(Host="localhost:7480", Origin="http://localhost:7480"),
        upgrade(path="/ws?x=1"),
    ],
)
async def test_a_good_handshake_is_taken(request_head: bytes) -> None:
    async with open_house(ListenerConfig(admission=ADMISSION)) as house, connect(house.http_port) as raw:
        answer = await raw.ask(request_head)
        assert (answer.status, answer.headers["sec-websocket-protocol"]) == (101, "chatd.1")
        assert answer.headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".lower()
        assert "sec-websocket-extensions" not in answer.headers


async def test_a_star_lets_every_page_in() -> None:
    config = ListenerConfig(admission=Admission(origins=frozenset("*")))
    async with open_house(config) as house, connect(house.http_port) as raw:
        assert (await raw.ask(upgrade(Origin="http://evil.example"))).status == 101


async def test_half_an_upgrade_is_cut_in_time() -> None:
    config = ListenerConfig(http_limits=HttpLimits(body_bytes_max=100, head_s_max=0.1))
    async with open_house(config) as house, connect(house.http_port) as raw:
        assert (await raw.ask(upgrade()[:-2])).status == 408
        assert await raw.rest() == b""


# --- frames that break a rule

SMALL = replace(ListenerConfig(), message_limits=MessageLimits(message_bytes_max=70_000))
BROKEN = [
    ("an unmasked frame", frame(BINARY, b"a", masked=False), 1002),
    ("RSV1", frame(BINARY, b"a", rsv=4), 1002),
    ("RSV2 on a ping", frame(PING, b"a", rsv=2), 1002),
    ("RSV3 on a fragment", frame(BINARY, b"a", rsv=1, fin=False), 1002),
    ("an unknown opcode", frame(3, b"a"), 1002),
    ("a fragmented ping", frame(PING, b"a", fin=False), 1002),
    ("a long ping", frame(PING, b"a" * 126), 1002),
    ("text", frame(TEXT, b"a"), 1003),
    ("text that is no UTF-8", frame(TEXT, b"\xff"), 1003),
    ("a continuation without a start", frame(CONT, b"a"), 1002),
    ("a start within a message", frame(BINARY, b"a", fin=False) + frame(BINARY, b"a"), 1002),
    ("a length of 2^62", b"\x82\xff" + (2**62).to_bytes(8, "big") + bytes(4), 1009),
    ("a length of 2^63", b"\x82\xff" + (2**63).to_bytes(8, "big") + bytes(4), 1002),
    ("a length that is too long written", b"\x82\xfe\x00\x01" + bytes(5), 1002),
    ("a flood of fragments", frame(BINARY, b"a", fin=False) + frame(CONT, b"a", fin=False) * 100, 1009),
    ("a flood of empty fragments", frame(BINARY, fin=False) + frame(CONT, fin=False) * 5000, 1009),
    ("a flood of pings", frame(PING, b"a") * 1000, 1008),
    ("a flood of pongs", frame(PONG) * 1000, 1008),
    ("a flood of empty messages", frame(BINARY) * 1000, 1008),
    ("close code 0", frame(CLOSE, b"\0\0"), 1002),
    ("close code 1006", frame(CLOSE, (1006).to_bytes(2, "big")), 1002),
    ("close code 5000", frame(CLOSE, (5000).to_bytes(2, "big")), 1002),
    ("half a close code", frame(CLOSE, b"a"), 1002),
    ("a close reason that is no UTF-8", frame(CLOSE, b"\x03\xe8\xff"), 1007),
    ("a close without a code", frame(CLOSE), 1000),
]


@pytest.mark.parametrize(("name", "data", "code"), BROKEN)
async def test_a_broken_rule_has_its_close_code(name: str, data: bytes, code: int) -> None:
    async with open_house(SMALL) as house, connect_ws(house.http_port) as raw:
        caller = await house.hall.caller()
        await raw.send(data)
        assert await raw.close_code() == code
        assert caller.received == []
        raw.writer.close()
        await caller.wait_lost()


async def test_what_picows_refuses_ends_in_time_although_nobody_reads() -> None:
    async with open_house(replace(SMALL, transport=QUICK)) as house, connect_ws(house.http_port) as raw:
        raw.pause_reading()
        caller = await house.hall.caller()
        while caller.said != ["pause"]:
            caller.wire.write([bytes(60_000)])
            await asyncio.sleep(0)
        caller.wire.flow.end()  # type: ignore[attr-defined]  # else its own cut would come first
        await raw.send(frame(BINARY, b"a", masked=False))
        assert await caller.wait_lost() == "bad WebSocket frames"


async def test_a_message_over_the_limit_in_fragments_is_cut() -> None:
    async with open_house(SMALL) as house, connect_ws(house.http_port) as raw:
        (await house.hall.caller()).wire.write([b"welcome"])
        assert await raw.frame() == (BINARY, b"welcome")
        await raw.send(frame(BINARY, bytes(40_000), fin=False) + frame(CONT, bytes(40_000)))
        assert await raw.close_code() == 1009


async def test_before_the_first_word_of_the_session_only_a_greeting_fits(house: House) -> None:
    async with connect_ws(house.http_port) as raw:
        await raw.send(frame(BINARY, bytes(500_000))[:20_000])
        assert await raw.close_code() == 1009


async def test_a_client_that_goes_on_behind_its_breach_is_aborted() -> None:
    limits = TransportLimits(close_s_max=60.0, discard_bytes_max=100_000)
    async with open_house(replace(SMALL, transport=limits)) as house, connect_ws(house.http_port) as raw:
        raw.writer.write(frame(TEXT, b"a") + frame(BINARY, bytes(1000)) * 400)
        assert (await (await house.hall.caller()).wait_lost()).startswith("breach")


async def test_only_the_newest_ping_is_answered(house: House) -> None:
    async with connect_ws(house.http_port) as raw:
        await raw.send(b"".join(frame(PING, b"%d" % index) for index in range(50)))
        payload = b""
        pongs = 0
        while payload != b"49":
            opcode, payload = await raw.frame()
            pongs += 1
            assert opcode == PONG
        assert pongs < 50


async def test_a_client_that_never_answers_a_close_is_ended_in_time() -> None:
    async with open_house(replace(SMALL, transport=QUICK)) as house, connect_ws(house.http_port) as raw:
        caller = await house.hall.caller()
        caller.wire.close(Code.REPLACED, "elsewhere")
        assert await raw.close_code() == 4204
        assert await caller.wait_lost() == "closed: REPLACED elsewhere"


# --- a client that does not read


async def test_a_reader_that_is_slow_is_told_to_the_session_and_back(house: House) -> None:
    async with client(house, max_queue=1) as ws:
        caller = await house.hall.caller()
        count = 0
        while caller.said != ["pause"]:
            caller.wire.write([bytes(60_000)])
            count += 1
            await asyncio.sleep(0)
        assert caller.wire.pending_bytes() > 0
        for _ in range(count):
            assert len(await ws.recv()) == 60_000
        await caller.wait(lambda: caller.said == ["pause", "resume"])


async def test_a_client_that_never_reads_is_cut_and_holds_little() -> None:
    async with open_house(replace(SMALL, transport=QUICK), echo=True) as house, connect_ws(house.http_port) as raw:
        caller = await house.hall.caller()
        caller.wire.write([b"welcome"])
        raw.pause_reading()
        held = 0

        async def flood() -> None:
            nonlocal held
            try:
                while True:
                    await raw.send(frame(BINARY, bytes(60_000)))
                    held = max(held, caller.wire.pending_bytes())
            except ConnectionError:
                pass

        async with asyncio.timeout(10):
            reason, _ = await asyncio.gather(caller.wait_lost(), flood())
        assert reason == "slow reader: still over the mark after 0.2 s"
        assert held < 500_000


async def test_a_session_that_writes_on_to_a_slow_reader_loses_it() -> None:
    config = replace(SMALL, transport=replace(QUICK, stall_s_max=60.0, pending_bytes_max=1_000_000))
    async with open_house(config) as house, connect_ws(house.http_port) as raw:
        raw.pause_reading()
        caller = await house.hall.caller()
        held = 0
        while caller.reason is None:
            caller.wire.write([bytes(60_000)])
            held = max(held, caller.wire.pending_bytes())
            await asyncio.sleep(0)
        assert caller.reason == "slow reader: over 1000000 bytes wait for it"
        assert held < 1_100_000


async def test_a_flood_does_not_grow_the_read_buffer_for_good(house: House) -> None:
    async with connect_ws(house.http_port) as raw:
        caller = await house.hall.caller()
        caller.wire.write([b"welcome"])
        await raw.send(frame(BINARY, bytes(1000)) * 20_000)
        await caller.wait_bytes(20_000_000)
        assert len(WSProtocol.get_buffer(caller.wire, -1)) <= 64 * 1024
