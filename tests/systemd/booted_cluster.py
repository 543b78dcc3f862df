"""The package as a cluster on one machine: instances that share a port, RabbitMQ and Redis behind them; and at last its end."""

from __future__ import annotations

import asyncio
import re

import pytest

from tests.systemd.booted import hang, under_load
from tests.systemd.chat_machine import ChatMachine
from tests.systemd.people import client

UNITS = ("brokerd@1.service", "brokerd@2.service", "chatd@1.service", "chatd@2.service")

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def cluster(machine: ChatMachine) -> ChatMachine:
    machine.make_cluster()
    return machine


def sessions(machine: ChatMachine, instance: int) -> float:
    """How many an instance has, by its own metrics."""
    found = re.search(r"^chatd_node_sessions (\S+)$", machine.ask(instance, "/metrics"), re.MULTILINE)
    assert found is not None
    return float(found[1])


def test_instances_share_the_port(cluster: ChatMachine) -> None:
    async def work() -> None:
        crowd = [client(cluster.mint, f"many{number}") for number in range(40)]
        for one in crowd:
            await one.__aenter__()
        for one in crowd:
            await one.wait_connected()
        counts = [await asyncio.to_thread(sessions, cluster, number) for number in (1, 2)]
        assert sum(counts) == len(crowd)
        assert min(counts) > 0
        for one in crowd:
            await one.__aexit__(None, None, None)

    cluster.inside(work)
    for unit in UNITS:
        print(f"\n{unit}: start to READY {cluster.ready_ms(unit):.0f} ms, {cluster.property(unit, 'StatusText')}")


@pytest.mark.parametrize("unit", UNITS)
def test_each_is_restarted_under_load_and_nobody_is_refused(cluster: ChatMachine, unit: str) -> None:
    async def restart() -> None:
        await asyncio.to_thread(cluster.run, "systemctl", "restart", unit)

    counts = cluster.inside(lambda: under_load(cluster, restart, 1))
    assert set(counts) == {"taken"}
    assert cluster.property(unit, "Result") == "success"


def test_o04_a_stuck_brokerd_is_killed_with_a_dump_and_started_again(cluster: ChatMachine) -> None:
    restarts, took_s = cluster.inside(lambda: hang(cluster, "USR2", "brokerd@1.service"))
    print(f"\nfrom hang to restart: {took_s:.1f} s")
    assert restarts == 1
    assert "<string>" in cluster.crash_dump("brokerd@1.service")


def test_o04_a_stuck_chatd_leaves_seats_that_are_healed(cluster: ChatMachine) -> None:
    restarts, _ = cluster.inside(lambda: hang(cluster, "USR2"))
    assert restarts == 1


def test_no_password_is_seen_by_others(cluster: ChatMachine) -> None:
    for unit in UNITS:
        pid = cluster.pid(unit)
        for shown in (f"/proc/{pid}/environ", f"/proc/{pid}/cmdline"):
            assert cluster.password not in cluster.run("cat", shown)
        assert cluster.password not in cluster.run("systemctl", "show", unit)
        assert cluster.password not in cluster.journal(unit)
        loaded = f"/run/credentials/{unit}/{unit.partition('@')[0]}_redis.url"
        assert cluster.password in cluster.run("cat", f"/proc/{pid}/root{loaded}")
        for path in (loaded, f"/proc/{pid}/root{loaded}"):
            assert cluster.run("runuser", "-u", "nobody", "--", "cat", path, check=False) == ""
    assert "keys_file" not in cluster.run("ls", f"/proc/{cluster.pid(UNITS[0])}/root/run/credentials/{UNITS[0]}")


def test_a_brokerd_starts_and_stops_without_redis_and_says_so(cluster: ChatMachine) -> None:
    cluster.run("systemctl", "stop", "redis-server")
    cluster.run("systemctl", "restart", "brokerd@1.service")
    cluster.wait(lambda: "redis: " in cluster.property("brokerd@1.service", "StatusText"), "it says what is missing")
    cluster.run("systemctl", "stop", "brokerd@1.service")
    assert cluster.property("brokerd@1.service", "Result") == "success", "and was not killed for it"
    cluster.run("systemctl", "start", "redis-server", "brokerd@1.service")


def test_the_target_stops_and_starts_all(cluster: ChatMachine) -> None:
    cluster.run("systemctl", "stop", "chat.target")
    for unit in UNITS:
        cluster.wait(lambda: cluster.property(unit, "ActiveState") == "inactive", f"{unit} is stopped")  # noqa: B023
    cluster.run("systemctl", "start", "chat.target")
    for unit in UNITS:
        cluster.wait_active(unit)


def test_o07_a_purge_leaves_nothing(cluster: ChatMachine) -> None:
    cluster.run("dpkg", "--remove", "chatd")
    assert cluster.run("ls", "/etc/chatd/chatd.toml"), "a removal keeps the configuration"
    assert cluster.run("systemctl", "list-units", "--no-legend", "--all", "chatd*", "brokerd*", "chat.target") == ""
    cluster.run("dpkg", "--purge", "chatd")
    left = cluster.run(
        "sh", "-c", "ls -d /usr/lib/chatd /etc/chatd /etc/brokerd /var/lib/chatd /usr/bin/chat /usr/bin/chatctl /usr/bin/chatd /usr/bin/brokerd 2>/dev/null; "
        "find /etc/systemd /lib/systemd /usr/lib/systemd /run/systemd/system -name 'chat*' -not -path '*.service.d/*' -not -name '*.service.d'; "
        "getent passwd chatd; ss -Hltn 'sport = :7400'", check=False,
    )  # fmt: skip
    assert left == ""
    assert cluster.run("systemctl", "list-units", "--failed", "--no-legend", "chat*", "brokerd*") == ""
