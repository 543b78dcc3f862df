"""How one setting is read: TOML gives it in its type, the environment as text. Nothing is guessed: 1 is not true."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final


def _read_str(raw: Any, is_text: bool) -> str:
    if not isinstance(raw, str) or not raw.isprintable():
        raise ValueError
    return raw


def _read_int(raw: Any, is_text: bool) -> int:
    if type(raw) is not (str if is_text else int):
        raise ValueError
    return int(raw)


def _read_float(raw: Any, is_text: bool) -> float:
    if type(raw) not in ((str,) if is_text else (int, float)):
        raise ValueError
    value = float(raw)
    if not math.isfinite(value):
        raise ValueError
    return value


def _read_bool(raw: Any, is_text: bool) -> bool:
    if is_text:
        raw = {"true": True, "false": False}.get(raw)
    if type(raw) is not bool:
        raise ValueError
    return raw


def _read_path(raw: Any, is_text: bool) -> Path:
    text = _read_str(raw, is_text)
    if not text:
        raise ValueError
    return Path(text).expanduser()


def _read_strings(raw: Any, is_text: bool) -> tuple[str, ...]:
    if is_text:
        raw = [part.strip() for part in raw.split(",") if part.strip()]
    if not isinstance(raw, list):
        raise ValueError
    return tuple(_read_str(one, is_text) for one in raw)


READERS: Final[dict[Any, Callable[[Any, bool], Any]]] = {
    str: _read_str,
    int: _read_int,
    float: _read_float,
    bool: _read_bool,
    Path: _read_path,
    tuple[str, ...]: _read_strings,
}
KIND_NAMES: Final[dict[Any, str]] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    Path: "a path",
    tuple[str, ...]: "a list of texts",
}
