"""What a route parameter may hold: `int`, `length(1,64)`, `enum(a|b)`, `regex(...)`, `name` and the rest. Pure.

The names and meanings are those of ASP.NET's route constraints where it has one, with three differences: upper and
lower case differ, a number is ASCII digits in 64 bits, and a regex must match the whole value.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple
from uuid import UUID

from protocol.names import is_name

Read = Callable[[str], Any]  # the value that a text stands for, or None when it does not fit

_INT: Final = re.compile(r"-?[0-9]{1,19}")
_UUID: Final = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_ALPHA: Final = re.compile(r"[A-Za-z]+")
_CONSTRAINT_NAME: Final = re.compile(r"[a-z]+")
_BOOLS: Final = {"true": True, "false": False}


class BadTemplate(Exception):
    """A template that cannot stand in the table: a mistake in our code, found when the table is built."""


class _Constraint(NamedTuple):
    kind: str  # "number", "alpha", "uuid": two different ones never hold the same text; "" says nothing
    read: Read
    finite: frozenset[str] | None  # all texts that fit, when they can be listed


class Rule(NamedTuple):
    """One segment of a template: a parameter with its constraints, or (name "") the literal `source`."""

    name: str
    source: str
    constraints: tuple[_Constraint, ...]
    finite: frozenset[str] | None

    @property
    def kind(self) -> str:
        """See _Constraint.kind; parse_rule lets one rule have one kind only."""
        return next((constraint.kind for constraint in self.constraints if constraint.kind), "")

    def read(self, text: str) -> Any:
        """The value, made by the first constraint that makes another type; None when any constraint refuses."""
        if not self.name:
            return text if text == self.source else None
        value: Any = text
        for constraint in self.constraints:
            read = constraint.read(text)
            if read is None:
                return None
            if type(value) is str:
                value = read
        return value


def may_overlap(one: Rule, other: Rule) -> bool:
    """Whether some text could fit both; True when that cannot be ruled out."""
    if one.finite is not None:
        return any(other.read(text) is not None for text in one.finite)
    if other.finite is not None:
        return any(one.read(text) is not None for text in other.finite)
    return not (one.kind and other.kind) or one.kind == other.kind


def parse_rule(name: str, source: str) -> Rule:
    """The rule of a parameter from the text behind its name, `int:min(3)`; raises BadTemplate."""
    constraints = tuple(_constraint(word, arguments) for word, arguments in _cut(source))
    if len({c.kind for c in constraints if c.kind}) > 1:
        raise BadTemplate(f"{{{name}:{source}}}: nothing can fit both constraints")
    finite = [c.finite for c in constraints if c.finite is not None]
    rule = Rule(name, source, constraints, None)
    if not finite:
        return rule
    fitting = frozenset(text for text in finite[0] if rule.read(text) is not None)
    if not fitting:
        raise BadTemplate(f"{{{name}:{source}}}: nothing can fit")
    return rule._replace(finite=fitting)


def _cut(source: str) -> list[tuple[str, str | None]]:
    """`int:range(1,2)` → [("int", None), ("range", "1,2")]. Parentheses nest; a backslash takes the next character."""
    out: list[tuple[str, str | None]] = []
    at = 0
    while at < len(source):
        word = _CONSTRAINT_NAME.match(source, at)
        if word is None:
            raise BadTemplate(f"{source!r}: a constraint is a word, at {source[at:]!r}")
        at = word.end()
        arguments = None
        if at < len(source) and source[at] == "(":
            end = _closing(source, at)
            arguments, at = source[at + 1 : end], end + 1
        out.append((word.group(), arguments))
        if at < len(source):
            if source[at] != ":" or at + 1 == len(source):
                raise BadTemplate(f"{source!r}: constraints are separated by one colon")
            at += 1
    return out


def _closing(source: str, at: int) -> int:
    depth = 0
    while at < len(source):
        if source[at] == "\\":
            at += 1
        elif source[at] == "(":
            depth += 1
        elif source[at] == ")":
            depth -= 1
            if depth == 0:
                return at
        at += 1
    raise BadTemplate(f"{source!r}: a parenthesis is not closed")


def _constraint(word: str, arguments: str | None) -> _Constraint:
    if word in _PLAIN:
        if arguments is not None:
            raise BadTemplate(f"{word} takes no arguments")
        return _PLAIN[word]
    if word not in _WITH_ARGUMENTS:
        raise BadTemplate(f"there is no constraint {word!r}")
    if not arguments:
        raise BadTemplate(f"{word} needs arguments")
    return _WITH_ARGUMENTS[word](arguments)


# --- the constraints ---------------------------------------------------------------------------------------------


def _read_int(text: str) -> int | None:
    if not _INT.fullmatch(text):
        return None
    value = int(text)
    return value if -(2**63) <= value < 2**63 else None


def _read_uuid(text: str) -> UUID | None:
    return UUID(text) if _UUID.fullmatch(text) else None


def _read_alpha(text: str) -> str | None:
    return text if _ALPHA.fullmatch(text) else None


def _read_name(text: str) -> str | None:
    return text if is_name(text) else None


def _numbers(arguments: str, count: range) -> list[int]:
    texts = [text.strip() for text in arguments.split(",")]
    values = [_read_int(text) for text in texts]
    if len(values) not in count or None in values:
        raise BadTemplate(f"({arguments}): whole numbers are needed, {' or '.join(map(str, count))} of them")
    return [value for value in values if value is not None]


def _between(low: int, high: int) -> _Constraint:
    if low > high:
        raise BadTemplate(f"nothing is between {low} and {high}")

    def read(text: str) -> int | None:
        value = _read_int(text)
        return value if value is not None and low <= value <= high else None

    return _Constraint("number", read, None)


def _long(low: int, high: float) -> _Constraint:
    if not 0 <= low <= high:
        raise BadTemplate(f"no text has between {low} and {high} characters")
    return _Constraint("", lambda text: text if low <= len(text) <= high else None, None)


def _length(arguments: str) -> _Constraint:
    values = _numbers(arguments, range(1, 3))
    return _long(values[0], values[-1])


def _enum(arguments: str) -> _Constraint:
    members = arguments.split("|")
    if "" in members or len(set(members)) != len(members):
        raise BadTemplate(f"enum({arguments}): a member is empty or stands twice")
    return _Constraint("", lambda text: text if text in members else None, frozenset(members))


def _regex(arguments: str) -> _Constraint:
    try:
        pattern = re.compile(arguments)
    except re.error as fault:
        raise BadTemplate(f"regex({arguments}): {fault}") from fault
    return _Constraint("", lambda text: text if pattern.fullmatch(text) else None, None)


_PLAIN: Final[dict[str, _Constraint]] = {
    "int": _Constraint("number", _read_int, None),
    "uuid": _Constraint("uuid", _read_uuid, None),
    "guid": _Constraint("uuid", _read_uuid, None),
    "alpha": _Constraint("alpha", _read_alpha, None),
    "bool": _Constraint("", _BOOLS.get, frozenset(_BOOLS)),
    "name": _Constraint("", _read_name, None),
}
_WITH_ARGUMENTS: Final[dict[str, Callable[[str], _Constraint]]] = {
    "min": lambda text: _between(_numbers(text, range(1, 2))[0], 2**63 - 1),
    "max": lambda text: _between(-(2**63), _numbers(text, range(1, 2))[0]),
    "range": lambda text: _between(*_numbers(text, range(2, 3))),
    "length": _length,
    "minlength": lambda text: _long(_numbers(text, range(1, 2))[0], float("inf")),
    "maxlength": lambda text: _long(0, _numbers(text, range(1, 2))[0]),
    "enum": _enum,
    "regex": _regex,
}
