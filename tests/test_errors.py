"""The error registry: numbers never change, and the hundreds keep their word."""

from __future__ import annotations

import pytest

from protocol.errors import ERRORS, Code

# Written out a second time on purpose: a number that changes its meaning turns this red. New rows go in, none goes out.
FOR_EVER = {
    "BAD_PREFACE": 100, "VERSION_UNSUPPORTED": 101, "FRAME_MALFORMED": 102, "BODY_MALFORMED": 103,
    "FRAME_TOO_LARGE": 104, "OUT_OF_TURN": 105, "SILENT": 106, "LOGIN_REQUIRED": 200, "BAD_CREDENTIALS": 201,
    "TOKEN_EXPIRED": 202, "TOKEN_FOREIGN": 203, "REPLACED": 204, "LOGIN_TIMEOUT": 205, "NOT_YOURS": 206,
    "BAD_NAME": 207, "REVOKED": 208, "UNSUPPORTED": 300, "TOO_LARGE": 301, "BAD_RECEIVER": 302, "NO_SUCH_USER": 303,
    "QUEUE_FULL": 304, "BAD_CID": 305, "BAD_ACK": 306, "BAD_REQUEST": 307, "TTL_PASSED": 308, "REMOVED": 309,
    "BUSY": 400, "RATE_LIMITED": 401, "STORE_DOWN": 402, "SERVER_FULL": 403, "GOING_AWAY": 404, "SLOW_READER": 405,
    "STORE_CHANGED": 406, "INTERNAL": 500,
}  # fmt: skip
FINAL_THOUGH_LATER = {Code.SILENT, Code.LOGIN_TIMEOUT}  # the two of 1xx and 2xx that a client comes back from


def test_no_number_has_changed_its_meaning() -> None:
    """[CHAT-91]"""
    assert {code.name: int(code) for code in Code} == FOR_EVER


@pytest.mark.parametrize("code", list(Code), ids=lambda code: code.name)
def test_a_row_keeps_the_word_of_its_hundred(code: Code) -> None:
    """[CHAT-90]: what a client does with an unknown code of the hundred must be safe for every known one."""
    row = ERRORS[code]
    hundred = int(code) // 100
    if hundred in (1, 2):
        assert row.closes
        assert row.retry == (code in FINAL_THOUGH_LATER)
    elif hundred == 3:
        assert not row.closes
    else:
        assert row.retry
    if hundred == 5:
        assert row.closes


def test_every_code_fits_a_websocket_close_code() -> None:
    """[CHAT-135]: 4000 + code is of the range that applications may use."""
    assert all(4000 < 4000 + code < 5000 for code in Code)


def test_every_row_says_something_else_in_words() -> None:
    """The English is for people, and tells the codes apart."""
    texts = [row.english for row in ERRORS.values()]
    assert all(texts)
    assert len(set(texts)) == len(texts)
