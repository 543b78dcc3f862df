"""No fault is swallowed, no task runs unwatched, no setting is read behind the configuration's back."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.house.sources import Source, sources

PRODUCT = ("protocol", "brokerd", "chatd", "bench")
BARE_TASKS = {
    # path: who watches the task
    "brokerd/broker.py": "one a round, awaited or cancelled and awaited in the function that makes it",
    "bench/inside/stages.py": "one link, ended with the block that measures on it",
    "protocol/client.py": "one task a client, kept in _task; its end is told by _on_done",
    "chatd/stores.py": "kept, cancelled and awaited; a TaskGroup would wrap what the caller's body raises",
    "chatd/terminal/app.py": "two tasks, kept, awaited, and their results taken in one function",
    "chatd/terminal/pipe.py": "two tasks, kept, awaited, and their results taken in one function",
    "chatd/web/http.py": "one task an answer, kept by the service, which answers a fault with 500",
}
ENVIRONMENT_READERS = {
    # path: what it reads
    "brokerd/config.py": "the configuration",
    "brokerd/settings.py": "the configuration",
    "brokerd/crash_points.py": "where a test lets a daemon die",
    "brokerd/notify.py": "what a service manager tells",
    "chatd/config.py": "the configuration",
    "chatd/terminal/__init__.py": "the terminal's own settings",
    "chatd/terminal/account.py": "the terminal's own settings",
}
BROAD = {"Exception", "BaseException"}


def is_broad(kind: ast.expr | None) -> bool:
    if kind is None:
        return True
    names = kind.elts if isinstance(kind, ast.Tuple) else [kind]
    return any(isinstance(name, ast.Name) and name.id in BROAD for name in names)


def says_nothing(body: list[ast.stmt]) -> bool:
    return all(
        isinstance(node, ast.Pass | ast.Continue)
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        for node in body
    )


def swallowed(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ExceptHandler) and is_broad(node.type) and says_nothing(node.body):
            yield f"{source.path}:{node.lineno} except … pass"
        elif isinstance(node, ast.ExceptHandler) and node.type is None:
            yield f"{source.path}:{node.lineno} a bare except"
        elif (
            isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress") and any(map(is_broad, node.args))
        ):
            yield f"{source.path}:{node.lineno} {ast.unparse(node)}"


def test_no_fault_is_swallowed_whole() -> None:
    assert [it for source in sources() for it in swallowed(source)] == []


def bare_tasks(source: Source) -> Iterator[str]:
    """Calls of create_task on asyncio or a loop (on a TaskGroup it is the way to do it), and ensure_future."""
    for line, name in source.calls():
        owner, _, called = name.rpartition(".")
        if called == "ensure_future" or (called == "create_task" and (owner in ("", "asyncio") or "loop" in owner)):
            yield f"{source.path}:{line} {name}"


def test_every_task_has_a_parent_or_a_watcher() -> None:
    found = {source.path: list(bare_tasks(source)) for source in sources(*PRODUCT)}
    assert [it for path, tasks in found.items() if path not in BARE_TASKS for it in tasks] == []
    assert [path for path in BARE_TASKS if not found.get(path)] == [], "these need no exception any more"


def reads_environment(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute | ast.Name) and ast.unparse(node) in ("os.environ", "os.getenv", "environ"):
            yield f"{source.path}:{node.lineno}"


def test_the_environment_is_read_where_the_configuration_is_made_and_nowhere_else() -> None:
    product = sources("protocol", "brokerd", "chatd")
    found = {source.path: list(reads_environment(source)) for source in product}
    assert [it for path, lines in found.items() if path not in ENVIRONMENT_READERS for it in lines] == []
    assert [path for path in ENVIRONMENT_READERS if not found.get(path)] == [], "these need no exception any more"


def test_no_test_sleeps_for_a_while_in_the_hope_that_something_happened() -> None:
    """A wait inside a loop that looks for a condition, and a turn of the loop (0), are no such thing."""
    wrong = []
    for source in sources("tests"):
        for function in ast.walk(source.tree):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) and function.name.startswith("test_"):
                wrong += [f"{source.path}:{node.lineno}" for node in naps(function)]
    assert wrong == []


def naps(node: ast.AST, *, in_loop: bool = False) -> Iterator[ast.Call]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call) and ast.unparse(child.func) in ("time.sleep", "asyncio.sleep"):
            is_turn = ast.unparse(child.args[0]) == "0"
            if not (in_loop or is_turn):
                yield child
        yield from naps(child, in_loop=in_loop or isinstance(child, ast.While | ast.For))
