"""What is shown, word for word."""

from __future__ import annotations

import unicodedata
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatd.terminal import view
from chatd.terminal.pipe import pipe_line
from chatd.terminal.state import Chat, Own, Tick
from protocol.client import Closed, Connected, Connecting, Reconnecting
from protocol.errors import Code
from protocol.messages import Deliver
from protocol.wire import Status

ONLINE = Connected("node", "session")


def texts(lines: list[view.Line]) -> list[str]:
    return [view.plain(line) for line in lines]


def test_a_message_shows_when_who_and_what() -> None:
    (line,) = view.message_lines("10:21", "bob", b"hello")
    assert line == [("class:time", "10:21 "), (view.name_style("bob"), "bob"), ("", ": hello")]


def test_further_lines_of_a_message_are_set_in_so_that_nobody_can_forge_anothers() -> None:
    assert texts(view.message_lines("10:21", "bob", b"one\n10:22 carol: two")) == [
        "10:21 bob: one",
        "      │ 10:22 carol: two",
    ]


@pytest.mark.parametrize(
    ("text", "seen"),
    [("\x1b[2J", "\\x1b[2J"), ("a\x07b", "a\\x07b"), ("\u202eevil", "\\u202eevil"), ("a\tb", "a    b"), ("\x9b31m", "\\x9b31m"),
     ("naïve 你好 👩\u200d🚀", "naïve 你好 👩\u200d🚀"), ("\r", "\\x0d"), ("\U000e0041", "\\U000e0041"), ("\u2028", "\\u2028")],
)  # fmt: skip
def test_what_would_be_obeyed_is_shown(text: str, seen: str) -> None:
    assert view.shown(text) == seen


@given(st.binary(max_size=300))
def test_no_payload_puts_a_control_character_on_the_terminal(payload: bytes) -> None:
    out = "".join(texts(view.message_lines("10:21", "bob", payload))) + pipe_line("bob", payload)
    assert not [char for char in out if unicodedata.category(char) in ("Cc", "Cs", "Co", "Cn", "Zl", "Zp")]


def test_bytes_that_are_no_text_are_counted_not_printed() -> None:
    assert texts(view.message_lines("10:21", "bob", b"\xff\xfe\x00")) == ["10:21 bob: (3 bytes that are not text)"]


def test_a_wall_of_lines_is_cut() -> None:
    lines = view.message_lines("10:21", "bob", b"x\n" * 5000)
    assert len(lines) == view.LINES_MAX + 1
    assert texts(lines)[-1] == "      │ (10000 characters in all)"


def test_what_another_device_sent_is_mine_and_says_to_whom() -> None:
    assert texts(view.copy_lines("10:21", "bob", b"from the phone")) == ["10:21 you → bob: from the phone"]


@pytest.mark.parametrize(
    ("status", "reason", "line"),
    [
        (Status.DELIVERED, 0, "  ✓✓ bob has “see you” and 1 before it"),
        (Status.READ, 0, "  ✓✓ bob has read “see you” and 1 before it"),
        (Status.EXPIRED, Code.TTL_PASSED,
         "  ✗ “see you” and 1 before it did not reach bob: the message was not delivered within its time to live"),
        (Status.FAILED, Code.NO_SUCH_USER, "  ✗ “see you” and 1 before it did not reach bob: the receiver does not exist"),
        (Status.FAILED, 999, "  ✗ “see you” and 1 before it did not reach bob: code 999"),
    ],
)  # fmt: skip
def test_what_became_of_ours_is_one_line(status: Status, reason: int, line: str) -> None:
    moved = [Own("bob", "hello"), Own("bob", "see you")]
    assert texts(view.receipt_lines("bob", status, reason, moved)) == [line]


def test_nothing_new_is_no_line() -> None:
    assert view.receipt_lines("bob", Status.DELIVERED, 0, []) == []


def test_the_prompt_says_to_whom() -> None:
    assert view.plain(view.prompt(None)) == "(/to NAME) > "
    assert view.plain(view.prompt("bob")) == "bob > "


def test_the_toolbar_says_how_things_are() -> None:
    chat = Chat("ann")
    chat.link = ONLINE
    chat.turn_to("bob")
    own = chat.say("bob", "a text that is far too long for a toolbar to hold")
    chat.accept(own, b"1" * 16)
    chat.hear(Deliver(1, 0, "carol", b"2" * 16, 0, b"psst"))
    chat.hear_typing("bob", True, 100.0)
    assert view.plain(view.toolbar(chat, "127.0.0.1:7400", 101.0)) == (
        "● online  ann on 127.0.0.1:7400  │ bob: a text that is far too long f… ✓  │ 1 unread (carol 1)  │ bob is typing…"
    )


@pytest.mark.parametrize(
    ("tick", "mark"),
    [(Tick.WAITING, "…"), (Tick.ACCEPTED, "✓"), (Tick.DELIVERED, "✓✓"), (Tick.READ, "✓✓ read"), (Tick.FAILED, "✗")],
)
def test_ticks(tick: Tick, mark: str) -> None:
    chat = Chat("ann")
    chat.say("bob", "hi").tick = tick
    assert view.plain(view.toolbar(chat, "here", 0.0)).endswith(f"│ bob: hi {mark}")


@pytest.mark.parametrize(
    ("link", "words"),
    [(Connecting(), "◌ connecting"), (ONLINE, "● online"), (Closed(Code.REPLACED, ""), "○ closed"),
     (Reconnecting(4.0, 104.2, 2, None, ""), "○ offline, next try in 4 s"),
     (Reconnecting(4.0, 99.0, 2, None, ""), "○ offline, next try in 0 s")],
)  # fmt: skip
def test_the_connection_in_words(link: object, words: str) -> None:
    assert view.plain(view.link_words(link, 100.0)) == words  # type: ignore[arg-type]


def test_a_loss_is_told_once_and_so_is_the_return() -> None:
    first = Reconnecting(0.3, 1.0, 1, None, "the server closed the connection")
    second = first._replace(tries=2)
    steps = [Connecting(), ONLINE, first, Connecting(), second, Connecting(), ONLINE]
    told = [texts(view.link_lines(before, after)) for before, after in pairwise(steps)]
    assert told == [["* online"], ["* offline: the server closed the connection"], [], [], [], ["* online"]]


def test_the_end_says_why() -> None:
    (line,) = texts(view.link_lines(ONLINE, Closed(Code.REPLACED, "")))
    assert line == "! this device logged in elsewhere: the newest session wins, do not reconnect"
    assert view.link_lines(ONLINE, Closed(None, "closed by this side")) == []


def test_who_lists_whom_we_know_the_latest_first() -> None:
    chat = Chat("ann")
    assert texts(view.who_lines(chat, 0.0)) == ["* nobody yet: type NAME: TEXT"]
    chat.turn_to("bob")
    chat.hear(Deliver(1, 0, "carol", b"2" * 16, 0, b"psst"))
    chat.hear_typing("carol", True, 0.0)
    assert texts(view.who_lines(chat, 1.0)) == ["  carol  1 unread  is typing", "  bob  you talk to them"]


def test_gone_messages_are_owned_up_to() -> None:
    assert texts(view.gone_lines(3, 5, Code.TTL_PASSED)) == [
        "* 3 messages for you cannot come any more: the message was not delivered within its time to live"
    ]


def test_a_pipe_line_is_one_line() -> None:
    assert pipe_line("bob", b"one\ntwo \x1b[31m") == "bob: one\\x0atwo \\x1b[31m"
