"""Errors as problem+json (RFC 9457), and which HTTP status each code of the registry becomes.

A refusal that has a code says so: type `urn:chatd:error:<code>`, `code`, `retry_after_ms`. What only HTTP knows (no
such path, a wrong method, a length missing) has no code and the type about:blank.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from http import HTTPStatus
from math import ceil
from typing import Final

from chatd.web.exchange import Response
from protocol.errors import ERRORS, Code

PROBLEM_JSON: Final = "application/problem+json"
_BEARER: Final = ("WWW-Authenticate", 'Bearer realm="chatd"')

STATUS_OF: Final[dict[Code, int]] = {
    Code.BAD_PREFACE: 400,
    Code.VERSION_UNSUPPORTED: 400,
    Code.FRAME_MALFORMED: 400,
    Code.BODY_MALFORMED: 400,
    Code.FRAME_TOO_LARGE: 413,
    Code.OUT_OF_TURN: 400,
    Code.SILENT: 408,
    Code.LOGIN_REQUIRED: 401,
    Code.BAD_CREDENTIALS: 401,
    Code.TOKEN_EXPIRED: 401,
    Code.TOKEN_FOREIGN: 401,
    Code.REPLACED: 409,
    Code.LOGIN_TIMEOUT: 408,
    Code.NOT_YOURS: 403,
    Code.BAD_NAME: 422,
    Code.REVOKED: 403,
    Code.UNSUPPORTED: 501,
    Code.TOO_LARGE: 413,
    Code.BAD_RECEIVER: 422,
    Code.NO_SUCH_USER: 404,
    Code.QUEUE_FULL: 507,  # not 429: the one who asks did nothing wrong, the store of the receiver is full
    Code.BAD_CID: 422,
    Code.BAD_ACK: 422,
    Code.BAD_REQUEST: 400,
    Code.TTL_PASSED: 410,
    Code.REMOVED: 410,
    Code.BUSY: 503,
    Code.RATE_LIMITED: 429,
    Code.STORE_DOWN: 503,
    Code.SERVER_FULL: 503,
    Code.GOING_AWAY: 503,
    Code.SLOW_READER: 503,
    Code.STORE_CHANGED: 503,
    Code.INTERNAL: 500,
}
assert set(STATUS_OF) == set(Code)


def problem(status: int, detail: str = "", headers: Sequence[tuple[str, str]] = ()) -> Response:
    """A refusal that only HTTP knows."""
    fields = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status}
    if detail:
        fields["detail"] = detail
    return Response(status, _json(fields), PROBLEM_JSON, tuple(headers))


def problem_of(code: Code, detail: str = "", retry_after_ms: int = 0) -> Response:
    """A refusal with a code of the registry. `detail` is for the client's eyes; the registry's English stands without."""
    status = STATUS_OF[code]
    fields: dict[str, object] = {
        "type": f"urn:chatd:error:{int(code)}",
        "title": code.name,
        "status": status,
        "detail": detail or ERRORS[code].english,
        "code": int(code),
        "retry_after_ms": retry_after_ms,
    }
    headers = [_BEARER] if status == HTTPStatus.UNAUTHORIZED else []
    if retry_after_ms > 0:
        headers.append(("Retry-After", str(ceil(retry_after_ms / 1000))))
    return Response(status, _json(fields), PROBLEM_JSON, tuple(headers))


def _json(fields: dict[str, object]) -> bytes:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")
