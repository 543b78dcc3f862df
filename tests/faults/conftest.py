from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.processes import Chatd
from bench.tokens import Mint
from tests.faults.house import House


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """An embedded chatd for all tests of a file: each brings users of its own. At the end the log must be clean."""
    folder = tmp_path_factory.mktemp("house")
    mint = Mint(folder)
    server = Chatd(folder)
    server.start()
    house = House(server, mint)
    yield house
    pid = server.pid
    assert server.is_running, f"chatd {pid} ended by itself"
    assert server.stop() == 0
    house.check_log()
