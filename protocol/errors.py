"""The error registry: one number, one meaning, for ever. Spec: protocol/SPEC.md §9, whose table is printed from here.

The hundreds say what a client does with a code that it does not know: 1xx your bytes are wrong (closes, final),
2xx who you are (closes, final), 3xx what you asked (stays open, final), 4xx come back later, 5xx our fault, retry.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final


class Code(IntEnum):
    """Error codes as they stand on the wire (ERROR, GOAWAY, RECEIPT reason, WebSocket close code 4000 + code)."""

    BAD_PREFACE = 100
    VERSION_UNSUPPORTED = 101
    FRAME_MALFORMED = 102
    BODY_MALFORMED = 103
    FRAME_TOO_LARGE = 104
    OUT_OF_TURN = 105
    SILENT = 106

    LOGIN_REQUIRED = 200
    BAD_CREDENTIALS = 201
    TOKEN_EXPIRED = 202
    TOKEN_FOREIGN = 203
    REPLACED = 204
    LOGIN_TIMEOUT = 205
    NOT_YOURS = 206
    BAD_NAME = 207
    REVOKED = 208

    UNSUPPORTED = 300
    TOO_LARGE = 301
    BAD_RECEIVER = 302
    NO_SUCH_USER = 303
    QUEUE_FULL = 304
    BAD_CID = 305
    BAD_ACK = 306
    BAD_REQUEST = 307
    TTL_PASSED = 308
    REMOVED = 309

    BUSY = 400
    RATE_LIMITED = 401
    STORE_DOWN = 402
    SERVER_FULL = 403
    GOING_AWAY = 404
    SLOW_READER = 405
    STORE_CHANGED = 406

    INTERNAL = 500


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """One line of the registry: English, does the connection close, may the client come back with the same words."""

    code: Code
    english: str
    closes: bool
    retry: bool


def _row(code: Code, english: str, *, closes: bool, retry: bool = False) -> ErrorRow:
    return ErrorRow(code, english, closes, retry)


_ROWS: Final = (
    _row(Code.BAD_PREFACE, "the first bytes are not CHTD and a version", closes=True),
    _row(Code.VERSION_UNSUPPORTED, "this server does not speak that major version", closes=True),
    _row(Code.FRAME_MALFORMED, "a frame head breaks a rule", closes=True),
    _row(Code.BODY_MALFORMED, "a body is not the msgpack that its type asks for", closes=True),
    _row(Code.FRAME_TOO_LARGE, "a frame claims more bytes than may be skipped", closes=True),
    _row(Code.OUT_OF_TURN, "this message may not be sent by you, or not now", closes=True),
    _row(Code.SILENT, "nothing was heard for two keepalive intervals", closes=True, retry=True),
    _row(Code.LOGIN_REQUIRED, "log in with HELLO first", closes=True),
    _row(Code.BAD_CREDENTIALS, "user, token or password are not right", closes=True),
    _row(Code.TOKEN_EXPIRED, "the token has expired: get a new one", closes=True),
    _row(Code.TOKEN_FOREIGN, "the token's key, issuer or audience is not accepted here", closes=True),
    _row(Code.REPLACED, "this device logged in elsewhere: the newest session wins, do not reconnect", closes=True),
    _row(Code.LOGIN_TIMEOUT, "the login took too long", closes=True, retry=True),
    _row(Code.NOT_YOURS, "the credentials belong to another user", closes=True),
    _row(Code.BAD_NAME, "a user or device name holds a character or length that is not allowed", closes=True),
    _row(Code.REVOKED, "the account was closed or its credentials withdrawn", closes=True),
    _row(Code.UNSUPPORTED, "this message type is not known here", closes=False),
    _row(Code.TOO_LARGE, "the frame is over the limit and was skipped", closes=False),
    _row(Code.BAD_RECEIVER, "the receiver's name holds a character or length that is not allowed", closes=False),
    _row(Code.NO_SUCH_USER, "the receiver does not exist", closes=False),
    _row(Code.QUEUE_FULL, "the receiver's queue is full, or the sender's own", closes=False, retry=True),
    _row(Code.BAD_CID, "a cid must be larger than all before it in this session", closes=False),
    _row(Code.BAD_ACK, "an acknowledgement or credit is beyond what was delivered or allowed", closes=False),
    _row(Code.BAD_REQUEST, "a field has a value that is not allowed", closes=False),
    _row(Code.TTL_PASSED, "the message was not delivered within its time to live", closes=False),
    _row(Code.REMOVED, "an administrator removed the message", closes=False),
    _row(Code.BUSY, "the server cannot take it now: send it again later under a new cid", closes=False, retry=True),
    _row(Code.RATE_LIMITED, "too many: slow down", closes=False, retry=True),
    _row(Code.STORE_DOWN, "the store cannot be reached: come back", closes=True, retry=True),
    _row(Code.SERVER_FULL, "no more connections are taken here", closes=True, retry=True),
    _row(
        Code.GOING_AWAY, "this server stops: reconnect within the window, elsewhere if you can", closes=True, retry=True
    ),
    _row(Code.SLOW_READER, "you read too slowly: what waits is kept, reconnect to get it", closes=True, retry=True),
    _row(Code.STORE_CHANGED, "the store is not the one that was known: come back when it is", closes=True, retry=True),
    _row(Code.INTERNAL, "a fault of the server", closes=True, retry=True),
)

ERRORS: Final[dict[Code, ErrorRow]] = {row.code: row for row in _ROWS}

assert set(ERRORS) == set(Code)
assert len(_ROWS) == len(Code)
assert all(ERRORS[code].closes for code in Code if code < 300), "1xx and 2xx close"
assert not any(ERRORS[code].closes for code in Code if 300 <= code < 400), "3xx stay open"
