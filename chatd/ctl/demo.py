"""Users to try the server with. Their passwords are kept in clear in the data folder: never for a server that is used."""

from __future__ import annotations

import argparse
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from argon2 import PasswordHasher

from chatd.auth.files import replace_text
from chatd.config import ChatConfig
from chatd.ctl import say
from chatd.ctl.keyring import make_key
from chatd.ctl.users import make_users

DEMO_USERS: Final = ("ann", "bob")
PASSWORD_BYTES: Final = 6  # it is typed by hand
KID: Final = "demo"


class Demo(NamedTuple):
    """User → password; the lines tell a person."""

    passwords: Mapping[str, str]
    lines: tuple[str, ...]


def ensure_demo_users(data_dir: Path, hasher: PasswordHasher | None = None) -> Demo:
    """Make ann and bob and a key for tokens in `data_dir`, once (files and embedded store); later only say them again.

    Not from a running event loop. Users who exist already without our having made them are left alone: then there is
    nothing to say.
    """
    config = ChatConfig(data_dir=data_dir)
    notes = data_dir / "demo.json"
    if not config.keys_file.exists():
        make_key(config.keys_file, KID, "EdDSA")
    if not config.passwd_file.exists():
        passwords = {user: secrets.token_hex(PASSWORD_BYTES) for user in DEMO_USERS}
        make_users(config, passwords, hasher)
        replace_text(notes, json.dumps(passwords) + "\n")
    passwords = json.loads(notes.read_text()) if notes.exists() else {}
    return Demo(passwords, tuple(f"user {user}, password {word}" for user, word in passwords.items()))


def run_demo(config: ChatConfig, options: argparse.Namespace) -> None:
    """chatctl demo"""
    for line in ensure_demo_users(config.data_dir).lines:
        say(line)
