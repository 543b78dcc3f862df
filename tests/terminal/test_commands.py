from __future__ import annotations

import pytest

from chatd.terminal.app import completions
from chatd.terminal.commands import COMMANDS, Command, Help, Mistake, Nothing, Quit, Say, TurnTo, Who, parse

KNOWN = ["bob", "carol"]


@pytest.mark.parametrize(
    ("line", "peer", "command"),
    [
        ("hello", "bob", Say("bob", "hello")),
        ("  hello there ", "bob", Say("bob", "hello there")),
        ("carol: hi", "bob", Say("carol", "hi")),
        ("carol:hi", "bob", Say("carol", "hi")),
        ("note: buy milk", "bob", Say("bob", "note: buy milk")),
        ("dave: hi", None, Say("dave", "hi")),
        ("carol:", "bob", TurnTo("carol")),
        ("10:30 is fine", "bob", Say("bob", "10:30 is fine")),
        ("https://example.org", "bob", Say("bob", "https://example.org")),
        ("//shrug", "bob", Say("bob", "/shrug")),
        ("/to carol", None, TurnTo("carol")),
        ("/who", None, Who()),
        ("/help", "bob", Help()),
        ("/quit", "bob", Quit()),
        ("", "bob", Nothing()),
        ("   ", None, Nothing()),
        ("a\nb", "bob", Say("bob", "a\nb")),
    ],
)
def test_a_line_means_one_thing(line: str, peer: str | None, command: Command) -> None:
    assert parse(line, peer, KNOWN) == command


@pytest.mark.parametrize(
    ("line", "peer"),
    [
        ("hello", None),
        ("Dave: hi", None),
        ("/to", "bob"),
        ("/to Dave", "bob"),
        ("/nonsense", "bob"),
        ("/quit now", "bob"),
    ],
)
def test_a_mistake_is_told_and_nothing_is_sent(line: str, peer: str | None) -> None:
    assert isinstance(parse(line, peer, KNOWN), Mistake)


@pytest.mark.parametrize(
    ("text", "whole"),
    [("/", ["/to ", "/who", "/help", "/quit"]), ("/w", ["/who"]), ("/to c", ["/to carol"]), ("b", ["bob: "]),
     ("bob: c", []), ("", []), ("zz", [])],
)  # fmt: skip
def test_tab_completes_commands_and_known_users(text: str, whole: list[str]) -> None:
    assert completions(text, KNOWN) == whole


def test_every_command_is_in_the_help() -> None:
    from chatd.terminal.commands import HELP

    helped = {line.split()[0] for line, _ in HELP}
    assert set(COMMANDS) <= helped
