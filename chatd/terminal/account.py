"""Who talks to which server: arguments, environment, and the folder that remembers this device."""

from __future__ import annotations

import argparse
import getpass
import os
import secrets
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from protocol.client import Client, ClientState, FileStore
from protocol.client_wire import TRANSPORTS
from protocol.names import NAME_ALLOWED, is_name

SERVER_DEFAULT: Final = "tcp://127.0.0.1:7400"
PORT_OF: Final = {"tcp": 7400, "tls": 7401, "ws": 7480, "wss": 443}


class Unusable(Exception):
    """The arguments or the environment cannot work; the text says what would."""


@dataclass(frozen=True)
class Server:
    """Where to."""

    transport: str
    host: str
    port: int
    path: str

    @property
    def name(self) -> str:
        """host:port, for people and for the folder."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Account:
    """One device of one user on one server. `folder` is ours alone (0700)."""

    server: Server
    user: str
    device: str
    password: str | None
    token: str | None
    ca: Path | None
    folder: Path

    def client(self, on_state: Callable[[ClientState], None]) -> Client:
        """A client that keeps its place in the folder. Raises StoreBusy, OSError."""
        server = self.server
        tls = ssl.create_default_context(cafile=self.ca) if self.ca is not None else None
        return Client(
            server.host, server.port, self.user, self.device, password=self.password, token=self.token,
            transport=server.transport, path=server.path, tls=tls, on_state=on_state,
            store=FileStore(self.folder / f"{self.device}.journal"),
        )  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """The command line."""
    out = argparse.ArgumentParser(prog="chat", description="Talk to people on a chatd server.", epilog=_EPILOG)
    out.add_argument("--server", default=None, help=f"tcp, tls, ws or wss URL (CHAT_SERVER; else {SERVER_DEFAULT})")
    out.add_argument("--user", default=None, help="who you are (CHAT_USER; else your login name)")
    out.add_argument("--device", default=None, help="this installation (else one is made up once and remembered)")
    out.add_argument(
        "--token", default=None, help="log in with a token (better: CHAT_TOKEN, which no process list shows)"
    )
    out.add_argument("--ca", type=Path, default=None, help="a file of certificates to trust, for tls and wss")
    out.add_argument("--to", default=None, help="whom to talk to at first")
    out.add_argument(
        "--stay", action="store_true", help="in a pipe: go on printing after the input ended, until Ctrl-C"
    )
    return out


_EPILOG: Final = (
    "The password is asked for, or read from CHAT_PASSWORD. In a pipe, each input line NAME: TEXT is sent, each message "
    "is printed as NAME: TEXT, and chat ends when all is sent and all that waited is printed."
)


def account_of(options: argparse.Namespace, environ: Mapping[str, str], ask: Callable[[str], str] | None) -> Account:
    """`ask(question)` gets a secret from the person; None when there is none. Raises Unusable, OSError."""
    server = server_of(options.server or environ.get("CHAT_SERVER") or SERVER_DEFAULT)
    user = options.user or environ.get("CHAT_USER") or getpass.getuser()
    for what, name in (("--user", user), ("--device", options.device), ("--to", options.to)):
        if name is not None and not is_name(name):
            raise Unusable(f"{what} is {name!r}; {NAME_ALLOWED}")
    token = options.token or environ.get("CHAT_TOKEN")
    password = None if token else _password(user, server, environ, ask)
    folder = state_folder(environ) / f"{user}@{server.name}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    device = options.device or remembered_device(folder)
    return Account(server, user, device, password, token or None, options.ca, folder)


def server_of(url: str) -> Server:
    """tcp://host:port, tls://…, ws://host:port/path, wss://… Raises Unusable."""
    wrong = Unusable(f"--server is {url!r}; like {SERVER_DEFAULT}, with {', '.join(TRANSPORTS)}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise wrong from None
    if parts.scheme not in TRANSPORTS or not parts.hostname or parts.username is not None:
        raise wrong
    return Server(
        parts.scheme, parts.hostname, port or PORT_OF[parts.scheme], parts.path if len(parts.path) > 1 else "/ws"
    )


def state_folder(environ: Mapping[str, str]) -> Path:
    """XDG_STATE_HOME/chatd; the variable counts only when it is an absolute path."""
    home = environ.get("XDG_STATE_HOME", "")
    base = Path(home) if home.startswith("/") else Path.home() / ".local" / "state"
    return base / "chatd"


def remembered_device(folder: Path) -> str:
    """The device id of this folder, made up the first time."""
    path = folder / "device"
    known = path.read_text().strip() if path.exists() else ""
    if is_name(known):
        return known
    fresh = f"term-{secrets.token_hex(4)}"
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(fresh + "\n")
    return fresh


def _password(user: str, server: Server, environ: Mapping[str, str], ask: Callable[[str], str] | None) -> str:
    password = environ.get("CHAT_PASSWORD")
    if password is None and ask is not None:
        password = ask(f"Password of {user} on {server.name}: ")
    if password is None:
        raise Unusable("no password: set CHAT_PASSWORD or CHAT_TOKEN")
    return password
