"""What setup.py compiles: modules that decide, and wait for nothing."""

from __future__ import annotations

import ast
import importlib.util

import pytest

from tests.house.sources import ROOT

WAITS = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith, ast.Yield, ast.YieldFrom)


def native() -> list[str]:
    spec = importlib.util.spec_from_file_location("chatd_setup", ROOT / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    paths: list[str] = module.NATIVE
    return paths


@pytest.mark.parametrize("path", native())
def test_what_is_compiled_neither_awaits_nor_yields(path: str) -> None:
    tree = ast.parse((ROOT / path).read_text())
    assert [node.lineno for node in ast.walk(tree) if isinstance(node, WAITS)] == []
