"""Makes what is logged safe: one event is one line, whatever a client put into a name; no secrets, no message bodies."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from enum import Enum
from pathlib import PurePath
from typing import Any, Final

from brokerd.masking import masked

VALUE_CHARS_MAX: Final = 1024
TRACEBACK_CHARS_MAX: Final = 16 * 1024
VALUES_MAX: Final = 32  # pairs of one event, items of one list
ID_BYTES_MAX: Final = 16  # bytes up to here are ids and shown as hex; longer ones may be a body: only their length
NUMBER_MAX: Final = 2.0**64  # nan and inf are none of JSON
HIDDEN: Final = frozenset({"payload", "body", "secret", "password", "token"})


def clean_text(text: str, chars_max: int = VALUE_CHARS_MAX) -> str:
    """`text`, cut, with all that is not printable (control, format, separators) written as an escape."""
    if len(text) > chars_max:
        text = text[:chars_max] + "…"
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def clean(value: Any) -> Any:
    """A value that a renderer can not be fooled by: text, a number, a bool, None, or a list of them."""
    kind = type(value)
    if kind is str:
        return clean_text(value)
    if kind is int or kind is float:
        return value if abs(value) < NUMBER_MAX else "<out of range>"
    if value is None or kind is bool:
        return value
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, (str, PurePath)):
        return clean_text(str(value))
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex() if len(value) <= ID_BYTES_MAX else f"<{len(value)} bytes>"
    if isinstance(value, (list, tuple, set, frozenset)):
        return [clean(one) if not isinstance(one, (list, tuple)) else _shown(one) for one in list(value)[:VALUES_MAX]]
    return _shown(value)


def _shown(value: Any) -> str:
    try:
        return masked(clean_text(repr(value)))
    except Exception as error:  # a log call must not fail for the repr of what it shows
        return f"<{type(value).__name__}, its repr raises {type(error).__name__}>"


def clean_event(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """A structlog processor: the event with clean keys and values. A traceback is made a list of clean lines."""
    cleaned: dict[str, Any] = {}
    for key, value in list(event.items())[:VALUES_MAX]:
        if key in HIDDEN:
            value = "<hidden>"
        elif key == "exception" and isinstance(value, str):
            cleaned[key] = [masked(clean_text(line)) for line in value[-TRACEBACK_CHARS_MAX:].splitlines()]
            continue
        cleaned[clean_text(key)] = clean(value)
    return cleaned
