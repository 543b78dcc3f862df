from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from bench.cluster import Cluster
from bench.processes import Chatd
from bench.tokens import Mint
from tests.faults.house import House
from tests.faults.mending import mend
from tests.faults.support_desk import Desk


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


@pytest.fixture
async def cluster(cluster: Cluster) -> AsyncIterator[Cluster]:
    """The shared cluster with every part up, before and after: whatever a test did to it, also when it failed."""
    await mend(cluster)
    yield cluster
    await mend(cluster)


@pytest.fixture(scope="session")
def embedded_desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """One process alone, for those who only ask support's questions."""
    server = Chatd(tmp_path_factory.mktemp("desk"))
    server.start()
    yield Desk(server, server)
    server.stop()


@pytest.fixture(params=["embedded", "cluster"])
def desk(request: pytest.FixtureRequest) -> Desk:
    """Support's side of each system."""
    if request.param == "cluster":
        cluster: Cluster = request.getfixturevalue("cluster")
        return Desk(*cluster.nodes)
    found: Desk = request.getfixturevalue("embedded_desk")
    return found
