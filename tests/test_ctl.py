"""chatctl: what it does to the files and the store, what stands on stdout, and its exit codes. On SQLite and on Redis."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest
from argon2 import PasswordHasher

from bench.servers import RedisServer
from brokerd.ports import Append, Entry
from chatd.auth.accounts import FileAccounts, open_accounts
from chatd.auth.passwords import parse_passwords
from chatd.config import ChatConfig, read
from chatd.ctl import main
from chatd.ctl.demo import DEMO_USERS, ensure_demo_users
from chatd.ports import Identity, LoginRefused
from chatd.stores import open_store
from protocol.errors import Code
from protocol.wire import Scheme, Type


class Told(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


class Shell:
    """Runs chatctl in a data folder of its own."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys = capsys
        self._monkeypatch = monkeypatch

    @property
    def config(self) -> ChatConfig:
        return read(None)

    def run(self, *words: str, typed: str = "") -> Told:
        """chatctl WORDS, with `typed` on stdin."""
        self._monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        self._capsys.readouterr()
        try:
            code = main(words)
        except SystemExit as end:  # argparse
            code = int(end.code or 0)
        told = Told(code, *self._capsys.readouterr())
        assert "Traceback" not in told.err
        return told

    def out(self, *words: str, typed: str = "") -> str:
        """The same, for a command that must go well: its stdout."""
        told = self.run(*words, typed=typed)
        assert told.code == 0, told.err
        return told.out.rstrip("\n")

    def refused(self, *words: str, typed: str = "") -> str:
        """The same, for a command that must be refused: its one sentence."""
        told = self.run(*words, typed=typed)
        assert (told.code, told.out, told.err.count("\n")) == (1, "", 1)
        return told.err


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Shell:
    monkeypatch.setenv("CHATD_DATA_DIR", str(tmp_path / "data"))
    return Shell(capsys, monkeypatch)


@pytest.fixture(params=["embedded", "cluster"])
def stored(request: pytest.FixtureRequest, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A shell on each store."""
    if request.param == "cluster":
        server: RedisServer = request.getfixturevalue("redis_server")
        monkeypatch.setenv("CHATD_MODE", "cluster")
        monkeypatch.setenv("CHATD_REDIS_URL", f"{server.url[:-1]}9")  # a db that no other test uses
        for user in ("ann", "bob", "carl"):
            asyncio.run(_delete(shell.config, user))
    return shell


async def _delete(config: ChatConfig, user: str) -> None:
    async with open_store(config) as store:
        await store.delete_user(user)


async def _has(config: ChatConfig, user: str) -> bool:
    async with open_store(config) as store:
        return await store.has_user(user)


def _prove(accounts: FileAccounts, scheme: Scheme, user: str, secret: str) -> Identity | Code:
    try:
        return asyncio.run(accounts.prove(scheme, user, secret, "127.0.0.1:1"))
    except LoginRefused as refusal:
        return refusal.code


def test_a_user_who_was_added_can_log_in_and_be_sent_to(stored: Shell) -> None:
    password = stored.out("user", "add", "ann", "--generate")
    assert len(password) == 20
    assert asyncio.run(_has(stored.config, "ann"))
    accounts = open_accounts(stored.config)
    assert _prove(accounts, Scheme.PASSWORD, "ann", password).user == "ann"
    accounts.close()


def test_a_deleted_user_is_gone_everywhere_and_a_token_does_not_help(stored: Shell) -> None:
    stored.out("keys", "init")
    stored.out("user", "add", "ann", "--generate")
    token = stored.out("token", "ann")
    stored.out("user", "del", "ann")
    assert not asyncio.run(_has(stored.config, "ann"))
    assert parse_passwords(stored.config.passwd_file.read_text()) == {}
    accounts = open_accounts(stored.config)
    assert _prove(accounts, Scheme.TOKEN, "ann", token) == Code.REVOKED
    accounts.close()
    assert "there is no user ann" in stored.refused("user", "del", "ann")
    stored.out("user", "add", "ann", "--generate")
    accounts = open_accounts(stored.config)
    assert isinstance(_prove(accounts, Scheme.TOKEN, "ann", token), Identity), "added again, open again"
    accounts.close()


def test_a_user_without_a_password_can_be_deleted_too(stored: Shell) -> None:
    async def log_in() -> None:
        async with open_store(stored.config) as store:
            await store.open("carl", "phone", b"g" * 8, 0)

    asyncio.run(log_in())
    stored.out("user", "del", "carl")
    assert stored.config.revoked_file.read_text() == "carl\n"


def test_queue_shows_what_waits_and_for_whom(stored: Shell) -> None:
    async def fill() -> None:
        async with open_store(stored.config) as store:
            await store.open("bob", "phone", b"g" * 8, 0)
            entry = Entry(b"ann/laptop", 1, Type.DELIVER, 0, 2**52, b"hush")
            await store.append([Append("bob", [entry])], 0)
            await store.note_trouble("bob", "phone", int(Code.SLOW_READER), 0)

    assert "there is no user 'bob'" in stored.refused("queue", "bob")
    asyncio.run(fill())
    status = json.loads(stored.out("queue", "bob", "--json"))
    assert (status["user"], status["floor"], status["head"], status["cursors"]) == ("bob", 0, 1, {"phone": 0})
    assert set(status["troubles"]) == {"phone"}
    text = stored.out("queue", "bob")
    assert text.splitlines()[0].startswith("bob: 1 kept (seq 1 to 1), ")
    assert "phone: acknowledged up to 0, 1 to come" in text
    assert "hush" not in text


def test_a_store_that_is_down_leaves_nothing_half_done(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATD_MODE", "cluster")
    monkeypatch.setenv("CHATD_REDIS_URL", "redis://u:hush@127.0.0.1:1")
    monkeypatch.setattr("chatd.stores.REACH_S_MAX", 0.1)
    told = shell.refused("user", "add", "ann", "--generate")
    assert "can not be reached" in told
    assert "hush" not in told
    assert not shell.config.passwd_file.exists()


def test_a_password_comes_from_stdin_and_can_be_changed(shell: Shell) -> None:
    assert shell.out("user", "add", "ann", "--password-stdin", typed="the first one\n") == ""
    shell.out("user", "passwd", "ann", "--password-stdin", typed="the second one\r\nmore\n")
    hashed = parse_passwords(shell.config.passwd_file.read_text())["ann"]
    assert PasswordHasher().verify(hashed, "the second one")
    assert shell.out("user", "list") == "ann"
    assert json.loads(shell.out("user", "list", "--json")) == ["ann"]


@pytest.mark.parametrize(
    ("words", "typed", "says"),
    [
        (("user", "add", "Ann", "--generate"), "", "is no user name"),
        (("user", "add", "a\nb", "--generate"), "", "is no user name"),
        (("user", "del", "../x"), "", "is no user name"),
        (("user", "add", "ann", "--password-stdin"), "short\n", "at least 8"),
        (("user", "add", "ann", "--password-stdin"), "", "at least 8"),
        (("user", "add", "ann", "--password-stdin"), "x" * 4000, "1 to 3072 bytes"),
        (("user", "add", "ann"), "", "no terminal"),
        (("user", "passwd", "ann", "--generate"), "", "has no password"),
        (("user", "del", "ann"), "", "there is no user"),
        (("queue", "A:b"), "", "there is no user"),
        (("token", "ann"), "", "keys init"),
        (("keys", "list"), "", "keys init"),
        (("keys", "add"), "", "keys init"),
        (("keys", "init", "--kid", "a b"), "", "no key id"),
    ],
)
def test_what_can_not_be_done_is_refused_with_one_sentence(
    words: tuple[str, ...], typed: str, says: str, shell: Shell
) -> None:
    assert says in shell.refused(*words, typed=typed)


def test_a_user_can_not_be_added_twice(shell: Shell) -> None:
    shell.out("user", "add", "ann", "--generate")
    before = shell.config.passwd_file.read_text()
    assert "ann exists" in shell.refused("user", "add", "ann", "--generate")
    assert shell.config.passwd_file.read_text() == before


def test_a_broken_password_file_is_told_by_its_line_and_left_alone(shell: Shell) -> None:
    shell.out("user", "add", "ann", "--generate")
    with shell.config.passwd_file.open("a") as stream:
        stream.write("bob hash\n")
    assert "line 2" in shell.refused("user", "add", "carl", "--generate")
    assert shell.config.passwd_file.read_text().endswith("bob hash\n")


def test_keys_are_rotated_step_by_step(shell: Shell) -> None:
    first = shell.out("keys", "init")
    second = shell.out("keys", "add", "--alg", "HS256", "--kid", "second")
    old = shell.out("token", "ann")
    shell.out("keys", "activate", second)
    new = shell.out("token", "ann", "--ttl", "15m")
    accounts = open_accounts(shell.config)
    for token in (old, new):
        assert isinstance(_prove(accounts, Scheme.TOKEN, "", token), Identity)
    accounts.close()
    assert "active key" in shell.refused("keys", "drop", second)
    shell.out("keys", "drop", first)
    accounts = open_accounts(shell.config)
    assert _prove(accounts, Scheme.TOKEN, "", old) == Code.TOKEN_FOREIGN
    accounts.close()
    assert json.loads(shell.out("keys", "list", "--json")) == [
        {"kid": "second", "alg": "HS256", "mints": True, "active": True}
    ]
    assert shell.config.keys_file.stat().st_mode & 0o777 == 0o600
    for words in (("init",), ("add", "--kid", "second"), ("drop", "gone"), ("activate", "gone")):
        shell.refused("keys", *words)


def test_a_public_key_of_somebody_else_verifies_and_can_not_mint(shell: Shell, tmp_path: Path) -> None:
    shell.out("keys", "init", "--kid", "ours")
    public = _table(shell, "ours")["public"]
    (tmp_path / "their.pem").write_text(public)
    shell.out("keys", "add", "--kid", "theirs", "--public", str(tmp_path / "their.pem"))
    assert "only verifies" in shell.refused("keys", "activate", "theirs")
    assert "only verifies" in shell.refused("token", "ann", "--kid", "theirs")
    assert "theirs  EdDSA  verifies only" in shell.out("keys", "list")
    (tmp_path / "bad.pem").write_text("x")
    before = shell.config.keys_file.read_text()
    assert "PEM" in shell.refused("keys", "add", "--public", str(tmp_path / "bad.pem"))
    assert shell.config.keys_file.read_text() == before


def _table(shell: Shell, kid: str) -> dict[str, str]:
    table = tomllib.loads(shell.config.keys_file.read_text())["keys"][kid]
    assert isinstance(table, dict)
    return table


@pytest.mark.parametrize("ttl", ["", "0s", "1", "h", "1w", "-1h", "367d", "1e3s", "9" * 20 + "d"])
def test_a_time_that_is_none_is_refused(ttl: str, shell: Shell) -> None:
    shell.out("keys", "init")
    assert "--ttl" in shell.refused("token", "ann", f"--ttl={ttl}")


def test_wrong_usage_and_wrong_settings_end_with_2(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    for words in ((), ("user",), ("user", "add"), ("nonsense",), ("--config",)):
        assert shell.run(*words).code == 2
    monkeypatch.setenv("CHATD_TCP_PORT", "x")
    told = shell.run("user", "list")
    assert (told.code, told.err.count("tcp.port")) == (2, 1)


def test_config_and_data_dir_may_stand_before_or_behind_the_command(shell: Shell, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shell.out("--data-dir", str(other), "keys", "init")
    assert (other / "keys.toml").exists()
    file = tmp_path / "chatd.toml"
    file.write_text(f'[auth]\nkeys_file = "{other}/keys.toml"\n')
    assert "active" in shell.out("keys", "list", "--config", str(file))
    assert "active" in shell.out("--config", str(file), "keys", "list")
    assert "active" in shell.out("keys", "--config", str(file), "list")


def test_the_demo_users_are_made_once_and_told_every_time(shell: Shell) -> None:
    folder = shell.config.data_dir
    demo = ensure_demo_users(folder)
    assert tuple(demo.passwords) == DEMO_USERS
    accounts = open_accounts(shell.config)
    for user, password in demo.passwords.items():
        assert isinstance(_prove(accounts, Scheme.PASSWORD, user, password), Identity)
        assert asyncio.run(_has(shell.config, user))
    accounts.close()
    shell.out("token", "ann")
    assert ensure_demo_users(folder) == demo
    assert shell.out("demo").splitlines() == list(demo.lines)
    assert {path.stat().st_mode & 0o077 for path in folder.iterdir() if path.suffix != ".sqlite"} == {0}


def test_users_of_ones_own_are_left_alone_by_the_demo(shell: Shell) -> None:
    shell.out("user", "add", "eve", "--generate")
    assert ensure_demo_users(shell.config.data_dir).lines == ()
    assert shell.out("user", "list") == "eve"


def test_help_imports_nothing_heavy() -> None:
    told = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "chatd.ctl", "--help"], capture_output=True, text=True, check=True
    )
    assert "usage: chatctl" in told.stdout
    for heavy in ("structlog", "jwt", "argon2", "cryptography", "asyncio", "sqlite3"):
        assert f" {heavy}\n" not in told.stderr
