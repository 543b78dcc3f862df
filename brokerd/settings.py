"""Settings: a TOML file and the environment become one frozen dataclass, or a list of all that is wrong with them.

Pure: the file's text and the environment are handed in. A config is a dataclass whose fields are made by `setting`, or
are sections (dataclasses of such fields). Key `tcp.port` is [tcp] port in the file and CHATD_TCP_PORT in the
environment, which wins. Supported types: str, int, float, bool, Path, tuple[str, ...], and each of them `| None`.
A class may have `conflicts()`, which yields (keys, sentence) for rules between fields.
"""

from __future__ import annotations

import difflib
import re
import tomllib
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from operator import attrgetter
from typing import Any, Final, NamedTuple, TypeVar

from brokerd.setting_values import KIND_NAMES, READERS

T = TypeVar("T")
Conflict = tuple[tuple[str, ...], str]

GIVEN_CHARS_MAX: Final = 80  # of a value in an error; the rest is cut
# What Kubernetes puts into every container for a service that has our name: neither ours nor a mistake.
_SERVICE_LINK = re.compile(r"SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_\w+)?")


class Problem(NamedTuple):
    """One thing that is wrong. `where` is a file and line, or a variable."""

    key: str
    where: str
    says: str

    def __str__(self) -> str:
        return f"{self.key} ({self.where}): {self.says}"


class SettingsError(Exception):
    """The settings can not be used. `problems` names everything that is wrong, not only the first."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Rule:
    """What a value means and may be. `check` is asked after the type and the range."""

    says: str
    at_least: float | None = None
    at_most: float | None = None
    choices: tuple[str, ...] = ()
    check: Callable[[Any], bool] | None = None
    allowed: str = ""
    is_secret: bool = False


def setting(default: T, says: str, **rule: Any) -> T:
    """A field of a config dataclass; `rule` as in Rule. A secret one stays out of the dataclass's repr."""
    made = Rule(says, **rule)
    return field(default=default, repr=not made.is_secret, metadata={"rule": made})


class Leaf(NamedTuple):
    """One key: `tcp.port`, its type without `| None`, its default and its rule."""

    key: str
    kind: Any
    is_optional: bool
    default: Any
    rule: Rule

    def variable(self, prefix: str) -> str:
        """The environment variable of this key, such as CHATD_TCP_PORT."""
        return f"{prefix}_{self.key.replace('.', '_').upper()}"

    def allowed(self) -> str:
        """What may stand here, in words."""
        rule = self.rule
        if rule.allowed:
            return rule.allowed
        if rule.choices:
            return "one of " + ", ".join(rule.choices)
        name = KIND_NAMES[self.kind]
        if rule.at_least is not None and rule.at_most is not None:
            return f"{name} {rule.at_least:_} to {rule.at_most:_}"
        return name


def leaves(kind: type, path: str = "") -> Iterator[Leaf]:
    """All keys of a config dataclass, in the order of the fields."""
    hints = typing.get_type_hints(kind)
    for each in fields(kind):
        hint = hints[each.name]
        if is_dataclass(hint):
            yield from leaves(typing.cast(type, hint), f"{path}{each.name}.")
            continue
        bare = [part for part in typing.get_args(hint) if part is not types.NoneType]
        is_optional = isinstance(hint, types.UnionType)
        yield Leaf(path + each.name, bare[0] if is_optional else hint, is_optional, each.default, each.metadata["rule"])


def differences(one: T, other: T) -> list[str]:
    """The keys that two configs of one class differ in."""
    keys = (leaf.key for leaf in leaves(type(one)))
    return [key for key in keys if attrgetter(key)(one) != attrgetter(key)(other)]


class Given(NamedTuple):
    """A value as it came in, and from where."""

    raw: Any
    where: str
    is_text: bool  # from the environment: still to be read as its type


def build(kind: type[T], prefix: str, environ: Mapping[str, str], text: str = "", file: str = "") -> T:
    """The config of class `kind` from a TOML `text` (named `file` in errors) and `environ`, whose names begin with
    `prefix`_. Raises SettingsError with every problem that there is."""
    known = {leaf.key: leaf for leaf in leaves(kind)}
    problems: list[Problem] = []
    given = _from_text(known, text, file, problems)
    given.update(_from_environment(known, prefix, environ, problems))
    values: dict[str, Any] = {}
    for key, one in given.items():
        try:
            values[key] = _read(known[key], one)
        except ValueError as error:
            problems.append(Problem(key, one.where, str(error)))
    config = _construct(kind, values)
    bad = {problem.key for problem in problems}
    for keys, sentence in _conflicts(config):
        if not bad.intersection(keys):
            where = given[keys[0]].where if keys[0] in given else "default"
            problems.append(Problem(keys[0], where, sentence))
    if problems:
        raise SettingsError(problems)
    return config


def _from_text(known: Mapping[str, Leaf], text: str, file: str, problems: list[Problem]) -> dict[str, Given]:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        problems.append(Problem("the file", file, f"is not TOML: {error}"))
        return {}
    lines = _key_lines(text)
    given = {}
    for key, raw in _flat(document, {key.partition(".")[0] for key in known if "." in key}):
        where = f"{file} line {lines[key]}" if key in lines else file
        if key in known:
            given[key] = Given(raw, where, False)
        else:
            problems.append(Problem(key, where, "there is no such key" + _suggest(key, known)))
    return given


def _flat(document: Mapping[str, Any], sections: set[str]) -> Iterator[tuple[str, Any]]:
    for name, value in document.items():
        if name in sections and isinstance(value, dict):
            yield from ((f"{name}.{inner}", raw) for inner, raw in value.items())
        else:
            yield name, value


_HEADER_LINE = re.compile(r"\s*\[\s*([\w.-]+)\s*\]")
_KEY_LINE = re.compile(r"\s*([\w.-]+)\s*=")


def _key_lines(text: str) -> dict[str, int]:
    """The line on which each key stands (tomllib does not say). Only used to point at it."""
    found: dict[str, int] = {}
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER_LINE.match(line):
            section = header[1] + "."
            found.setdefault(header[1], number)
        elif key := _KEY_LINE.match(line):
            found.setdefault(section + key[1], number)
    return found


def _from_environment(
    known: Mapping[str, Leaf], prefix: str, environ: Mapping[str, str], problems: list[Problem]
) -> dict[str, Given]:
    variables = {leaf.variable(prefix): key for key, leaf in known.items()}
    given = {}
    for name in sorted(environ):
        if name in variables:
            given[variables[name]] = Given(environ[name], name, True)
        elif name.startswith(prefix + "_") and not _is_foreign(name, prefix):
            problems.append(Problem(name, "environment", "there is no such variable" + _suggest(name, variables)))
    return given


def _is_foreign(name: str, prefix: str) -> bool:
    rest = name.removeprefix(prefix + "_")
    return rest in ("CONFIG", "CRASH_AT") or _SERVICE_LINK.fullmatch(rest) is not None


def _suggest(name: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


def _read(leaf: Leaf, given: Given) -> Any:
    """The value in its type. Raises ValueError with what was given and what is allowed."""
    if given.is_text and leaf.is_optional and given.raw == "":
        return None
    try:
        value = READERS[leaf.kind](given.raw, given.is_text)
        _check(leaf.rule, value)
    except (ValueError, OverflowError):
        shown = "a value that is not shown" if leaf.rule.is_secret else repr(given.raw)[:GIVEN_CHARS_MAX]
        raise ValueError(f"{shown} was given, allowed is {leaf.allowed()}") from None
    return value


def _check(rule: Rule, value: Any) -> None:
    if rule.choices and value not in rule.choices:
        raise ValueError
    if rule.at_least is not None and value < rule.at_least:
        raise ValueError
    if rule.at_most is not None and value > rule.at_most:
        raise ValueError
    if rule.check is not None:
        for one in value if isinstance(value, tuple) else (value,):
            if not rule.check(one):
                raise ValueError


def _construct(kind: type[T], values: Mapping[str, Any], path: str = "") -> T:
    hints = typing.get_type_hints(kind)
    made = {}
    for each in fields(kind):  # type: ignore[arg-type]
        key = path + each.name
        if is_dataclass(hints[each.name]):
            made[each.name] = _construct(hints[each.name], values, key + ".")
        elif key in values:
            made[each.name] = values[key]
    return kind(**made)


def _conflicts(config: Any, path: str = "") -> Iterator[Conflict]:
    for each in fields(config):
        inner = getattr(config, each.name)
        if is_dataclass(inner):
            yield from _conflicts(inner, f"{path}{each.name}.")
    if hasattr(config, "conflicts"):
        for keys, sentence in config.conflicts():
            yield tuple(path + key for key in keys), sentence
