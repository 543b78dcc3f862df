"""chatctl keys and chatctl token. Rotation: keys add, wait until every node has read it, keys activate, later keys drop."""

from __future__ import annotations

import argparse
import json
import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from chatd.auth.files import read_text, replace_text, writing
from chatd.auth.keys import KID_ALLOWED, KeyRing, generated, is_kid, parse_keys, raw_keys, render_keys
from chatd.auth.own import is_own
from chatd.auth.tokens import Expected, mint
from chatd.config import ChatConfig
from chatd.ctl import Refused, hint, say
from protocol.names import NAME_ALLOWED, is_name
from protocol.wire import SECRET_BYTES_MAX

KID_RANDOM_BYTES: Final = 4
SECRET_RANDOM_BYTES: Final = 48
TTL_S_MAX: Final = 366 * 24 * 3600
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600}
_TTL: Final = re.compile(r"(\d{1,9})([smhd])")


def init_keys(config: ChatConfig, options: argparse.Namespace) -> None:
    """chatctl keys init"""
    if config.keys_file.exists():
        raise Refused(f"{config.keys_file} exists; another key is added by: chatctl keys add")
    kid = _new_kid(options.kid)
    make_key(config.keys_file, kid, options.alg)
    say(kid)
    hint(f"{config.keys_file} was made; keep it secret. A token is printed by: chatctl token NAME")


def make_key(path: Path, kid: str, alg: str) -> None:
    """Make the keys file with one new, active key."""
    with writing(path):
        if path.exists():
            raise Refused(f"{path} exists")
        table = generated(alg, secrets.token_urlsafe(SECRET_RANDOM_BYTES))
        replace_text(path, render_keys({"active": kid, "keys": {kid: table}}))


def add_keys(config: ChatConfig, options: argparse.Namespace) -> None:
    """chatctl keys add"""
    kid = _new_kid(options.kid)
    if options.public is None:
        table = generated(options.alg, secrets.token_urlsafe(SECRET_RANDOM_BYTES))
    else:
        table = {"alg": options.alg, "public": read_text(Path(options.public)).strip()}

    def add(raw: dict[str, Any]) -> None:
        if kid in raw["keys"]:
            raise Refused(f"a key {kid} exists")
        raw["keys"][kid] = table

    _change(config, add)
    say(kid)
    if options.public is None:
        hint(f"tokens are minted with it after: chatctl keys activate {kid}")


def activate_keys(config: ChatConfig, options: argparse.Namespace) -> None:
    """chatctl keys activate"""
    kid = options.kid
    _signing_key(_ring(config), kid)
    _change(config, lambda raw: raw.update(active=kid))
    hint(f"tokens are minted with {kid} from now on; those of other keys stay good until they end")


def drop_keys(config: ChatConfig, options: argparse.Namespace) -> None:
    """chatctl keys drop"""

    def drop(raw: dict[str, Any]) -> None:
        if raw.get("active") == options.kid:
            raise Refused(f"{options.kid} is the active key: activate another one first")
        if raw["keys"].pop(options.kid, None) is None:
            raise Refused(f"there is no key {options.kid}")

    _change(config, drop)
    hint(f"{options.kid} was dropped: its tokens are refused from now on")


def list_keys(config: ChatConfig, options: argparse.Namespace) -> None:
    """chatctl keys list"""
    ring = _ring(config)
    rows = [
        {"kid": key.kid, "alg": key.alg, "mints": key.sign is not None, "active": key.kid == ring.active}
        for key in ring.keys.values()
    ]
    if options.json:
        say(json.dumps(rows))
        return
    for row in rows:
        marks = ", ".join(word for word in ("active", "mints") if row[word])
        say(f"{row['kid']}  {row['alg']}  {marks or 'verifies only'}")


def print_token(config: ChatConfig, options: argparse.Namespace) -> None:
    """chatctl token"""
    if not is_name(options.name):
        raise Refused(f"{options.name!r} is no user name: it is {NAME_ALLOWED}")
    if is_own(options.name):
        raise Refused(f"{options.name} is chatd's own: nobody logs in as it")
    ring = _ring(config)
    if options.kid is None and ring.active is None:
        raise Refused("there is no active key; one is made by: chatctl keys init")
    key = _signing_key(ring, options.kid or ring.active)
    expected = Expected(config.auth.audience, config.auth.issuer)
    token = mint(key, options.name, expected, time.time(), _ttl_s(options.ttl))
    if len(token) > SECRET_BYTES_MAX:
        raise Refused(f"the token would be longer than {SECRET_BYTES_MAX} bytes: shorten audience or issuer")
    say(token)


def _signing_key(ring: KeyRing, kid: str | None) -> Any:
    key = ring.keys.get(kid or "")
    if key is None:
        raise Refused(f"there is no key {kid}")
    if key.sign is None:
        raise Refused(f"{kid} only verifies: its private key is elsewhere")
    return key


def _ring(config: ChatConfig) -> KeyRing:
    path = config.keys_file
    if not path.exists():
        raise Refused(f"there is no {path}; it is made by: chatctl keys init")
    return parse_keys(read_text(path), path.parent)


def _change(config: ChatConfig, change: Callable[[dict[str, Any]], None]) -> None:
    path = config.keys_file
    with writing(path):
        if not path.exists():
            raise Refused(f"there is no {path}; it is made by: chatctl keys init")
        raw = raw_keys(read_text(path))
        change(raw)
        text = render_keys(raw)
        parse_keys(text, path.parent)  # never write what chatd would refuse
        replace_text(path, text)


def _new_kid(kid: str | None) -> str:
    kid = kid or "k" + secrets.token_hex(KID_RANDOM_BYTES)
    if not is_kid(kid):
        raise Refused(f"{kid!r} is no key id: it is {KID_ALLOWED}")
    return kid


def _ttl_s(text: str) -> int:
    match = _TTL.fullmatch(text)
    ttl_s = int(match[1]) * _UNITS[match[2]] if match else 0
    if not 0 < ttl_s <= TTL_S_MAX:
        raise Refused(f"--ttl {text}: it is a number and s, m, h or d, up to 366d")
    return ttl_s
