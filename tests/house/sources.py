"""The project's Python files, parsed once, for the house rules."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("protocol", "brokerd", "chatd", "bench")


@dataclass(frozen=True)
class Source:
    """One file. `path` is relative to the root, with slashes."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    @property
    def package(self) -> str:
        return self.path.split("/", 1)[0]

    def imports(self) -> Iterator[tuple[int, str]]:
        """Line and full name of every module that is imported, wherever in the file, types only included."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{self.path}:{node.lineno}: a relative import"
                yield node.lineno, node.module or ""
                yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)

    def calls(self) -> Iterator[tuple[int, str]]:
        """Line and dotted name of every call."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call):
                yield node.lineno, ast.unparse(node.func)


@cache
def committed() -> tuple[str, ...]:
    """Everything that git knows or would take, but for what is being removed."""
    out = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )  # fmt: skip
    return tuple(path for path in out.stdout.splitlines() if (ROOT / path).is_file())


@cache
def sources(*packages: str) -> tuple[Source, ...]:
    """The Python files of these packages (or folders); of all, when none is named."""
    wanted = packages or (*PACKAGES, "tests")
    return tuple(
        Source(path, (ROOT / path).read_text(encoding="utf-8"))
        for path in committed()
        if path.endswith(".py") and path.split("/", 1)[0] in wanted
    )
