"""The route table: templates with typed constraints, checked when the table is built. Pure.

`/api/users/{user:name}/presence`: a segment is literal text or one parameter, `{name}` or `{name:c1:c2}`. A value must
fit every constraint (chatd/web/constraints.py), else the path is not found. A path is split at `/` first and
percent-decoded after, so %2F is part of a value and never a separator; encodings that are no UTF-8, and control
characters, are not found. No route is preferred over another: two that could both take a path are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any, Final, Generic, NamedTuple, TypeVar
from urllib.parse import unquote_to_bytes

from chatd.web.constraints import BadTemplate, Rule, may_overlap, parse_rule

__all__ = ["BadTemplate", "Found", "Missing", "Route", "Routes", "WrongMethod"]

H = TypeVar("H")

_METHOD: Final = re.compile(r"[A-Z]+")
_PARAMETER_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")
_LITERAL: Final = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@-]+")
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_BETWEEN: Final = "\0"  # joins decoded segments: no decoded segment may hold it


class Route(NamedTuple, Generic[H]):
    """One line of the table."""

    method: str
    template: str
    handler: H


class Found(NamedTuple, Generic[H]):
    """The route's handler, and its parameters as their constraints made them (int, UUID, bool, else str)."""

    handler: H
    args: Mapping[str, Any]


class Missing(NamedTuple):
    """No route takes this path: 404."""


class WrongMethod(NamedTuple):
    """The path exists, the method does not: 405."""

    allow: tuple[str, ...]


class _Compiled(NamedTuple, Generic[H]):
    route: Route[H]
    regex: re.Pattern[str]
    segments: tuple[Rule, ...]  # a literal is a Rule without a name
    rules: tuple[Rule, ...]  # the parameters, in the order of the regex' groups

    def fit(self, path: str) -> dict[str, Any] | None:
        match = self.regex.fullmatch(path)
        if match is None:
            return None
        args: dict[str, Any] = {}
        for rule, text in zip(self.rules, match.groups(), strict=True):
            value = rule.read(text)
            if value is None:
                return None
            args[rule.name] = value
        return args


class Routes(Generic[H]):
    """A table, compiled. Raises BadTemplate for a template that is malformed, or ambiguous with another."""

    def __init__(self, routes: Iterable[Route[H]]) -> None:
        self._table = [_compile(route) for route in routes]
        for one, other in combinations(self._table, 2):
            if one.route.method == other.route.method and _overlap(one, other):
                raise BadTemplate(f"{one.route.template} and {other.route.template} could take the same path")

    def match(self, method: str, path: str) -> Found[H] | Missing | WrongMethod:
        """`path` as it came, percent-encoded, without the query. HEAD is answered by GET's route."""
        decoded = _decode(path)
        if decoded is None:
            return Missing()
        wanted = "GET" if method == "HEAD" else method
        allow: set[str] = set()
        for compiled in self._table:
            args = compiled.fit(decoded)
            if args is None:
                continue
            if compiled.route.method == wanted:
                return Found(compiled.route.handler, args)
            allow.add(compiled.route.method)
        if "GET" in allow:
            allow.add("HEAD")
        return WrongMethod(tuple(sorted(allow))) if allow else Missing()


def _decode(path: str) -> str | None:
    """The segments of a path, decoded and joined by NUL, each preceded by one; None: nothing can be found there."""
    if not path.startswith("/") or _BAD_ESCAPE.search(path):
        return None
    parts = []
    for raw in path[1:].split("/"):
        try:
            text = unquote_to_bytes(raw).decode()
        except UnicodeDecodeError:
            return None
        if _CONTROL.search(text):
            return None
        parts.append(text)
    return _BETWEEN + _BETWEEN.join(parts)


def _compile(route: Route[H]) -> _Compiled[H]:
    if not _METHOD.fullmatch(route.method) or route.method == "HEAD":
        raise BadTemplate(f"{route.method}: a method is upper case, and HEAD comes with GET")
    segments = tuple(_segment(text, route.template) for text in _split(route.template))
    rules = tuple(segment for segment in segments if segment.name)
    if len({rule.name for rule in rules}) != len(rules):
        raise BadTemplate(f"{route.template}: a parameter stands twice")
    shape = "".join(
        _BETWEEN + (f"([^{_BETWEEN}]+)" if segment.name else re.escape(segment.source)) for segment in segments
    )
    return _Compiled(route, re.compile(shape), segments, rules)


def _split(template: str) -> list[str]:
    """A template at its slashes; a slash inside braces belongs to a regex."""
    if not template.startswith("/"):
        raise BadTemplate(f"{template}: a template begins with /")
    parts, depth, escaped = [""], 0, False
    for char in template[1:]:
        if not escaped and char in "{}":
            depth += 1 if char == "{" else -1
        escaped = char == "\\" and not escaped
        if char == "/" and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    if depth != 0:
        raise BadTemplate(f"{template}: braces do not match")
    return parts


def _segment(text: str, template: str) -> Rule:
    if not text.startswith("{"):
        if not _LITERAL.fullmatch(text):
            raise BadTemplate(f"{template}: {text!r} is neither plain text nor one whole parameter")
        return Rule("", text, (), frozenset({text}))
    if not text.endswith("}"):
        raise BadTemplate(f"{template}: a parameter is a whole segment, {text!r} is not")
    name, _, constraints = text[1:-1].partition(":")
    if not _PARAMETER_NAME.fullmatch(name):
        raise BadTemplate(f"{template}: {name!r} is no parameter name")
    if text[1:-1].endswith(":"):
        raise BadTemplate(f"{template}: a constraint is missing behind {text!r}")
    return parse_rule(name, constraints)


def _overlap(one: _Compiled[H], other: _Compiled[H]) -> bool:
    if len(one.segments) != len(other.segments):
        return False
    return all(may_overlap(a, b) for a, b in zip(one.segments, other.segments, strict=True))
