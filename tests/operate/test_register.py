"""chatctl register: where a user's devices are, in words, embedded and in a cluster."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import Any

import pytest

from bench.cluster import Cluster
from bench.processes import Chatd
from brokerd.ports import QueueStatus, Row
from chatd.ctl.register import as_json, lines
from tests.operate.asking import client, ctl, wait_until
from tests.operate.asking import told as told_now

NOW_MS = 1_795_535_980_000


async def told(server: Chatd, *words: str) -> Any:
    """In a thread of its own: this command runs a loop."""
    return await asyncio.to_thread(told_now, server, *words)


async def test_the_embedded_register_is_asked_of_the_chatd_that_runs(embedded_server: Chatd) -> None:
    password = embedded_server.add_user("ann")
    async with client(embedded_server, "ann", "phone", password) as phone:
        await phone.wait_connected()
        await phone.send("ann", b"a note")
        async with client(embedded_server, "ann", "pc", password) as pc:
            await pc.wait_connected()
        await asyncio.to_thread(wait_until, lambda: len(told_now(embedded_server, "sessions")) == 1)
        register = await told(embedded_server, "register", "ann")
        phones, pcs = register["devices"]["phone"], register["devices"]["pc"]
        assert (register["head"], phones["queue"]["to_come"], pcs["register"]) == (1, 1, None)
        [session] = await told(embedded_server, "sessions", "ann")
        seat = phones["register"]
        assert (seat["session"], seat["login_ms"], seat["is_live"]) == (session["session"], session["since_ms"], True)
        assert seat["node"] == (await told(embedded_server, "status"))["node"]
        text = ctl(embedded_server, "register", "ann").stdout
        assert text.startswith("ann: 2 devices, 1 logged in\n")
        assert "  pc: not logged in; last seen about " in text
        assert f"  phone: logged in on {seat['node']}, session {seat['session']}, since " in text
        strange = ctl(embedded_server, "register", "bob")
        assert (strange.returncode, strange.stderr) == (1, "chatctl: there is no user 'bob'\n")
    embedded_server.stop()
    stopped = ctl(embedded_server, "register", "ann")
    assert stopped.returncode == 0
    assert "ann: 2 devices, 0 logged in" in stopped.stdout
    assert "  nobody is logged in: no chatd runs here" in stopped.stdout


@pytest.fixture
def second_node(cluster: Cluster) -> Iterator[Chatd]:
    """May be killed: it is there again afterwards."""
    node = cluster.nodes[1]
    yield node
    if not node.is_running:
        node.start()
        node.wait_serving()


async def test_a_cluster_shows_each_node_and_whose_lease_is_over(cluster: Cluster, second_node: Chatd) -> None:
    first = cluster.nodes[0]
    user = f"reg-{os.urandom(4).hex()}"
    password = first.add_user(user)
    async with client(first, user, "phone", password) as phone:
        await phone.wait_connected()
        async with client(second_node, user, "pc", password) as pc:
            await pc.wait_connected()
            devices = (await told(first, "register", user))["devices"]
            nodes = {name: device["register"]["node"] for name, device in devices.items()}
            phones, pcs = await told(first, "status"), await told(second_node, "status")
            assert nodes == {"phone": phones["node"], "pc": pcs["node"]}
            assert all(0 < device["register"]["lease_ms"] <= 3000 for device in devices.values())
            frame = await told(first, "top", "--count", "1", "--interval", "0.1")
            assert frame["rates"]["failed"] is None
            second_node.kill9()

        def is_over() -> bool:
            seat = told_now(first, "register", user)["devices"]["pc"]["register"]
            return not seat["is_live"]

        await asyncio.to_thread(wait_until, is_over)
        text = ctl(first, "register", user).stdout
        assert text.startswith(f"{user}: 2 devices, 1 logged in\n")
        assert f"  pc: not logged in: it was on {nodes['pc']}, session " in text


def words(rows: list[Row], cursors: dict[str, int]) -> str:
    status = QueueStatus(2, 9, 70, cursors, {}, dict.fromkeys(cursors, NOW_MS - 60_000), "5648045a7981ec7b")
    told: dict[str, Any] = as_json("ann", status, rows)
    return "\n".join(lines(told, "", NOW_MS))


def test_what_is_odd_in_the_register_is_said() -> None:
    text = words([Row("pc", "", "", 0), Row("tv", "old:1", "7", 900)], {"pc": 4})
    assert text.splitlines() == [
        "ann: 2 devices, 1 logged in",
        "  queue: 7 kept (head 9, floor 2), generation 5648045a7981ec7b",
        "  pc: an entry that can not be read: messages wait, and its next login puts it right",
        "    acknowledged up to 4, 5 to come",
        "  tv: logged in on old:1, session 7; the node's lease lives for 900 ms more, unless it is renewed",
        "    the queue does not know this device: it was away for too long, or the queue was made anew",
    ]
    assert "0 devices, 0 logged in" in words([], {})
