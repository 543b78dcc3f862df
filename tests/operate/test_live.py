"""chatctl and a running chatd, over its local socket: what it tells, what it does, and who may ask."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from bench.processes import Chatd
from tests.operate.asking import client, ctl, told, wait_until


def path_of(server: Chatd) -> Path:
    return server.data_dir / "chatd.sock"


async def test_an_operator_sees_who_is_there_and_ends_a_session(embedded_server: Chatd) -> None:
    password = embedded_server.add_user("ann")
    async with (
        client(embedded_server, "ann", "phone", password) as phone,
        client(embedded_server, "ann", "pc", password) as pc,
    ):
        await phone.wait_connected()
        await pc.wait_connected()
        await phone.send("ann", b"a note")
        status = told(embedded_server, "status")
        assert (status["ready"], status["sessions"], status["users"], status["counts"]["accepted"]) == (True, 2, 1, 1)
        assert told(embedded_server, "who") == [{"user": "ann", "devices": ["pc", "phone"]}]
        [first, second] = told(embedded_server, "sessions")
        assert (first["device"], second["device"], second["peer"].split(":")[0]) == ("pc", "phone", "127.0.0.1")
        assert told(embedded_server, "sessions", "bob") == []
        session = second["session"]
        assert told(embedded_server, "kick", "ann", "phone") == {"user": "ann", "devices": ["phone"]}

        def is_back() -> bool:  # the client comes back by itself, as a new session
            return [it["session"] for it in told(embedded_server, "sessions") if it["device"] == "phone"] not in (
                [],
                [session],
            )

        await asyncio.to_thread(wait_until, is_back)
        assert [it["session"] for it in told(embedded_server, "sessions") if it["device"] == "pc"] == [first["session"]]
    refused = ctl(embedded_server, "kick", "bob")
    assert (refused.returncode, refused.stderr) == (1, "chatctl: bob has no session here\n")
    for words in (["status"], ["who"], ["sessions"], ["limits"]):
        people = ctl(embedded_server, *words)
        assert (people.returncode, people.stderr) == (0, "")


def test_limits_level_and_reload_are_those_of_the_process_that_runs(embedded_server: Chatd, tmp_path: Path) -> None:
    limits = told(embedded_server, "limits")
    assert (limits["limits"]["connections_max"], limits["used"]["open"]) == (20_000, 0)
    assert told(embedded_server, "loglevel") == {"level": "info"}
    assert told(embedded_server, "loglevel", "warning") == {"level": "warning"}
    assert told(embedded_server, "reload") == {"changed": ["log.level"], "need_a_restart": []}
    embedded_server.stop()
    file = tmp_path / "chatd.toml"
    file.write_text("[limits]\nconnections_max = 3000\n")
    embedded_server.env["CHATD_CONFIG"] = str(file)
    embedded_server.start()
    file.write_text("[limits]\nconnections_max = 4000\n")
    assert told(embedded_server, "reload") == {"changed": ["limits.connections_max"], "need_a_restart": []}
    assert told(embedded_server, "limits")["limits"]["connections_max"] == 4000
    file.write_text("[limits]\nconnections_max = 500\n")  # below connections_per_address_max
    refused = ctl(embedded_server, "reload", "--socket", str(path_of(embedded_server)), "--config", os.devnull)
    assert refused.returncode == 1
    assert "stays as it was" in refused.stderr
    assert "connections_max" in refused.stderr
    file.write_text("[limits]\nconnections_max = 4000\n")
    assert told(embedded_server, "status")["reload_refused"] != []


def test_drain_ends_it_well_and_takes_the_socket_away(embedded_server: Chatd) -> None:
    assert "drains" in embedded_server.ctl("drain")
    wait_until(lambda: not embedded_server.is_running)
    assert embedded_server.stop() == 0
    assert not path_of(embedded_server).exists()
    gone = ctl(embedded_server, "status")
    assert gone.returncode == 1
    assert gone.stderr.startswith(f"chatctl: no chatd runs here: nobody answers at {path_of(embedded_server)}")


def test_a_killed_chatd_leaves_a_socket_that_is_told_from_a_living_one(embedded_server: Chatd) -> None:
    embedded_server.kill9()
    assert path_of(embedded_server).exists()
    assert "no chatd runs here" in ctl(embedded_server, "status").stderr
    embedded_server.start()
    assert told(embedded_server, "status")["ready"]


def test_only_its_user_may_open_the_socket_and_nonsense_does_it_no_harm(embedded_server: Chatd) -> None:
    assert stat.S_IMODE(path_of(embedded_server).stat().st_mode) == 0o600
    if os.getuid() == 0:
        tried = subprocess.run(
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-S", "-c",
             f"import socket; socket.socket(socket.AF_UNIX).connect({str(path_of(embedded_server))!r})"],
            check=False, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert "PermissionError" in tried.stderr
    for line in (b"\n", b"[]\n", b'{"command": "dance"}\n', b"x" * 200_000 + b"\n", b'{"command": "kick"}\n', b""):
        with socket.socket(socket.AF_UNIX) as asker:
            asker.connect(str(path_of(embedded_server)))
            try:
                asker.sendall(line)
                asker.shutdown(socket.SHUT_WR)
                answer = asker.recv(65536)
            except OSError:
                answer = b""
            assert b'"ok": true' not in answer
    assert told(embedded_server, "status")["ready"]


@pytest.mark.parametrize("folder", ["a" * 150])
def test_a_folder_with_a_long_name_is_no_hindrance(tmp_path: Path, folder: str) -> None:
    server = Chatd(tmp_path / folder)
    server.start()
    try:
        assert told(server, "status")["ready"]
    finally:
        server.stop()
