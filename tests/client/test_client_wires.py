"""The transports and the loops: TLS, a WebSocket that is none, close codes, uvloop."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from protocol.client import Client, ClientClosed, Reconnecting
from protocol.errors import Code
from protocol.messages import Deliver
from tests.client.manual_clock import ManualClock
from tests.client.small_server import HOST, SmallServer, _Tcp, small_server

MakeClient = Callable[..., Client]


def a_certificate(folder: Path) -> tuple[Path, Path]:
    """Self-signed for localhost."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"


async def test_tls_works_with_a_trusted_certificate_and_never_without(
    server: SmallServer, tmp_path: Path, clock: ManualClock
) -> None:
    certificate, key = a_certificate(tmp_path)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate, key)
    listener = await asyncio.get_running_loop().create_server(lambda: _Tcp(server), HOST, 0, ssl=serving)
    port = listener.sockets[0].getsockname()[1]
    trusting = ssl.create_default_context(cafile=certificate)
    async with listener:
        async with Client("localhost", port, "ann", "x", password="secret", transport="tls", tls=trusting) as ann:
            await ann.send("bob", b"under TLS")
        told: asyncio.Future[Reconnecting] = asyncio.get_running_loop().create_future()
        async with Client(
            "localhost", port, "ann", "x", password="secret", transport="tls", clock=clock,
            on_state=lambda state: told.set_result(state) if isinstance(state, Reconnecting) and not told.done() else None,
        ):  # fmt: skip
            assert "CERTIFICATE_VERIFY_FAILED" in (await told).detail
    assert server.payloads("bob") == [b"under TLS"]


async def test_a_port_that_speaks_something_else_is_asked_again_later_not_for_ever_at_once(
    clock: ManualClock,
) -> None:
    class Http(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            transport.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            transport.close()

    listener = await asyncio.get_running_loop().create_server(Http, HOST, 0)
    port = listener.sockets[0].getsockname()[1]
    for transport in ("tcp", "ws"):
        slept = asyncio.Event()
        clock.on_sleep = slept.set
        async with Client(HOST, port, "ann", "x", password="secret", transport=transport, clock=clock):
            await asyncio.wait_for(slept.wait(), 10)
    listener.close()
    await listener.wait_closed()


async def test_a_replaced_session_on_a_web_socket_ends_the_client(make_client: MakeClient, server: SmallServer) -> None:
    async with make_client(transport="ws") as ann:
        await ann.wait_connected()
        server.live[0].fail(Code.REPLACED)
        with pytest.raises(ClientClosed, match="REPLACED"):
            await anext(ann)


async def test_a_web_socket_that_is_cut_loses_nothing(make_client: MakeClient, server: SmallServer) -> None:
    server.trouble.lose_accepted = 2
    async with make_client(transport="ws") as ann:
        await asyncio.gather(*[ann.post("bob", b"%d" % index) for index in range(10)])
    assert server.payloads("bob") == [b"%d" % index for index in range(10)]


async def test_a_web_socket_message_stays_within_what_was_settled(make_client: MakeClient, server: SmallServer) -> None:
    sizes: list[int] = []
    async with make_client(transport="ws") as ann:
        await ann.wait_connected()
        session = server.live[0]
        receive = session.receive
        session.receive = lambda data: (sizes.append(len(data)), receive(data))[1]  # type: ignore[method-assign]
        await asyncio.gather(*[ann.post("bob", bytes(20_000)) for _ in range(10)])
    assert len(server.payloads("bob")) == 10
    assert 40_000 < max(sizes) <= 65536 + 16


def test_it_all_works_on_uvloop() -> None:
    async def story() -> None:
        async with small_server() as server:
            for transport, port in (("tcp", server.tcp_port), ("ws", server.ws_port)):
                async with (
                    Client(HOST, port, "ann", "x", password="secret", transport=transport) as ann,
                    Client(HOST, port, "bob", "y", password="secret", transport=transport) as bob,
                ):
                    await ann.send("bob", b"over " + transport.encode())
                    message = await anext(bob)
                    assert isinstance(message, Deliver)
                    assert message.payload == b"over " + transport.encode()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(story())
