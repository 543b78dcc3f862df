"""What a line that somebody typed means. Pure."""

from __future__ import annotations

import re
from collections.abc import Container
from typing import Final, NamedTuple

from protocol.names import NAME_ALLOWED, is_name

HELP: Final = (
    ("/to NAME", "talk to somebody; what you type then goes there"),
    ("NAME: TEXT", "send one message to NAME and go on talking to NAME"),
    ("/who", "whom you know here, and what is unread"),
    ("/help", "this"),
    ("/quit", "leave (also Ctrl-D); what is unsent goes out next time"),
    ("//TEXT", "send a text that begins with a slash"),
)
COMMANDS: Final = ("/to", "/who", "/help", "/quit")


class Say(NamedTuple):
    """Send `text` to `to`, and go on talking to `to`."""

    to: str
    text: str


class TurnTo(NamedTuple):
    """Talk to `user` from now on."""

    user: str


class Who(NamedTuple):
    """List whom we know."""


class Help(NamedTuple):
    """Show the commands."""


class Quit(NamedTuple):
    """Leave."""


class Nothing(NamedTuple):
    """An empty line."""


class Mistake(NamedTuple):
    """The line means nothing; `why` says what would."""

    why: str


Command = Say | TurnTo | Who | Help | Quit | Nothing | Mistake

_addressed = re.compile(r"([^\s:]+):\s?(.*)", re.DOTALL).fullmatch


def parse(line: str, peer: str | None, known: Container[str]) -> Command:
    """`peer` is whom we talk to now. `word: text` is an address only for a user we know, or while there is no peer:
    else "note: buy milk" would go to a user called note."""
    text = line.strip()
    if not text:
        return Nothing()
    if text.startswith("//"):
        return _say(peer, text[1:])
    if text.startswith("/"):
        return _command(text)
    match = _addressed(text)
    if match is not None and (peer is None or match[1] in known):
        return _say(match[1], match[2])
    return _say(peer, text)


def _say(to: str | None, text: str) -> Command:
    if to is None:
        return Mistake("to whom? Type /to NAME, or NAME: TEXT")
    if not is_name(to):
        return Mistake(f"a name is {NAME_ALLOWED}")
    return Say(to, text) if text else TurnTo(to)


def _command(text: str) -> Command:
    word, _, rest = text.partition(" ")
    rest = rest.strip()
    if word == "/to":
        if is_name(rest):
            return TurnTo(rest)
        return Mistake(f"/to NAME, where a name is {NAME_ALLOWED}")
    if word in _BARE and not rest:
        return _BARE[word]
    return Mistake("not a command; /help shows them")


_BARE: Final[dict[str, Command]] = {"/who": Who(), "/help": Help(), "/quit": Quit()}

assert set(COMMANDS) == {"/to", *_BARE}
