"""How large a file or a function may be, what must be said about it, and what must not stand in it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.house.sources import ROOT, Source, committed, sources

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
TEXT_ENDINGS = (
    ".py",
    ".md",
    ".cfg",
    ".toml",
    ".lua",
    ".mjs",
    ".json",
    ".play",
    ".service",
    ".yml",
    ".css",
    ".js",
    ".html",
)
LEFTOVERS = re.compile(r"\b(TODO|FIXME|XXX)\b")
MACHINE_PATHS = re.compile(r"(?<![\w.$}/-])/(work|tmp|root|home)/\w")


def functions(source: Source) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_no_file_is_too_long_to_be_read_in_one_go() -> None:
    long = {source.path: source.text.count("\n") for source in sources()}
    assert {path: lines for path, lines in long.items() if lines > FILE_LINES_MAX} == {}


def test_no_function_is_too_long_to_be_seen_at_once() -> None:
    wrong = [
        f"{source.path}:{node.lineno} {node.name}: {node.end_lineno - node.lineno + 1} lines"
        for source in sources()
        for node in functions(source)
        if node.end_lineno is not None and node.end_lineno - node.lineno >= FUNCTION_LINES_MAX
    ]
    assert wrong == []


def bases(owner: ast.ClassDef) -> set[str]:
    return {ast.unparse(base).rsplit(".", 1)[-1] for base in owner.bases}


def classes(*packages: str) -> Iterator[tuple[Source, ast.ClassDef]]:
    for source in sources(*packages):
        for node in source.tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield source, node


def public_methods(owner: ast.ClassDef | ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    for node in owner.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node


def promised(package: str) -> set[str]:
    """Methods that a Protocol of the package documents: who keeps such a promise need not say it again."""
    return {
        method.name
        for _, owner in classes(package)
        if bases(owner) & {"Protocol", "ABC"}
        for method in public_methods(owner)
        if ast.get_docstring(method)
    }


def undocumented(package: str) -> Iterator[str]:
    for source in sources(package):
        if source.text.strip() and not ast.get_docstring(source.tree):
            yield f"{source.path}: the module"
        for node in public_methods(source.tree):
            if not ast.get_docstring(node):
                yield f"{source.path}:{node.lineno} {node.name}"
    known = promised(package)
    for source, owner in classes(package):
        inherits = bool(bases(owner) - {"Protocol", "ABC", "NamedTuple"})  # the base says what its methods mean
        for method in public_methods(owner):
            if not ast.get_docstring(method) and not inherits and method.name not in known:
                yield f"{source.path}:{method.lineno} {owner.name}.{method.name}"


@pytest.mark.parametrize("package", ["protocol", "brokerd", "chatd"])
def test_whatever_is_public_says_what_it_is(package: str) -> None:
    assert list(undocumented(package)) == []


def texts() -> Iterator[tuple[str, str]]:
    for path in committed():
        if path.endswith(TEXT_ENDINGS) and not path.startswith("tests/house/") and "package-lock" not in path:
            yield path, (ROOT / path).read_text(encoding="utf-8")


def found(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{path}:{number}: {line.strip()[:100]}"
        for path, text in texts()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]


def test_nothing_is_left_for_later_in_a_comment() -> None:
    assert found(LEFTOVERS) == []


def test_no_file_names_a_path_of_one_machine() -> None:
    assert found(MACHINE_PATHS) == []
