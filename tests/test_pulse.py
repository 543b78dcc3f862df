"""The pulse: what a service manager is told, and when the watchdog is not fed."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from brokerd.notify import FIRST_FD, ServiceManager, inherited_sockets, is_journal
from brokerd.pulse import BEATS, Pulse, supervised


class Listener:
    """The manager's end: what came, datagram by datagram."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.setblocking(False)

    def said(self) -> list[str]:
        found = []
        while True:
            try:
                found.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return found


class Someone:
    """A daemon whose state the test sets."""

    def __init__(self) -> None:
        self.trouble = ""
        self.text = "fine"
        self.reloads = 0

    def status(self) -> str:
        return self.text

    def fault(self) -> str:
        return self.trouble

    def stop_s_max(self) -> float:
        return 2.5

    def reload(self) -> None:
        self.reloads += 1


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    made = Listener(str(tmp_path / "notify"))
    yield made
    made.socket.close()


@pytest.fixture
def manager(listener: Listener) -> ServiceManager:
    return ServiceManager({"NOTIFY_SOCKET": listener.socket.getsockname(), "WATCHDOG_USEC": "3000000"})


def pulse(someone: Someone, manager: ServiceManager) -> Pulse:
    return Pulse(someone, manager, structlog.get_logger(), lambda: 0.0)


def test_a_beat_in_time_feeds_the_watchdog(listener: Listener, manager: ServiceManager) -> None:
    pulse(Someone(), manager).beat(0.01)
    assert listener.said() == ["STATUS=fine", "WATCHDOG=1"]


def test_a_beat_that_came_late_does_not(listener: Listener, manager: ServiceManager) -> None:
    pulse(Someone(), manager).beat(0.6)
    assert listener.said() == ["STATUS=fine"]


def test_nor_does_one_of_a_daemon_that_finds_a_fault_in_itself(listener: Listener, manager: ServiceManager) -> None:
    someone = Someone()
    someone.trouble = "stuck"
    pulse(someone, manager).beat(0.0)
    assert listener.said() == ["STATUS=fine"]


def test_a_watchdog_has_several_beats_of_time(manager: ServiceManager) -> None:
    assert pulse(Someone(), manager).beat_s == pytest.approx(3.0 / BEATS)


def test_a_status_is_one_line_and_sent_when_it_changed(listener: Listener, manager: ServiceManager) -> None:
    for text in ("a\nREADY=1", "a\nREADY=1", "b"):
        manager.status(text)
    assert listener.said() == ["STATUS=a READY=1", "STATUS=b"]


def test_without_a_manager_nothing_is_told_and_nobody_watches() -> None:
    alone = ServiceManager({})
    alone.ready()
    assert alone.watchdog_s is None


def test_a_manager_that_is_away_does_not_hurt(tmp_path: Path) -> None:
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).ready()


def test_a_name_in_the_abstract_space_is_understood() -> None:
    listener = Listener(f"\0chatd-test-{os.getpid()}")
    ServiceManager({"NOTIFY_SOCKET": f"@chatd-test-{os.getpid()}"}).ready()
    assert listener.said() == ["READY=1"]
    listener.socket.close()


@pytest.mark.parametrize("environ", [{"WATCHDOG_USEC": "many"}, {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}])
def test_the_watchdog_of_somebody_else_is_not_ours(environ: dict[str, str]) -> None:
    assert ServiceManager(environ).watchdog_s is None


def test_sockets_for_another_process_are_left_alone() -> None:
    assert inherited_sockets({"LISTEN_FDS": "1", "LISTEN_PID": "1", "LISTEN_FDNAMES": "tcp"}) == {}


def test_inherited_sockets_come_by_their_names() -> None:
    """In a child, whose descriptors from 3 on are free."""
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        ports = [first.getsockname()[1], second.getsockname()[1]]
        child = os.fork()
        if child == 0:
            given = [os.dup(first.fileno()), os.dup(second.fileno())]
            for index, descriptor in enumerate(given):
                os.dup2(descriptor, FIRST_FD + index)
            environ = {"LISTEN_FDS": "2", "LISTEN_PID": str(os.getpid()), "LISTEN_FDNAMES": "tcp:http"}
            found = inherited_sockets(environ)
            seen = {name: [sock.getsockname()[1] for sock in socks] for name, socks in found.items()}
            os._exit(0 if seen == {"tcp": ports[:1], "http": ports[1:]} else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_journal_is_known_by_its_pipe() -> None:
    reader, writer = os.pipe()
    status = os.fstat(writer)
    assert is_journal(writer, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
    assert not is_journal(writer, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino + 1}"})
    assert not is_journal(writer, {})
    os.close(reader)
    os.close(writer)


async def test_a_hangup_reloads_and_a_stop_is_announced(listener: Listener, manager: ServiceManager) -> None:
    someone, stop = Someone(), asyncio.Event()

    async def wait_said(text: str) -> None:
        async with asyncio.timeout(10):
            while await asyncio.get_running_loop().sock_recv(listener.socket, 4096) != text.encode():
                pass

    async with supervised(someone, stop, manager, structlog.get_logger()):
        os.kill(os.getpid(), signal.SIGHUP)
        await wait_said("RELOADING=1")
        await wait_said("READY=1")
        assert someone.reloads == 1
        stop.set()
        await wait_said("STOPPING=1\nEXTEND_TIMEOUT_USEC=2500000")
