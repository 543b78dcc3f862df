"""The HTTP API: what each path does. Values in, values out; sockets are http.py's, decisions are the node's."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, Final

import msgpack
import structlog

from chatd.ports import Accounts, BackOffice, Identity, LoginRefused, Refusal
from chatd.web.body import HEAD_SLACK_BYTES, idempotency_key, read_json, read_msgpack
from chatd.web.exchange import JSON, MSGPACK, TEXT, Request, Response
from chatd.web.problem import problem, problem_of
from chatd.web.routes import Found, Missing, Route, Routes
from protocol.errors import Code
from protocol.wire import SECRET_BYTES_MAX, Scheme

WS_PATH: Final = "/ws"
_MSGPACK_TYPES: Final = frozenset({MSGPACK, "application/vnd.msgpack", "application/x-msgpack"})
_BUSY_RETRY_MS: Final = 1000

Handler = Callable[[Request], Awaitable[Response]]

_log = structlog.get_logger("chatd.web")


class Api:
    """Answers requests. Never raises for what a client can send; a bug of ours becomes 500 and is logged."""

    def __init__(
        self,
        accounts: Accounts,
        back_office: BackOffice,
        *,
        frame_body_bytes_max: int,
        in_flight_max: int,
        answer_s_max: float,
    ) -> None:
        """`in_flight_max` requests are worked on at once, the next is told BUSY; one may take `answer_s_max`."""
        self._accounts = accounts
        self._back_office = back_office
        self.take_over(frame_body_bytes_max)
        self._in_flight_max = in_flight_max
        self._answer_s_max = answer_s_max
        self._in_flight = 0
        self._routes: Routes[Handler] = Routes(
            (
                Route("POST", "/api/send", self._send),
                Route("GET", "/api/users/{user:name}/presence", self._presence),
                Route("GET", "/livez", self._livez),
                Route("GET", "/readyz", self._readyz),
                Route("GET", "/metrics", self._metrics),
                Route("GET", WS_PATH, self._no_upgrade),
            )
        )

    def take_over(self, frame_body_bytes_max: int) -> None:
        """Another limit, from the next request on."""
        self._payload_bytes_max = frame_body_bytes_max - HEAD_SLACK_BYTES

    async def answer(self, request: Request) -> Response:
        """The response to one whole request."""
        match = self._routes.match(request.method, request.path)
        if isinstance(match, Missing):
            return problem(HTTPStatus.NOT_FOUND)
        if not isinstance(match, Found):
            return problem(HTTPStatus.METHOD_NOT_ALLOWED, headers=[("Allow", ", ".join(match.allow))])
        if self._in_flight >= self._in_flight_max:
            return problem_of(Code.BUSY, "too many requests are being answered", _BUSY_RETRY_MS)
        self._in_flight += 1
        try:
            return await self._perform(match.handler, request._replace(args=match.args))
        finally:
            self._in_flight -= 1

    async def _perform(self, handler: Handler, request: Request) -> Response:
        try:
            async with asyncio.timeout(self._answer_s_max):
                return await handler(request)
        except Refusal as refusal:
            return problem_of(refusal.code, refusal.detail, refusal.retry_after_ms)
        except LoginRefused as refused:
            _log.info("http_login_refused", peer=request.peer, code=refused.code.name, why=str(refused))
            return problem_of(refused.code, retry_after_ms=refused.retry_after_ms)
        except TimeoutError:
            detail = f"no answer within {self._answer_s_max:g} s; it may have been done: repeat it under the same key"
            return problem_of(Code.BUSY, detail, _BUSY_RETRY_MS)
        except Exception:
            _log.exception("http_handler_failed", method=request.method, path=request.path)
            return problem_of(Code.INTERNAL)

    # --- handlers

    async def _send(self, request: Request) -> Response:
        identity = await self._prove(request)
        key = idempotency_key(request.all(b"idempotency-key")) or secrets.token_hex(16)
        kind = (request.one(b"content-type") or "").partition(";")[0].strip().lower()
        if kind == JSON:
            read = read_json
        elif kind in _MSGPACK_TYPES:
            read = read_msgpack
        else:
            wanted = f"{JSON}, {MSGPACK}"
            return problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Content-Type: {wanted}", [("Accept-Post", wanted)])
        wish = read(request.body, identity.user, key, self._payload_bytes_max)
        message_id = await self._back_office.send(wish)
        return _as_asked(request, HTTPStatus.ACCEPTED, {"id": message_id.hex()})

    async def _presence(self, request: Request) -> Response:
        await self._prove(request)
        user = request.args["user"]
        sessions = await self._back_office.presence(user)
        return _as_asked(request, HTTPStatus.OK, {"user": user, "sessions": [live._asdict() for live in sessions]})

    async def _livez(self, request: Request) -> Response:
        return Response(HTTPStatus.OK, b"ok", TEXT)

    async def _readyz(self, request: Request) -> Response:
        parts = dict(self._back_office.health())
        ready = all(state == "up" for state in parts.values())
        status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
        return Response(status, _json({"ready": ready, "parts": parts}), JSON)

    async def _metrics(self, request: Request) -> Response:
        body, content_type = self._back_office.metrics(", ".join(request.all(b"accept")))
        return Response(HTTPStatus.OK, body, content_type)

    async def _no_upgrade(self, request: Request) -> Response:
        return problem(HTTPStatus.UPGRADE_REQUIRED, "this path speaks WebSocket", [("Upgrade", "websocket")])

    async def _prove(self, request: Request) -> Identity:
        """Who sends this: the owner of the bearer token. Raises LoginRefused."""
        scheme, _, token = (request.one(b"authorization") or "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise LoginRefused(Code.LOGIN_REQUIRED, "no bearer token")
        if len(token) > SECRET_BYTES_MAX:
            raise LoginRefused(Code.BAD_CREDENTIALS, f"a token of {len(token)} bytes")
        return await self._accounts.prove(Scheme.TOKEN, "", token, request.peer)


def _as_asked(request: Request, status: int, fields: dict[str, Any]) -> Response:
    if _prefers_msgpack(request.tokens(b"accept")):
        return Response(status, msgpack.packb(fields), MSGPACK, (("Vary", "Accept"),))
    return Response(status, _json(fields), JSON, (("Vary", "Accept"),))


def _prefers_msgpack(accept: list[str]) -> bool:
    """Whether msgpack is named, and weighs more than JSON."""
    weights = {MSGPACK: 0.0, JSON: 0.0}
    for member in accept:
        kind, *parameters = [part.strip().lower() for part in member.split(";")]
        name = MSGPACK if kind in _MSGPACK_TYPES else kind
        if name in weights:
            weights[name] = max(weights[name], _weight(parameters))
    return weights[MSGPACK] > weights[JSON]


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return min(max(float(parameter[2:]), 0.0), 1.0)
            except ValueError:
                return 0.0
    return 1.0


def _json(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
