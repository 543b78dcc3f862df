"""Who may know whom: the layers, and the names of the technologies that only the compositions may say."""

from __future__ import annotations

import re

import pytest

from tests.house.sources import PACKAGES, Source, sources

MAY_IMPORT = {
    "protocol": {"protocol"},
    "brokerd": {"brokerd", "protocol"},
    "chatd": {"chatd", "brokerd", "protocol"},
    "bench": {"bench", "protocol"},  # it measures from outside, as a client
}
LOOKS_INSIDE = "bench/inside/"  # may import everything, and is only ever run as a process by the rest of the bench
IMPURE = {"asyncio", "time", "random", "logging", "socket", "structlog", "threading", "select", "ssl"}
PURE_CORES = ("brokerd/route.py", "chatd/feed.py", "chatd/session.py", "chatd/posts.py", "chatd/effects.py")
LINKS = re.compile(r"brokerd\.links(\.|$)")
COMPOSITIONS = {
    "brokerd/__main__.py", "chatd/__main__.py", "chatd/embedded.py", "chatd/cluster.py", "chatd/stores.py",
}  # fmt: skip
SYNTAX_ONLY = (
    "brokerd.links.resp_url",
    "brokerd.links.amqp_url",
)  # how an address is written: the configuration checks it
TECHNOLOGIES = {"aiormq", "pamqp", "hiredis", "sqlite3", "redis", "aio_pika"}


def root(name: str) -> str:
    return name.split(".", 1)[0]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_knows_only_those_below_it(package: str) -> None:
    wrong = [
        f"{source.path}:{line} imports {name}"
        for source in sources(package)
        for line, name in source.imports()
        if root(name) in (*PACKAGES, "tests") and root(name) not in MAY_IMPORT[package]
        if not (source.path.startswith(LOOKS_INSIDE) and root(name) in PACKAGES)
    ]
    assert wrong == []


def test_the_bench_stays_a_black_box_and_runs_what_looks_inside_as_a_process() -> None:
    wrong = [
        f"{source.path}:{line} imports {name}"
        for source in sources("bench")
        if not source.path.startswith(LOOKS_INSIDE)
        for line, name in source.imports()
        if name.startswith("bench.inside")
    ]
    assert wrong == []


def impure(source: Source) -> list[str]:
    return [f"{source.path}:{line} imports {name}" for line, name in source.imports() if root(name) in IMPURE]


def test_the_protocol_knows_no_socket_no_clock_no_chance_and_no_log() -> None:
    pure = [source for source in sources("protocol") if not source.path.startswith("protocol/client")]
    assert pure, "there is something to look at"
    assert [wrong for source in pure for wrong in impure(source)] == []


@pytest.mark.parametrize("path", PURE_CORES)
def test_what_decides_is_pure(path: str) -> None:
    [source] = [source for source in sources() if source.path == path]
    assert impure(source) == []


def test_only_compositions_say_which_technology_stands_behind_a_port() -> None:
    wrong = [
        f"{source.path}:{line} imports {name}"
        for source in sources("brokerd", "chatd")
        if source.path not in COMPOSITIONS and not source.path.startswith("brokerd/links/")
        for line, name in source.imports()
        if (LINKS.match(name) and not name.startswith(SYNTAX_ONLY)) or root(name) in TECHNOLOGIES
    ]
    assert wrong == []


def test_a_link_knows_ports_and_wire_and_nothing_of_the_broker() -> None:
    allowed = re.compile(r"brokerd\.(links|ports|support_ports)\b|protocol\b")
    wrong = [
        f"{source.path}:{line} imports {name}"
        for source in sources("brokerd")
        if source.path.startswith("brokerd/links/")
        for line, name in source.imports()
        if root(name) in PACKAGES and not allowed.match(name)
    ]
    assert wrong == []
