"""The seams inside chatd: between a transport and a session, between HTTP and the node, between login and accounts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from protocol.errors import Code

# --- transports ----------------------------------------------------------------------------------------------------


class Wire(Protocol):
    """A transport as a session sees it: a TCP (or TLS) socket, or a WebSocket whose binary messages carry the frames."""

    def write(self, chunks: list[bytes]) -> None:
        """Send frames, joined into one write (TCP) or one binary message (WebSocket). Never waits."""

    def pending_bytes(self) -> int:
        """What was written and has not left the process."""

    def pause_reading(self) -> None:
        """Read no more until resume_reading: the peer feels it. May be called twice."""

    def resume_reading(self) -> None:
        """The opposite. May be called without a pause."""

    def greeted(self) -> None:
        """The peer said who it is (proved or not): it is no stranger any more, and not the first to go in a crowd."""

    def close(self, code: Code | None, detail: str) -> None:
        """Close after what was written has left (bounded by a few seconds), with the WebSocket close code 4000 + code
        (1000 for None). Endpoint.lost follows."""


class Endpoint(Protocol):
    """A session as a transport sees it. All calls come from the event loop, never nested in one another."""

    def receive(self, data: bytes) -> None:
        """Bytes came in."""

    def pause_writing(self) -> None:
        """The peer reads slowly: the transport's buffer is over its high mark."""

    def resume_writing(self) -> None:
        """The buffer is low again."""

    def lost(self, reason: str) -> None:
        """The transport is gone; nothing may be written any more. The last call."""


class Door(Protocol):
    """Makes the endpoint of a new transport. Implemented by the node, called by the listeners."""

    def enter(self, wire: Wire, peer: str, *, preface: bool) -> Endpoint | None:
        """`peer` is the address for logs. None: no more connections are taken (the caller closes at once)."""


# --- accounts ------------------------------------------------------------------------------------------------------


class Identity(NamedTuple):
    """Who proved to be whom. `device` is None where the credentials do not bind one."""

    user: str
    expires_s: float | None  # Unix time at which the credentials end, None = never
    proof: str = ""  # what a password was held against: when that changes, it proves nothing any more


class LoginRefused(Exception):
    """The credentials are not good. `code` is BAD_CREDENTIALS, TOKEN_EXPIRED, TOKEN_FOREIGN, NOT_YOURS, REVOKED or
    BUSY/RATE_LIMITED (then retry_after_ms says when). The text is for logs only: it never reaches the client."""

    def __init__(self, code: Code, why: str, retry_after_ms: int = 0) -> None:
        super().__init__(why)
        self.code = code
        self.retry_after_ms = retry_after_ms


class Accounts(Protocol):
    """Decides who somebody is. Slow work (argon2) happens off the event loop, behind a bounded queue."""

    async def prove(self, scheme: int, user: str, secret: str, peer: str) -> Identity:
        """The identity that `secret` proves (scheme: protocol.wire.Scheme). `user` may be "" with a token, which then
        names it; else it must be the token's own. Raises LoginRefused."""

    def is_open(self, user: str, proof: str = "") -> bool:
        """False once the account was closed (a password user who was deleted), or the password of `proof` was changed: its
        sessions end with REVOKED."""


# --- what HTTP asks of the node --------------------------------------------------------------------------------------


class SendRequest(NamedTuple):
    """One message of a back end."""

    sender: str
    to: str
    payload: bytes
    key: str  # idempotency key; the same sender and key = the same message
    flags: int
    ttl_s: int | None


class Refusal(Exception):
    """The node will not do it: an error code of the registry, and when to come back."""

    def __init__(self, code: Code, detail: str, retry_after_ms: int = 0) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.retry_after_ms = retry_after_ms


class Presence(NamedTuple):
    """One live session of a user."""

    device: str
    node: str


class BackOffice(Protocol):
    """What the HTTP API asks of the node. Every method may raise Refusal."""

    async def send(self, request: SendRequest) -> bytes:
        """The message id, once the message is durable (ACCEPTED)."""

    async def presence(self, user: str) -> list[Presence]:
        """The live sessions. Refusal(NO_SUCH_USER) when the user does not exist, STORE_DOWN when nobody knows."""

    def health(self) -> Mapping[str, str]:
        """Part → "up" or why not ("rabbitmq", "redis", "draining" …). Ready when every value is "up"."""

    def metrics(self, accept: str) -> tuple[bytes, str]:
        """The exposition for an Accept header, and its content type."""
