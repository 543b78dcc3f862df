"""chatctl user: the password file, the revoked file and the store, kept in step."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import json
import secrets
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from argon2 import PasswordHasher

from chatd.auth.accounts import parse_revoked
from chatd.auth.files import read_text, replace_text, writing
from chatd.auth.own import OWN_PREFIX, is_own
from chatd.auth.passwords import (
    PASSWORD_CHARS_MIN,
    change_passwords,
    owasp_hasher,
    parse_passwords,
    password_bytes,
)
from chatd.config import ChatConfig
from chatd.ctl import Refused, hint, say
from chatd.stores import open_store
from protocol.names import NAME_ALLOWED, is_name
from protocol.wire import GENERATION_BYTES, SECRET_BYTES_MAX

GENERATED_BYTES: Final = 15  # 20 characters, 120 bits


def add_user(config: ChatConfig, options: argparse.Namespace) -> None:
    """chatctl user add"""
    _check_name(options.name)
    if is_own(options.name):
        raise Refused(f"{options.name} would be chatd's own: nobody logs in with a name that begins with {OWN_PREFIX}")
    if options.name in _users_of(config):
        raise Refused(f"{options.name} exists; its password is changed by: chatctl user passwd {options.name}")
    password = _password(options)
    make_users(config, {options.name: password})
    _tell(options, password, f"{options.name} was added")


def make_users(config: ChatConfig, passwords: dict[str, str], hasher: PasswordHasher | None = None) -> None:
    """Put new users into the store, then into the password file, so that a store which is down leaves nothing half done.

    Raises Refused when one exists, LinkDown."""
    hasher = hasher or owasp_hasher()
    hashes = {user: hasher.hash(password_bytes(password)) for user, password in passwords.items()}

    def add(users: dict[str, str]) -> None:
        for user in hashes:
            if user in users:
                raise Refused(f"{user} exists")
        users.update(hashes)

    asyncio.run(_create_in_store(config, hashes))
    change_passwords(config.passwd_file, add)
    _change_revoked(config.revoked_file, lambda names: names.difference_update(hashes))


def passwd_user(config: ChatConfig, options: argparse.Namespace) -> None:
    """chatctl user passwd"""
    name = options.name
    _check_name(name)
    if name not in _users_of(config):
        raise Refused(f"{name} has no password; it is made by: chatctl user add {name}")
    password = _password(options)
    hashed = owasp_hasher().hash(password_bytes(password))

    def change(users: dict[str, str]) -> None:
        if name not in users:
            raise Refused(f"{name} was deleted meanwhile")
        users[name] = hashed

    change_passwords(config.passwd_file, change)
    _tell(options, password, f"the password of {name} was changed")


def del_user(config: ChatConfig, options: argparse.Namespace) -> None:
    """chatctl user del: sessions end within seconds; tokens that were given out do not open the account again."""
    name = options.name
    _check_name(name)
    had_password = name in _users_of(config)
    if not had_password and not asyncio.run(_is_in_store(config, name)):
        raise Refused(f"there is no user {name}")
    # First what keeps the user out, then what is the user's: a session that ends late finds no way back.
    _change_revoked(config.revoked_file, lambda names: names.add(name))
    if had_password:
        change_passwords(config.passwd_file, lambda users: _forget(users, name))
    asyncio.run(_delete_in_store(config, name))
    hint(f"{name} was deleted")


def _forget(users: dict[str, str], name: str) -> None:
    users.pop(name, None)


def list_users(config: ChatConfig, options: argparse.Namespace) -> None:
    """chatctl user list"""
    users = sorted(_users_of(config))
    if options.json:
        say(json.dumps(users))
    else:
        for user in users:
            say(user)


async def _create_in_store(config: ChatConfig, users: Iterable[str]) -> None:
    """Make users known to the store: from then on they can be sent to."""
    async with open_store(config) as store:
        for user in users:
            await store.create_user(user, secrets.token_bytes(GENERATION_BYTES), time.time_ns() // 1_000_000)


async def _is_in_store(config: ChatConfig, user: str) -> bool:
    async with open_store(config) as store:
        return await store.has_user(user)


async def _delete_in_store(config: ChatConfig, user: str) -> None:
    async with open_store(config) as store:
        await store.delete_user(user)


def _users_of(config: ChatConfig) -> dict[str, str]:
    return parse_passwords(read_text(config.passwd_file)) if config.passwd_file.exists() else {}


def _change_revoked(path: Path, change: Callable[[set[str]], None]) -> None:
    with writing(path):
        before = parse_revoked(read_text(path)) if path.exists() else frozenset()
        names = set(before)
        change(names)
        if names != before:
            replace_text(path, "".join(f"{name}\n" for name in sorted(names)))


def _check_name(name: str) -> None:
    if not is_name(name):
        raise Refused(f"{name!r} is no user name: it is {NAME_ALLOWED}")


def _password(options: argparse.Namespace) -> str:
    if options.generate:
        return secrets.token_urlsafe(GENERATED_BYTES)
    if options.password_stdin:
        password = sys.stdin.readline(SECRET_BYTES_MAX + 2).rstrip("\r\n")
    elif sys.stdin.isatty():
        password = getpass.getpass("Password: ")
        if getpass.getpass("Again: ") != password:
            raise Refused("the two are not the same")
    else:
        raise Refused("there is no terminal to ask for a password: use --password-stdin or --generate")
    if len(password) < PASSWORD_CHARS_MIN:
        raise Refused(f"a password has at least {PASSWORD_CHARS_MIN} characters")
    try:
        password_bytes(password)
    except ValueError as error:
        raise Refused(str(error)) from None
    return password


def _tell(options: argparse.Namespace, password: str, done: str) -> None:
    if options.generate:
        say(password)
    hint(done)
