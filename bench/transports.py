"""How a peer reaches a server: TCP, TLS, or a WebSocket that carries the same frames."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from bench.swarm import Peer
from protocol.wire import WEBSOCKET_SUBPROTOCOL

Transport = Literal["tcp", "tls", "ws"]
LOOPBACK: Final = "127.0.0.1"


class Door(NamedTuple):
    """Where one chatd listens. With `tls` its TCP port speaks TLS, with this certificate."""

    tcp_port: int
    http_port: int = 0
    tls: Path | None = None


async def connect(peer: object, door: Door, transport: Transport) -> None:
    """Connect the peer; it logs in by itself. Only one that speaks our wire has a WebSocket."""
    if transport == "ws":
        assert isinstance(peer, Peer)
        url = f"ws://{LOOPBACK}:{door.http_port}/ws"
        headers = {"Sec-WebSocket-Protocol": WEBSOCKET_SUBPROTOCOL}
        await ws_connect(lambda: _Socket(peer), url, extra_headers=headers)
        return
    loop = asyncio.get_running_loop()
    context = ssl.create_default_context(cafile=door.tls) if door.tls is not None else None
    assert isinstance(peer, asyncio.Protocol)
    await loop.create_connection(lambda: peer, LOOPBACK, door.tcp_port, ssl=context)


class _Socket(WSListener):
    """Gives a peer the bytes of binary messages, and takes its writes as one message each."""

    def __init__(self, peer: Peer) -> None:
        super().__init__()
        self._peer = peer

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._peer.begin_on(_Writer(transport), preface=False)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.BINARY:
            self._peer.data_received(frame.get_payload_as_bytes())

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._peer.connection_lost(None)


class _Writer:
    """What a peer needs of a transport."""

    def __init__(self, transport: WSTransport) -> None:
        self._transport = transport
        self.close: Callable[[], None] = transport.disconnect

    def write(self, data: bytes) -> None:
        """One binary message."""
        self._transport.send(WSMsgType.BINARY, data)


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of its own for loopback, and its key (PEM)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "chatd bench")])
    now = datetime.datetime.now(datetime.UTC)
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(LOOPBACK))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(alternative, critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate, secret = folder / "bench.crt", folder / "bench.key"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    secret.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    secret.chmod(0o600)
    return certificate, secret
