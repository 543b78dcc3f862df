from __future__ import annotations

import stat
from pathlib import Path

import pytest

from chatd.terminal.account import Server, Unusable, account_of, parser, remembered_device, server_of, state_folder
from chatd.terminal.history import HISTORY_LINES_MAX, BoundedHistory


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("tcp://127.0.0.1:7400", Server("tcp", "127.0.0.1", 7400, "/ws")),
        ("tcp://example.org", Server("tcp", "example.org", 7400, "/ws")),
        ("ws://127.0.0.1:7480/ws", Server("ws", "127.0.0.1", 7480, "/ws")),
        ("wss://example.org/chat", Server("wss", "example.org", 443, "/chat")),
        ("tls://[::1]:9", Server("tls", "::1", 9, "/ws")),
    ],
)
def test_a_server_is_a_url(url: str, server: Server) -> None:
    assert server_of(url) == server


@pytest.mark.parametrize("url", ["", "127.0.0.1:7400", "http://x", "tcp://", "tcp://x:99999", "tcp://ann:pw@x"])
def test_what_is_no_server_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(Unusable, match="like tcp://127"):
        server_of(url)


def test_the_password_is_asked_for_only_when_nothing_else_is_there(tmp_path: Path) -> None:
    asked: list[str] = []

    def ask(question: str) -> str:
        asked.append(question)
        return "typed"

    environ = {"XDG_STATE_HOME": str(tmp_path)}
    options = parser().parse_args(["--user", "ann"])
    assert account_of(options, environ, ask).password == "typed"
    assert asked == ["Password of ann on 127.0.0.1:7400: "]
    assert account_of(options, {**environ, "CHAT_PASSWORD": "given"}, ask).password == "given"
    with_token = account_of(options, {**environ, "CHAT_TOKEN": "t"}, ask)
    assert (with_token.password, with_token.token) == (None, "t")
    with pytest.raises(Unusable, match="CHAT_PASSWORD"):
        account_of(options, environ, None)
    assert len(asked) == 1


@pytest.mark.parametrize("option", ["--user", "--device", "--to"])
def test_a_bad_name_is_told_with_what_is_allowed(tmp_path: Path, option: str) -> None:
    options = parser().parse_args(["--user", "ann", option, "../etc"])
    with pytest.raises(Unusable, match=rf"{option} is '../etc'; 1 to 64"):
        account_of(options, {"XDG_STATE_HOME": str(tmp_path), "CHAT_PASSWORD": "x"}, None)
    assert list(tmp_path.iterdir()) == []


def test_a_device_is_made_up_once_and_kept_private(tmp_path: Path) -> None:
    device = remembered_device(tmp_path)
    assert device.startswith("term-")
    assert remembered_device(tmp_path) == device
    assert stat.S_IMODE((tmp_path / "device").stat().st_mode) == 0o600
    (tmp_path / "device").write_text("No Good\n")
    assert remembered_device(tmp_path).startswith("term-")


def test_a_relative_state_folder_is_ignored() -> None:
    assert state_folder({"XDG_STATE_HOME": "here"}) == Path.home() / ".local" / "state" / "chatd"


def test_the_history_is_kept_bounded_private_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "history"
    history = BoundedHistory(path)
    for number in range(HISTORY_LINES_MAX + 50):
        history.append_string(f"line {number}\nand more")
    with path.open("a") as file:
        file.write("not json\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = list(BoundedHistory(path).load_history_strings())
    assert again[0] == f"line {HISTORY_LINES_MAX + 49}\nand more"
    assert len(again) == HISTORY_LINES_MAX - 1
    assert len(path.read_text().splitlines()) == HISTORY_LINES_MAX - 1
