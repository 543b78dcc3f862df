"""O02: SIGHUP takes over what is good, at once and without dropping anybody; what is not good changes nothing and is said."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.processes import Chatd
from protocol.client import Client, Connected
from tests.faults.certificates import connected, name_served, no_check, write_certificate
from tests.faults.talk import HOST, quick

REREAD_S_MAX = 20.0


class Reloadable:
    """A chatd with a configuration file and TLS on its TCP port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "chatd.toml"
        write_certificate(folder, "first")
        self.write()
        self.server = Chatd(folder / "data", env={"CHATD_CONFIG": str(self.file)})

    def write(self, more: str = "", connections_max: int = 100) -> None:
        """The configuration file anew."""
        self.file.write_text(
            f'[tcp]\ntls_cert = "{self.folder}/cert.pem"\ntls_key = "{self.folder}/key.pem"\n'
            f"[limits]\nconnections_max = {connections_max}\nconnections_per_address_max = {connections_max}\n{more}",
            encoding="utf-8",
        )

    def hang_up(self) -> dict[str, Any]:
        """SIGHUP; what the log says came of it."""
        before = len(self.events())
        self.server.signal(signal.SIGHUP)
        end_s = time.monotonic() + REREAD_S_MAX
        while time.monotonic() < end_s:
            for event in self.events()[before:]:
                if event["event"] in ("reloaded", "reload_refused"):
                    return event
            time.sleep(0.02)
        raise AssertionError("the log says nothing of a reload")

    def events(self) -> list[dict[str, Any]]:
        """The whole log; a line that is being written is left out."""
        lines = self.server.log_path.read_text(encoding="utf-8").split("\n")[:-1]
        return [json.loads(line) for line in lines if line.startswith("{")]

    def client(self, name: str, states: list[object]) -> Client:
        """A new user's device; what becomes of its connection goes to `states`."""
        word = self.server.add_user(name)
        return Client(
            HOST, self.server.tcp_port, name, "phone", password=word, transport="tls", tls=no_check(),
            backoff=quick(), on_state=states.append,
        )  # fmt: skip


@pytest.fixture
def chatd(tmp_path: Path) -> Iterator[Reloadable]:
    made = Reloadable(tmp_path)
    made.server.start()
    yield made
    assert made.server.stop() == 0


async def test_o02_a_good_configuration_applies_and_drops_nobody(chatd: Reloadable) -> None:
    states: list[object] = []
    async with chatd.client("ann", states) as ann, chatd.client("bob", states) as bob:
        await ann.wait_connected()
        await bob.wait_connected()
        states.clear()
        write_certificate(chatd.folder, "second")
        chatd.write('[log]\nlevel = "debug"\n', connections_max=3)
        said = chatd.hang_up()
        assert said["event"] == "reloaded"
        assert said["changed"] == ["limits.connections_max", "limits.connections_per_address_max", "log.level"]
        assert said["need_a_restart"] == []
        port = chatd.server.tcp_port
        assert name_served(port) == "second"
        while json.loads(chatd.server.ctl("status", "--json"))["connections"]["open"] > 2:
            continue  # that look was a third connection, which the server has not yet seen end
        with connected(port), connected(port) as fourth:
            assert fourth.recv(1) == b"", "one more than the new limit"
        await ann.send("bob", b"still here")
        assert (await anext(bob)).payload == b"still here"  # type: ignore[union-attr]
        assert states == []
        assert isinstance(bob.state, Connected)


BAD: dict[str, tuple[str, str]] = {
    "not TOML": ("[limits", "is not TOML"),
    "an unknown key": ("no_such_key = 1\n", "there is no such key"),
    "a value out of range": ('[log]\nlevel = "loud"\n', "one of debug"),
}


@pytest.mark.parametrize("more", BAD.values(), ids=BAD)
def test_o02_a_bad_file_changes_nothing_and_is_named(chatd: Reloadable, more: tuple[str, str]) -> None:
    write_certificate(chatd.folder, "second")
    chatd.write(more[0], connections_max=1)
    said = chatd.hang_up()
    assert said["event"] == "reload_refused"
    assert more[1] in " ".join(said["why"])
    assert name_served(chatd.server.tcp_port) == "first", "not even the certificate"
    chatd.write()
    assert chatd.hang_up()["event"] == "reloaded", "a mended file is taken"
    assert name_served(chatd.server.tcp_port) == "second"


def test_o02_a_file_that_can_not_be_read_changes_nothing(chatd: Reloadable) -> None:
    chatd.file.unlink()
    chatd.file.mkdir()
    said = chatd.hang_up()
    assert said["event"] == "reload_refused"
    assert "can not be read" in said["why"][0]
    assert name_served(chatd.server.tcp_port) == "first"


def test_o02_a_key_that_is_not_the_certificates_changes_nothing(chatd: Reloadable) -> None:
    key = (chatd.folder / "key.pem").read_bytes()
    write_certificate(chatd.folder, "second")
    (chatd.folder / "key.pem").write_bytes(key)
    chatd.write('[log]\nlevel = "debug"\n')
    said = chatd.hang_up()
    assert said["event"] == "reload_refused"
    assert "no certificate with its key" in said["why"][0]
    assert name_served(chatd.server.tcp_port) == "first"


def test_o02_what_takes_a_restart_is_said_and_left(chatd: Reloadable) -> None:
    chatd.file.write_text("shards = 4\n" + chatd.file.read_text())
    assert chatd.hang_up()["need_a_restart"] == ["shards"]
