"""What is shown: events in, lines of (style, text) out. Pure; knows no terminal.

All text that came from somebody else passes through `shown`: a message is never obeyed by a terminal.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Final
from zlib import crc32

from chatd.terminal.commands import HELP
from chatd.terminal.state import Chat, Own, Tick
from protocol.client import ClientState, Closed, Connected, Reconnecting
from protocol.errors import ERRORS
from protocol.wire import Status

Line = list[tuple[str, str]]  # fragments: style class (see STYLES), text

LINES_MAX: Final = 40  # of one message; what is behind is counted, not shown
CHARS_MAX: Final = 8000  # of one message
QUOTE_CHARS_MAX: Final = 30
NAME_COLOURS: Final = ("ansigreen", "ansiyellow", "ansiblue", "ansimagenta", "ansicyan", "ansibrightred")
STYLES: Final = {
    "time": "ansibrightblack", "dim": "ansibrightblack", "me": "bold", "bad": "ansired", "good": "ansigreen",
    "prompt": "bold", "unread": "bold", "bottom-toolbar": "noreverse",
    **{f"name{index}": f"{colour} bold" for index, colour in enumerate(NAME_COLOURS)},
}  # fmt: skip
TICKS: Final = {Tick.WAITING: "…", Tick.ACCEPTED: "✓", Tick.DELIVERED: "✓✓", Tick.READ: "✓✓ read", Tick.FAILED: "✗"}

# --- text of others --------------------------------------------------------------------------------------------------

_JOINERS: Final = "\u200c\u200d"  # emoji and Persian need them, and they move nothing
_HIDDEN: Final = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))


def shown(text: str) -> str:
    """Control characters, escapes, direction overrides and the like as visible escapes (\\x1b, \\u202e); a tab is
    four spaces."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_shown_char, text))


def _shown_char(char: str) -> str:
    if char == "\t":
        return "    "
    if unicodedata.category(char) not in _HIDDEN or char in _JOINERS:
        return char
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def text_lines(payload: bytes) -> list[str]:
    """A payload as lines that are safe to print; at least one."""
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return [f"({len(payload)} bytes that are not text)"]
    lines = [shown(line) for line in text[:CHARS_MAX].replace("\r\n", "\n").split("\n")]
    if len(lines) > LINES_MAX or len(text) > CHARS_MAX:
        lines = [*lines[:LINES_MAX], f"({len(text)} characters in all)"]
    return lines


def quote(text: str) -> str:
    """The beginning of a text, on one line."""
    flat = shown(text.replace("\n", " "))
    return flat if len(flat) <= QUOTE_CHARS_MAX else flat[: QUOTE_CHARS_MAX - 1] + "…"


def name_style(user: str) -> str:
    """The same colour for the same user."""
    return f"class:name{crc32(user.encode()) % len(NAME_COLOURS)}"


# --- lines ------------------------------------------------------------------------------------------------------------


def message_lines(at: str, sender: str, payload: bytes) -> list[Line]:
    """Somebody's message. Only its first line begins at the left edge: nobody can forge another's."""
    first, *rest = text_lines(payload)
    head: Line = [("class:time", f"{at} "), (name_style(sender), shown(sender)), ("", f": {first}")]
    return [head, *([("class:dim", "      │ "), ("", line)] for line in rest)]


def copy_lines(at: str, to: str, payload: bytes) -> list[Line]:
    """What another device of ours sent."""
    first, *rest = text_lines(payload)
    head: Line = [("class:time", f"{at} "), ("class:me", "you"), ("class:dim", " → "), (name_style(to), shown(to))]
    return [[*head, ("", f": {first}")], *([("class:dim", "      │ "), ("", line)] for line in rest)]


def receipt_lines(peer: str, status: int, reason: int, moved: Iterable[Own]) -> list[Line]:
    """Our messages came further. One line for all of them."""
    own = list(moved)
    if not own:
        return []
    what = f"“{quote(own[-1].text)}”" + (f" and {len(own) - 1} before it" if len(own) > 1 else "")
    who = shown(peer)
    if status == Status.DELIVERED:
        return [[("class:good", "  ✓✓ "), ("class:dim", f"{who} has {what}")]]
    if status == Status.READ:
        return [[("class:good", "  ✓✓ "), ("class:dim", f"{who} has read {what}")]]
    return [[("class:bad", f"  ✗ {what} did not reach {who}: {english(reason)}")]]


def refused_lines(own: Own, why: str) -> list[Line]:
    """Our message was not taken."""
    return [[("class:bad", f"  ✗ “{quote(own.text)}” was not sent to {shown(own.to)}: {shown(why)}")]]


def gone_lines(first: int, last: int, reason: int) -> list[Line]:
    """Messages that will never come."""
    many = "A message" if first == last else f"{last - first + 1} messages"
    return [notice(f"{many} for you cannot come any more: {english(reason)}")]


def english(code: int) -> str:
    """An error code in words."""
    row = ERRORS.get(code)  # type: ignore[call-overload]
    return str(row.english) if row is not None else f"code {code}"


def notice(text: str) -> Line:
    """Something of our own to say."""
    return [("class:dim", f"* {text}")]


def mistake(text: str) -> Line:
    """The user typed what means nothing."""
    return [("class:bad", f"! {text}")]


def help_lines() -> list[Line]:
    """The commands."""
    width = max(len(command) for command, _ in HELP)
    return [[("class:me", f"  {command:<{width}}  "), ("class:dim", meaning)] for command, meaning in HELP]


def who_lines(chat: Chat, now_s: float) -> list[Line]:
    """Whom we know; the protocol tells nobody who is online."""
    if not chat.known:
        return [notice("nobody yet: type NAME: TEXT")]
    typing = chat.typing(now_s)
    return [_who_line(user, chat, user in typing) for user in chat.known]


def _who_line(user: str, chat: Chat, is_typing: bool) -> Line:
    line: Line = [("", "  "), (name_style(user), shown(user))]
    if user in chat.unread:
        line.append(("class:unread", f"  {chat.unread[user].count} unread"))
    if user == chat.peer:
        line.append(("class:dim", "  you talk to them"))
    if is_typing:
        line.append(("class:dim", "  is typing"))
    return line


# --- the prompt and the toolbar ---------------------------------------------------------------------------------------


def prompt(peer: str | None) -> Line:
    """Whom we talk to."""
    return (
        [("class:dim", "(/to NAME) > ")] if peer is None else [(name_style(peer), shown(peer)), ("class:prompt", " > ")]
    )


def toolbar(chat: Chat, server: str, now_s: float) -> Line:
    """The state of things, on one line."""
    line = [*link_words(chat.link, now_s), ("class:dim", f"  {chat.me} on {server}")]
    if chat.last is not None:
        line.append(("", f"  │ {shown(chat.last.to)}: {quote(chat.last.text)} {TICKS[chat.last.tick]}"))
    if chat.waiting > 1:
        line.append(("", f"  │ {chat.waiting} unsent"))
    if chat.unread_count:
        names = ", ".join(f"{shown(user)} {unread.count}" for user, unread in list(chat.unread.items())[:5])
        line.append(("class:unread", f"  │ {chat.unread_count} unread ({names})"))
    typing = chat.typing(now_s)
    if typing:
        verb = "is" if len(typing) == 1 else "are"
        line.append(("class:dim", f"  │ {', '.join(shown(user) for user in typing[:3])} {verb} typing…"))
    return line


def link_words(link: ClientState, now_s: float) -> Line:
    """Online, connecting, or when the next try is."""
    if isinstance(link, Connected):
        return [("class:good", "● online")]
    if isinstance(link, Reconnecting):
        return [("class:bad", f"○ offline, next try in {max(0, round(link.next_try_s - now_s))} s")]
    if isinstance(link, Closed):
        return [("class:bad", "○ closed")]
    return [("class:dim", "◌ connecting")]


def link_lines(before: ClientState, after: ClientState) -> list[Line]:
    """What is worth a line when the connection changes: each loss once, each return once, the end always."""
    if isinstance(after, Closed) and after.code is not None:
        return [mistake(f"{english(after.code)} ({shown(after.detail)})" if after.detail else english(after.code))]
    if isinstance(after, Reconnecting) and after.tries == 1:
        return [notice(f"offline: {shown(after.detail) or 'the connection was lost'}")]
    if isinstance(after, Connected) and not isinstance(before, Connected):
        return [notice("online")]
    return []


def plain(line: Line) -> str:
    """Without styles."""
    return "".join(text for _, text in line)
