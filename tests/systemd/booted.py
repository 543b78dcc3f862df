"""The package on a machine with a real systemd (`make systemd-test`): installed, notified, watched, reloaded, restarted
under load, drained, upgraded and purged. One machine for all tests, in this order; O04 and O07 of the fault list are here.

Not collected by `make test`: it needs root, builds a package and boots a machine.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import datetime

import pytest

from protocol.client import Client, Connected
from tests.systemd.chat_machine import CHATD, ChatMachine
from tests.systemd.people import HOST, PORT, client, knocking, next_text, talking

LINES = 200
SESSIONS = 1000
AT_ONCE = 50
SOCKETS = ("chatd@1.socket", "chatd-http@1.socket")

pytestmark = pytest.mark.timeout(240)


def test_o07_the_package_is_installed_and_serves(bare: ChatMachine) -> None:
    bare.install()
    for unit in (CHATD, *SOCKETS, "chat.target"):
        assert bare.property(unit, "ActiveState") == "active", unit
        assert bare.run("systemctl", "is-enabled", unit).strip() == "enabled"
    for port in (7480, 7481):
        assert '"ready":true' in bare.run("curl", "-sf", f"http://127.0.0.1:{port}/readyz")
    print(f"\nfirst start to READY: {bare.ready_ms():.0f} ms")


def test_the_manager_is_told_how_it_goes(machine: ChatMachine) -> None:
    machine.wait(lambda: "0 sessions" in machine.property(CHATD, "StatusText"), "a status")
    assert machine.property(CHATD, "NotifyAccess") == "main"
    print(f"\nstart to READY: {machine.ready_ms():.0f} ms")


def test_a_stranger_on_the_machine_reads_no_secret(machine: ChatMachine) -> None:
    secret = machine.mint.path.read_text().split('secret = "')[1].split('"')[0]
    pid = machine.pid()
    loaded = f"/proc/{pid}/root/run/credentials/{CHATD}/chatd_auth.keys_file"
    assert secret in machine.run("cat", loaded)
    for shown in (f"/proc/{pid}/environ", f"/proc/{pid}/cmdline"):
        assert secret not in machine.run("cat", shown)
    assert secret not in machine.run("systemctl", "show", CHATD)
    assert secret not in machine.journal(CHATD)
    for path in (loaded, f"/run/credentials/{CHATD}/chatd_auth.keys_file", "/etc/chatd/credentials/auth.keys_file", "/var/lib/chatd/queue.sqlite"):  # fmt: skip
        said = machine.run("runuser", "-u", "nobody", "--", "cat", path, check=False)
        assert said == "", path


def test_what_root_adds_with_chatctl_the_service_can_read(machine: ChatMachine) -> None:
    machine.run("chatctl", "user", "add", "carol", "--password-stdin", text="a password\n")

    async def log_in() -> None:
        async with Client(HOST, PORT, "carol", "phone", password="a password") as carol, asyncio.timeout(20):
            await carol.wait_connected()

    machine.inside(log_in)


def test_a_reload_keeps_the_process_and_its_sessions(machine: ChatMachine) -> None:
    async def work() -> None:
        async with client(machine.mint, "dora") as dora:
            await dora.wait_connected()
            pid = machine.pid()
            await asyncio.to_thread(machine.run, "systemctl", "reload", CHATD)
            assert machine.pid() == pid
            good = machine.run("cat", "/etc/chatd/chatd.toml")
            machine.write("/etc/chatd/chatd.toml", good + "no_such = 1\n")
            machine.run("systemctl", "reload", CHATD)
            machine.wait(lambda: "reload was refused" in machine.property(CHATD, "StatusText"), "a word about it")
            machine.write("/etc/chatd/chatd.toml", good)
            machine.run("systemctl", "reload", CHATD)
            machine.wait(lambda: "refused" not in machine.property(CHATD, "StatusText"), "it is mended")
            assert machine.pid() == pid
            assert isinstance(dora.state, Connected)
            await dora.send("dora", b"still here")

    machine.inside(work)
    assert {"reloaded", "reload_refused"} <= {event["event"] for event in machine.events()}
    assert "reload_refused" in machine.run("journalctl", "--unit", CHATD, "--priority=err"), "errors are errors there"


async def hang(machine: ChatMachine, signal: str, unit: str = CHATD) -> tuple[int, float]:
    """The loop is stuck under two people who talk; how often the manager restarted it, and after how many seconds."""
    before = machine.restarts(unit)
    async with talking(machine.mint) as talk:
        await talk.say(LINES)
        begin_s = time.monotonic()
        machine.run("kill", f"-{signal}", str(machine.pid(unit)))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(talk.say(LINES))
            await asyncio.to_thread(machine.wait, lambda: machine.restarts(unit) > before, "a restart", 30)
            took_s = time.monotonic() - begin_s
        await talk.say(LINES)
        await talk.wait_all_heard()  # the register too is true again: nothing is only found by a PING
    return machine.restarts(unit) - before, took_s


@pytest.mark.parametrize("signal", ["USR2", "STOP"], ids=["a loop that sleeps", "a process that is stopped"])
def test_o04_a_stuck_loop_is_killed_with_a_dump_and_started_again(machine: ChatMachine, signal: str) -> None:
    restarts, took_s = machine.inside(lambda: hang(machine, signal))
    print(f"\nfrom hang to restart: {took_s:.1f} s")
    assert restarts == 1
    journal = machine.journal(CHATD)
    assert "Watchdog timeout" in journal
    assert "Failed with result 'watchdog'" in journal
    dump = machine.crash_dump()
    assert 'File "' in dump
    if signal == "USR2":
        assert "hang.pth" in dump or "<string>" in dump, dump[:2000]


async def under_load(machine: ChatMachine, act: Callable[[], Awaitable[None]], times: int) -> dict[str, int]:
    """Two people talk, a crowd knocks, and `act` happens; nothing of the talk may be lost."""
    async with talking(machine.mint) as talk, knocking() as crowd:
        for _ in range(times):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(talk.say(LINES))
                await act()
            await talk.say(LINES)
        await talk.wait_all_heard()
        print(
            f"\n{times} times: {dict(crowd.counts)}, the longest connect {crowd.longest_s:.2f} s, lines {len(talk.said)}, lost 0"
        )
        return dict(crowd.counts)


def test_a_restart_under_load_refuses_nobody_and_loses_nothing(machine: ChatMachine) -> None:
    async def restart() -> None:
        await asyncio.to_thread(machine.run, "systemctl", "restart", CHATD)

    counts = machine.inside(lambda: under_load(machine, restart, 3))
    assert set(counts) == {"taken"}
    assert counts["taken"] > 100


def test_o03_a_kill_in_a_burst_of_connects_refuses_nobody(machine: ChatMachine) -> None:
    async def kill() -> None:
        before = machine.restarts()
        machine.run("kill", "-KILL", str(machine.pid()))
        await asyncio.to_thread(machine.wait, lambda: machine.restarts() > before, "a restart")

    counts = machine.inside(lambda: under_load(machine, kill, 3))
    assert counts.pop("refused", 0) == 0
    assert counts["taken"] > 100


def test_o03_who_comes_before_it_runs_starts_it(machine: ChatMachine) -> None:
    machine.wait_backlog_empty()  # who knocked in the test before, and was not looked at, would start it again
    machine.run("systemctl", "stop", CHATD)
    assert machine.pid() == 0

    async def come() -> None:
        async with client(machine.mint, "emil") as emil, asyncio.timeout(20):
            await emil.wait_connected()

    machine.inside(come)
    assert machine.pid() != 0


def test_o07_a_crash_loop_does_not_take_the_socket_along(machine: ChatMachine) -> None:
    good = machine.run("cat", "/etc/chatd/chatd.toml")
    machine.write("/etc/chatd/chatd.toml", "no_such = 1\n")
    before = machine.restarts()
    machine.run("kill", "-KILL", str(machine.pid()))

    async def wait_through_it() -> None:
        async with knocking() as crowd, client(machine.mint, "fred") as fred, asyncio.timeout(60):
            await asyncio.to_thread(machine.wait, lambda: machine.restarts() >= before + 8, "a crash loop", 40)
            for unit in SOCKETS:
                assert machine.property(unit, "ActiveState") == "active"
            assert set(crowd.counts) == {"taken"}
            machine.write("/etc/chatd/chatd.toml", good)
            await fred.wait_connected()

    machine.inside(wait_through_it)
    machine.wait_active()
    assert machine.property(CHATD, "Result") == "success"


def seconds_between(machine: ChatMachine, first: str, last: str) -> float:
    """Of two events of the log, the last time that they were logged."""
    stamps = {event["event"]: datetime.fromisoformat(event["time"]) for event in machine.events()}
    return (stamps[last] - stamps[first]).total_seconds()


def test_a_thousand_sessions_are_drained_and_come_back(machine: ChatMachine) -> None:
    async def drain() -> tuple[float, float]:
        crowd = [client(machine.mint, f"crowd{number}", backoff=lambda: None) for number in range(SESSIONS)]  # type: ignore[arg-type, return-value]
        connected = 0
        back = asyncio.Event()

        def on_state(state: object) -> None:
            nonlocal connected
            connected += isinstance(state, Connected)
            if connected == SESSIONS:
                back.set()

        turns = asyncio.Semaphore(AT_ONCE)

        async def enter(one: Client) -> None:
            async with turns:
                await one.__aenter__()
                await one.wait_connected()

        begin_s = time.monotonic()
        async with asyncio.timeout(120):
            await asyncio.gather(*map(enter, crowd))
        logged_in_s = time.monotonic() - begin_s
        for one in crowd:
            one._on_state = on_state
        begin_s = time.monotonic()
        await asyncio.to_thread(machine.run, "systemctl", "restart", CHATD)
        async with asyncio.timeout(90):
            await back.wait()
        took_s = time.monotonic() - begin_s
        for one in crowd:
            await one.__aexit__(None, None, None)
        return logged_in_s, took_s

    logged_in_s, took_s = machine.inside(drain)
    drained_s = seconds_between(machine, "node_draining", "node_stopped")
    print(f"\n{SESSIONS} sessions: logged in {SESSIONS / logged_in_s:.0f}/s; drained in {drained_s:.1f} s; all back {took_s:.1f} s after the restart began")  # fmt: skip
    assert drained_s < 10 + 1, "drain_s_max, and a little"
    assert machine.property(CHATD, "Result") == "success"


def test_a_stop_drains_and_what_waited_is_there_after_the_start(machine: ChatMachine) -> None:
    async def before() -> None:
        async with client(machine.mint, "gus") as gus, client(machine.mint, "hal") as hal:
            await gus.wait_connected()
            await hal.wait_connected()
            await asyncio.to_thread(machine.run, "systemctl", "stop", *SOCKETS, CHATD)
        assert machine.property(CHATD, "ExecMainStatus") == "0"
        assert machine.property(CHATD, "Result") == "success"

    async def after() -> None:
        async with client(machine.mint, "gus") as gus:
            await gus.send("hal", b"while you were away")
        async with client(machine.mint, "hal") as hal:
            assert await next_text(hal) == b"while you were away"

    machine.inside(before)
    machine.run("systemctl", "start", *SOCKETS, CHATD)
    machine.inside(after)


def test_o07_an_upgrade_restarts_it_and_keeps_what_there_is(machine: ChatMachine) -> None:
    async def upgrade() -> None:
        pid = machine.pid()
        await asyncio.to_thread(machine.install)
        machine.wait(lambda: machine.pid() not in (0, pid), "a new process")

    counts = machine.inside(lambda: under_load(machine, upgrade, 1))
    assert set(counts) == {"taken"}
    assert "connections_per_address_max" in machine.run("cat", "/etc/chatd/chatd.toml"), "the operator's file is kept"
