from __future__ import annotations

import pytest

from chatd.web.guard import Breach, CloseCode, MessageGuard, MessageLimits, Opcode, close_reason, is_close_code

LIMITS = MessageLimits(message_bytes_max=10, fragments_max=3, idle_frames_max=2, idle_window_s=10.0)
B, T, C = Opcode.BINARY, Opcode.TEXT, Opcode.CONTINUATION

GOOD = [
    ("one frame", [(B, True, b"0123456789")], [b"0123456789"]),
    ("two messages", [(B, True, b"a"), (B, True, b"b")], [b"a", b"b"]),
    ("three fragments", [(B, False, b"a"), (C, False, b"b"), (C, True, b"c"), (B, True, b"d")], [b"abc", b"d"]),
    ("an empty message", [(B, True, b"")], []),
    ("empty fragments", [(B, False, b""), (C, False, b""), (C, True, b"a")], [b"a"]),
    ("exactly the limit in fragments", [(B, False, b"01234"), (C, True, b"56789")], [b"0123456789"]),
]
BAD = [
    ("text", [(T, True, b"a")], CloseCode.UNSUPPORTED_DATA),
    ("text within a message", [(B, False, b"a"), (T, True, b"a")], CloseCode.UNSUPPORTED_DATA),
    ("a continuation without a start", [(C, True, b"a")], CloseCode.PROTOCOL_ERROR),
    ("a continuation behind the end", [(B, False, b"a"), (C, True, b"a"), (C, True, b"a")], CloseCode.PROTOCOL_ERROR),
    ("a start within a message", [(B, False, b"a"), (B, True, b"a")], CloseCode.PROTOCOL_ERROR),
    ("too long", [(B, True, b"01234567890")], CloseCode.TOO_BIG),
    ("too long in fragments", [(B, False, b"0123456789"), (C, False, b"0")], CloseCode.TOO_BIG),
    ("too many fragments", [(B, False, b""), (C, False, b""), (C, False, b""), (C, False, b"")], CloseCode.TOO_BIG),
    ("too many empty messages", [(B, True, b"")] * 3, CloseCode.POLICY),
    ("too many empty messages in fragments", [(B, False, b""), (C, True, b"")] * 3, CloseCode.POLICY),
]

Frames = list[tuple[int, bool, bytes]]


@pytest.mark.parametrize(("name", "frames", "messages"), GOOD)
def test_frames_become_whole_messages(name: str, frames: Frames, messages: list[bytes]) -> None:
    guard = MessageGuard(LIMITS)
    taken = [guard.take_data(*frame, now_s=0.0) for frame in frames]
    assert [message for message in taken if message] == messages


@pytest.mark.parametrize(("name", "frames", "code"), BAD)
def test_a_breach_has_its_close_code_at_the_frame_that_makes_it(name: str, frames: Frames, code: int) -> None:
    guard = MessageGuard(LIMITS)
    for frame in frames[:-1]:
        guard.take_data(*frame, now_s=0.0)
    with pytest.raises(Breach) as caught:
        guard.take_data(*frames[-1], now_s=0.0)
    assert caught.value.code == code


def test_idle_frames_are_counted_a_window() -> None:
    guard = MessageGuard(LIMITS)
    for now_s in (1.0, 2.0, 11.0, 12.0, 21.0):
        guard.take_idle(now_s)
    guard.take_idle(22.0)
    with pytest.raises(Breach):
        guard.take_idle(23.0)


def test_only_codes_that_may_stand_in_a_close_frame_pass() -> None:
    bad = {0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535}
    good = {1000, 1001, 1002, 1003, 1007, 1011, 1014, 3000, 4204, 4999}
    assert {code for code in bad | good if is_close_code(code)} == good


def test_a_close_reason_is_cut_at_a_character() -> None:
    assert close_reason("x" * 122 + "ä") == b"x" * 122
    assert close_reason("x" * 121 + "ä") == b"x" * 121 + "ä".encode()
