"""Who may open a WebSocket: the request's head, checked before picows sees anything. Pure.

picows takes versions 7 and 8, several keys and any Origin; and it refuses `Connection: keep-alive, Upgrade`, which is
what Firefox sends. So the head is checked here, and picows is shown a head of our own making.
"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from chatd.web.exchange import Request, Response
from chatd.web.problem import problem
from protocol.wire import WEBSOCKET_SUBPROTOCOL

VERSION: Final = "13"
KEY_BYTES: Final = 16
ANY_ORIGIN: Final = "*"
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Admission:
    """Which pages may connect. A request without Origin comes from a native client and always may; a page that this
    host itself served may too."""

    origins: frozenset[str] = frozenset()  # "https://host[:port]", or "*"
    hosts: frozenset[str] = frozenset()  # names that Host may have (no port); empty = any. Stops DNS rebinding


def wants_websocket(request: Request) -> bool:
    """Whether the request asks to become a WebSocket, well or badly."""
    return any(token.lower() == "websocket" for token in request.tokens(b"upgrade"))


def refuse_handshake(request: Request, admission: Admission) -> Response | None:
    """Why this client may not have a WebSocket; None: it may. RFC 6455 §4.2.1."""
    return _refuse_form(request) or _refuse_version(request) or _refuse_key(request) or _refuse_page(request, admission)


def canonical_head(request: Request) -> bytes:
    """The head that picows is shown for a request that was not refused."""
    key = request.all(b"sec-websocket-key")[0]
    return (
        "GET / HTTP/1.1\r\nHost: chatd\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: {VERSION}\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    ).encode("ascii")


def _refuse_form(request: Request) -> Response | None:
    if request.method != "GET" or request.version != "1.1":
        return problem(HTTPStatus.BAD_REQUEST, "a WebSocket begins with GET and HTTP/1.1")
    if request.body:
        return problem(HTTPStatus.BAD_REQUEST, "a WebSocket begins without a body")
    if "upgrade" not in (token.lower() for token in request.tokens(b"connection")):
        return problem(HTTPStatus.BAD_REQUEST, "Connection: Upgrade is missing")
    if WEBSOCKET_SUBPROTOCOL not in request.tokens(b"sec-websocket-protocol"):
        return problem(HTTPStatus.BAD_REQUEST, f"Sec-WebSocket-Protocol: {WEBSOCKET_SUBPROTOCOL} is missing")
    return None


def _refuse_version(request: Request) -> Response | None:
    if request.all(b"sec-websocket-version") == [VERSION]:
        return None
    wanted = [("Sec-WebSocket-Version", VERSION), ("Upgrade", "websocket")]
    return problem(HTTPStatus.UPGRADE_REQUIRED, f"Sec-WebSocket-Version: {VERSION}", wanted)


def _refuse_key(request: Request) -> Response | None:
    keys = request.all(b"sec-websocket-key")
    try:
        good = len(keys) == 1 and len(b64decode(keys[0].encode("ascii"), validate=True)) == KEY_BYTES
    except (UnicodeEncodeError, Base64Error):
        good = False
    return None if good else problem(HTTPStatus.BAD_REQUEST, "Sec-WebSocket-Key: one of 16 bytes in base64")


def _refuse_page(request: Request, admission: Admission) -> Response | None:
    host = request.all(b"host")[0].lower()
    if admission.hosts and _hostname(f"//{host}") not in admission.hosts:
        return problem(HTTPStatus.FORBIDDEN, "Host: not a name of this server")
    origins = request.all(b"origin")
    if not origins or ANY_ORIGIN in admission.origins:
        return None
    origin = origins[0].lower()
    allowed = {allowed.lower() for allowed in admission.origins}
    if len(origins) == 1 and (origin in allowed or _is_same(origin, host)):
        return None
    return problem(HTTPStatus.FORBIDDEN, "Origin: pages from there may not connect")


def _is_same(origin: str, host: str) -> bool:
    """Whether the page came from the host that it now talks to (the scheme is lost behind a proxy that ends TLS)."""
    try:
        page = urlsplit(origin)
        here = urlsplit(f"{page.scheme}://{host}")
        port = _DEFAULT_PORTS[page.scheme]
        return bool(page.hostname) and (page.hostname, page.port or port) == (here.hostname, here.port or port)
    except (ValueError, KeyError):
        return False


def _hostname(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
