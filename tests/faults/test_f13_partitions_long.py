"""F13 at full length: in a cluster with the product's own times each link is cut off in turn, each way, while two talk.

FAULTS=long (make faults-long): a quarter of an hour. The short form is test_f13_partitions.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest

from bench.processes import Daemon
from brokerd.links.amqp_link import NOTICED_S_MAX
from brokerd.links.resp import CHECK_EVERY_S
from brokerd.links.resp_stream import Limits
from protocol.client import Client, Reconnecting
from protocol.messages import Deliver
from protocol.wire import KEEPALIVE_MISSES
from tests.chaos.network import DOWN, UP
from tests.chaos.town import KEEPALIVE_S, Town
from tests.faults.sampling import IS_LONG
from tests.faults.talk import HOST, quick, wait_ready

WAYS: Final = ((UP,), (DOWN,), (UP, DOWN))
LINES: Final = 30
SLACK_S: Final = 10.0
REDIS_S_MAX: Final = 1.25 * Limits().stall_s_max + CHECK_EVERY_S
BOUNDS_S: Final = {
    "clients-chatd1": KEEPALIVE_MISSES * KEEPALIVE_S,
    "chatd1-rabbitmq": NOTICED_S_MAX,
    "brokerd1-rabbitmq": NOTICED_S_MAX,
    "chatd1-redis": REDIS_S_MAX,
    "brokerd1-redis": REDIS_S_MAX,
}

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(not IS_LONG, reason="a minute for each link and way: make faults-long"),
]


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[Town]:
    made = Town(tmp_path, nodes=2, brokers=1)
    try:
        await made.start()
        for node in made.chatds.values():
            await wait_ready(node)
        yield made
    finally:
        await made.close()


@pytest.mark.parametrize("ways", WAYS, ids="-".join)
@pytest.mark.parametrize("link", BOUNDS_S)
async def test_f13_a_link_that_is_cut_off_is_given_up_in_time_and_nothing_is_lost(
    town: Town, link: str, ways: tuple[str, ...]
) -> None:
    states: list[object] = []
    ann_port, bob_port = town.chatds["chatd2"].tcp_port, town.doors["clients-chatd1"].port
    async with (
        Client(HOST, ann_port, "ann", "laptop", token=town.mint.token("ann"), backoff=quick()) as ann,
        Client(
            HOST, bob_port, "bob", "phone", token=town.mint.token("bob"), backoff=quick(), on_state=states.append
        ) as bob,
    ):
        await bob.wait_connected()
        said = [await ann.send("bob", b"%d" % number) for number in range(LINES)]
        marks = {name: len(log_of(daemon)) for name, daemon in town.daemons.items()}
        states.clear()
        begun_s = time.monotonic()
        assert town.doors[link].hold(*ways), "or nobody was met"
        waiting = [ann.post("bob", b"%d" % number) for number in range(LINES)]
        await noticed(town, link, states, marks)
        took_s = time.monotonic() - begun_s
        town.doors[link].mend()
        async with asyncio.timeout(90):
            said += await asyncio.gather(*waiting)
            said += [await ann.send("bob", b"%d" % number) for number in range(LINES)]
            heard = [await anext(bob) for _ in said]
        assert [message.id for message in heard if isinstance(message, Deliver)] == said
        for node in town.chatds.values():
            await wait_ready(node)
        assert took_s < BOUNDS_S[link] + SLACK_S


async def noticed(town: Town, link: str, states: list[object], marks: dict[str, int]) -> None:
    """Until the one who is cut off knows it."""
    name, _, peer = link.partition("-")
    async with asyncio.timeout(120):
        if name == "clients":
            while not any(isinstance(state, Reconnecting) for state in states):  # noqa: ASYNC110 - told by a callback
                await asyncio.sleep(0.05)
        elif link == "chatd1-redis":
            await wait_ready(town.chatds["chatd1"], not_up="redis", s_max=120)
        else:
            event, times = ('"amqp_lost"', 2) if peer == "rabbitmq" else ('"store_down"', 1)
            while log_of(town.daemons[name])[marks[name] :].count(event) < times:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)


def log_of(daemon: Daemon) -> str:
    return daemon.log_path.read_text(errors="replace")
