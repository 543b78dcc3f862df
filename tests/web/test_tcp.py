from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from chatd.listener import ListenerConfig, Listeners, Place, server_tls
from chatd.tcp import TransportLimits
from protocol.errors import Code
from tests.web.house import Desk, Hall, House, Keys, open_house
from tests.web.raw import Raw, connect, get, upgrade

QUICK = TransportLimits(write_high_bytes=16 * 1024, write_low_bytes=4096, stall_s_max=0.2, close_s_max=0.2)


async def test_bytes_go_both_ways(echo_house: House) -> None:
    async with connect(echo_house.tcp_port) as raw:
        for word in (b"a", b"b" * 100_000):
            await raw.send(word)
            assert await raw.reader.readexactly(len(word)) == word
    caller = echo_house.hall.callers[0]
    assert (caller.preface, caller.peer.startswith("127.0.0.1:")) == (True, True)
    await caller.wait_lost()


async def test_chunks_are_written_in_order_and_counted_until_they_leave(house: House) -> None:
    async with connect(house.tcp_port) as raw:
        caller = await house.hall.caller()
        caller.wire.write([b"one ", b"two "])
        caller.wire.write([b"three"])
        assert await raw.reader.readexactly(13) == b"one two three"
        assert caller.wire.pending_bytes() == 0


async def test_last_words_arrive_although_the_peer_goes_on_sending(house: House) -> None:
    async with connect(house.tcp_port) as raw:
        caller = await house.hall.caller()
        caller.wire.pause_reading()
        raw.writer.write(bytes(500_000))
        caller.wire.write([b"x" * 100_000, b"last words"])
        caller.wire.close(Code.BAD_CREDENTIALS, "no")
        caller.wire.write([b"too late"])
        caller.wire.close(None, "again")
        assert await raw.rest() == b"x" * 100_000 + b"last words"
        raw.writer.close()
        assert await caller.wait_lost() == "closed: BAD_CREDENTIALS no"
    assert caller.received == []


async def test_a_peer_that_never_closes_is_ended_in_time() -> None:
    async with open_house(ListenerConfig(transport=QUICK)) as house, connect(house.tcp_port):
        caller = await house.hall.caller()
        caller.wire.close(None, "bye")
        assert await caller.wait_lost() == "closed: done bye"


async def test_a_peer_that_floods_behind_the_close_is_cut() -> None:
    limits = TransportLimits(close_s_max=60.0, discard_bytes_max=100_000)
    async with open_house(ListenerConfig(transport=limits)) as house, connect(house.tcp_port) as raw:
        (await house.hall.caller()).wire.close(Code.FRAME_MALFORMED, "")
        with pytest.raises(ConnectionError):
            await raw.send_for_ever(b"", bytes(65536))


async def test_a_paused_reader_hears_no_more_until_it_resumes(house: House) -> None:
    async with connect(house.tcp_port) as raw:
        caller = await house.hall.caller()
        caller.wire.pause_reading()
        caller.wire.pause_reading()
        await raw.send(b"x")
        async with connect(house.tcp_port) as fence:
            await fence.send(b"f")
            await (await house.hall.caller(1)).wait_bytes(1)
        assert caller.received == []
        caller.wire.resume_reading()
        caller.wire.resume_reading()
        assert await caller.wait_bytes(1) == b"x"


async def test_a_slow_reader_is_told_to_the_session_and_back(house: House) -> None:
    async with connect(house.tcp_port) as raw:
        raw.pause_reading()
        caller = await house.hall.caller()
        count = 0
        while caller.said != ["pause"]:
            caller.wire.write([bytes(60_000)])
            count += 1
            await asyncio.sleep(0)
        raw.resume_reading()
        await raw.reader.readexactly(count * 60_000)
        await caller.wait(lambda: caller.said == ["pause", "resume"])


async def test_a_peer_that_never_reads_is_cut_and_holds_little() -> None:
    async with open_house(ListenerConfig(transport=QUICK), echo=True) as house, connect(house.tcp_port) as raw:
        raw.pause_reading()
        caller = await house.hall.caller()
        with pytest.raises(ConnectionError):
            await raw.send_for_ever(b"", bytes(65536))
        assert await caller.wait_lost() == "slow reader: still over the mark after 0.2 s"
        assert caller.wire.pending_bytes() < 200_000


async def test_a_session_that_writes_on_to_a_slow_reader_loses_it() -> None:
    limits = replace(QUICK, stall_s_max=60.0, pending_bytes_max=1_000_000)
    async with open_house(ListenerConfig(transport=limits)) as house, connect(house.tcp_port) as raw:
        raw.pause_reading()
        caller = await house.hall.caller()
        while caller.reason is None:
            caller.wire.write([bytes(60_000)])
            await asyncio.sleep(0)
        assert caller.reason == "slow reader: over 1000000 bytes wait for it"


async def test_accepted_sockets_have_what_the_listening_one_was_given(house: House) -> None:
    async with connect(house.tcp_port):
        caller = await house.hall.caller()
        sock = caller.wire._transport.get_extra_info("socket")  # type: ignore[attr-defined]
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000


# --- who may come


async def test_over_the_bound_a_newcomer_is_closed_and_a_leaver_makes_room() -> None:
    config = ListenerConfig(connections_per_address_max=2)
    async with open_house(config, echo=True) as house, connect(house.tcp_port) as one, connect(house.http_port) as two:
        await one.send(b"x")
        assert await one.reader.readexactly(1) == b"x"
        assert (await two.ask(get("/livez"))).status == 200
        async with connect(house.tcp_port) as three:
            assert await three.rest() == b""
        statistics = house.listeners.census.statistics()
        assert (statistics["open"], statistics["arrived"], statistics["turned_away"]) == (2, 2, 1)
        one.writer.close()
        await house.hall.callers[0].wait_lost()
        async with connect(house.tcp_port) as four:
            await four.send(b"y")
            assert await four.reader.readexactly(1) == b"y"


async def test_a_door_that_takes_nobody_closes_at_once(house: House) -> None:
    house.hall.is_open = False
    async with connect(house.tcp_port) as raw:
        assert await raw.rest() == b""
    await house.listeners.census.wait_empty()


async def test_of_those_who_say_nothing_the_oldest_of_an_address_goes_first() -> None:
    async with open_house(ListenerConfig(strangers_per_address_max=2), echo=True) as house, AsyncExitStack() as stack:
        silent = [await stack.enter_async_context(connect(house.tcp_port)) for _ in range(4)]
        for raw in silent[:2]:
            assert await raw.rest() == b""
        await silent[3].send(b"z")
        assert await silent[3].reader.readexactly(1) == b"z"
        assert house.listeners.census.statistics()["strangers_cut"] == 2


async def test_of_all_who_say_nothing_the_oldest_goes_first_and_who_spoke_stays() -> None:
    async with open_house(ListenerConfig(strangers_max=2), echo=True) as house, AsyncExitStack() as stack:
        spoke = await stack.enter_async_context(connect(house.tcp_port))
        (await house.hall.caller()).wire.greeted()
        asked = await stack.enter_async_context(connect(house.http_port))
        assert (await asked.ask(get("/livez"))).status == 200
        silent = [await stack.enter_async_context(connect(house.tcp_port)) for _ in range(4)]
        for raw in silent[:2]:
            assert await raw.rest() == b""
        assert (await asked.ask(get("/livez"))).status == 200
        for raw in (spoke, silent[2], silent[3]):
            await raw.send(b"z")
            assert await raw.reader.readexactly(1) == b"z"


async def test_a_websocket_that_came_from_http_counts_once(house: House) -> None:
    async with connect(house.http_port) as raw:
        assert (await raw.ask(upgrade())).status == 101
        assert len(house.listeners.census) == 1
    await house.listeners.census.wait_empty()


# --- start and stop


async def test_after_stop_accepting_sessions_go_on_and_health_answers(echo_house: House) -> None:
    async with connect(echo_house.tcp_port) as raw:
        await echo_house.hall.caller()
        echo_house.listeners.stop_accepting()
        echo_house.listeners.stop_accepting()
        with pytest.raises(ConnectionError):
            async with connect(echo_house.tcp_port):
                pass
        await raw.send(b"x")
        assert await raw.reader.readexactly(1) == b"x"
        async with connect(echo_house.http_port) as health:
            assert (await health.ask(get("/livez"))).status == 200


async def test_the_end_closes_everybody_and_waits_for_answers() -> None:
    async with open_house() as house:
        idle = await stay(house.http_port)
        ws = await stay(house.http_port)
        assert (await ws.ask(upgrade())).status == 101
        tcp = await stay(house.tcp_port)
        await house.hall.caller(1)
        house.desk.gate.clear()
        asked = await stay(house.http_port)
        body = b'{"to":"bob","text":"a"}'
        lines = ("Authorization: Bearer let-me-in", "Content-Type: application/json", f"Content-Length: {len(body)}")
        await asked.send(get("/api/send", *lines, method="POST") + body)
        await house.desk.asked.wait()
        asyncio.get_running_loop().call_later(0.1, house.desk.gate.set)
    assert await idle.rest() == await ws.rest() == await tcp.rest() == b""
    answer = await asked.answer()
    assert (answer.status, answer.headers["connection"]) == (202, "close")
    assert all(caller.reason == "the server stops" for caller in house.hall.callers)
    for raw in (idle, ws, tcp, asked):
        raw.writer.transport.abort()


async def stay(port: int) -> Raw:
    return Raw(*await asyncio.open_connection("127.0.0.1", port))


async def test_an_address_in_use_is_an_oserror_and_leaves_nothing_open(house: House) -> None:
    config = ListenerConfig(tcp=(Place(),), http=(Place(port=house.http_port),))
    with pytest.raises(OSError, match="in use"):
        await Listeners(config, Hall(), Keys(), Desk()).__aenter__()


async def test_an_error_inside_comes_out_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_house():
            raise ZeroDivisionError


async def test_an_inherited_socket_is_served() -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    async with open_house(ListenerConfig(tcp=(Place(inherited=sock),)), echo=True) as house, connect(port) as raw:
        assert house.listeners.tcp_ports == [port]
        await raw.send(b"x")
        assert await raw.reader.readexactly(1) == b"x"


# --- TLS


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(cert.public_bytes(pem))
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(private)
    return folder / "cert.pem", folder / "key.pem"


async def over_tls(port: int, cert: Path) -> Raw:
    context = ssl.create_default_context(cafile=str(cert))
    return Raw(*await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost"))


async def test_tls_carries_frames_http_and_websocket(tls: tuple[Path, Path]) -> None:
    place = Place(tls=server_tls(*tls))
    async with open_house(ListenerConfig(tcp=(place,), http=(place,)), echo=True) as house:
        tcp = await over_tls(house.tcp_port, tls[0])
        await tcp.send(b"x" * 300_000)
        assert await tcp.reader.readexactly(300_000) == b"x" * 300_000
        caller = await house.hall.caller()
        caller.wire.write([b"y" * 300_000])
        caller.wire.close(Code.REPLACED, "")
        assert await tcp.rest() == b"y" * 300_000
        assert await caller.wait_lost() == "closed: REPLACED"

        http = await over_tls(house.http_port, tls[0])
        assert (await http.ask(get("/livez"))).body == b"ok"
        assert (await http.ask(upgrade())).status == 101
        (await house.hall.caller(1)).wire.write([b"hello"])
        assert await http.frame() == (2, b"hello")
        for raw in (tcp, http):
            raw.writer.transport.abort()


async def test_plain_text_on_the_tls_port_reaches_nobody(tls: tuple[Path, Path]) -> None:
    async with open_house(ListenerConfig(tcp=(Place(tls=server_tls(*tls)),))) as house, connect(house.tcp_port) as raw:
        await raw.send(b"CHTD\1\0\0\0")
        await raw.rest()
        assert house.hall.callers == []
