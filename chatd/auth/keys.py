"""The keys file: which keys sign tokens, and which one chatctl mints with.

    active = "k2"

    [keys.k1]                       # rotated out: still verifies until it is dropped
    alg = "HS256"
    secret = "at least 32 bytes"

    [keys.k2]
    alg = "EdDSA"                   # or ES256
    public = '''-----BEGIN PUBLIC KEY-----…'''
    private = '''-----BEGIN PRIVATE KEY-----…'''   # only where tokens are minted

Each of secret, public and private may be `…_file` instead, a path from the keys file's folder.
"""

from __future__ import annotations

import hmac
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from jwt import PyJWTError
from jwt.algorithms import get_default_algorithms

from chatd.auth.files import FileBroken, read_text

ALGS: Final = ("EdDSA", "ES256", "HS256")
SECRET_BYTES_MIN: Final = 32  # RFC 7518 §3.2: as long as the hash
KEYS_MAX: Final = 64
KID_ALLOWED: Final = "1 to 64 of A-Z a-z 0-9 . _ -"
is_kid = re.compile(r"[A-Za-z0-9._-]{1,64}").fullmatch

_ALGORITHMS: Final[Mapping[str, Any]] = {alg: get_default_algorithms()[alg] for alg in ALGS}
_PARTS: Final = ("secret", "public", "private")
_FIELDS: Final = {"alg", *_PARTS, *(part + "_file" for part in _PARTS)}


@dataclass(frozen=True, slots=True)
class Key:
    """One key. Its algorithm is part of it: a token has no say in that. `sign` is None where it only verifies."""

    kid: str
    alg: str
    verify: Any = field(repr=False)
    sign: Any | None = field(repr=False)

    def checks(self, data: bytes, signature: bytes) -> bool:
        """Whether this key signed `data`. PyJWT's own step, without what parse_keys did once and for all."""
        if self.alg == "HS256":
            return hmac.compare_digest(hmac.digest(self.verify, data, "sha256"), signature)
        return bool(_ALGORITHMS[self.alg].verify(data, self.verify, signature))


@dataclass(frozen=True, slots=True)
class KeyRing:
    """All keys that verify, and the one that mints."""

    keys: Mapping[str, Key]
    active: str | None


NO_KEYS: Final = KeyRing({}, None)


def parse_keys(text: str, folder: Path) -> KeyRing:
    """The keys of a keys file in `folder`. Raises FileBroken with the key and field that is wrong."""
    raw = raw_keys(text)
    keys = {kid: _key(kid, table, folder) for kid, table in raw["keys"].items()}
    active = raw.get("active")
    if active is not None and active not in keys:
        raise FileBroken(f"active = {active!r}: there is no such key")
    return KeyRing(keys, active)


def raw_keys(text: str) -> dict[str, Any]:
    """The file's shape, checked, but its keys not read: {"active": kid, "keys": {kid: {field: text}}}."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise FileBroken(f"the keys file is not TOML: {error}") from None
    if unknown := set(raw) - {"active", "keys"}:
        raise FileBroken(f"{min(unknown)!r}: there is no such key in a keys file; allowed are active and [keys.<kid>]")
    tables = raw.setdefault("keys", {})
    if not isinstance(tables, dict) or len(tables) > KEYS_MAX:
        raise FileBroken(f"keys: at most {KEYS_MAX} tables [keys.<kid>] are allowed")
    for kid, table in tables.items():
        _check_table(kid, table)
    return raw


def _check_table(kid: str, table: Any) -> None:
    if not is_kid(kid):
        raise FileBroken(f"keys.{kid!r}: a key id is {KID_ALLOWED}")
    if not isinstance(table, dict) or not all(isinstance(value, str) for value in table.values()):
        raise FileBroken(f"keys.{kid}: must be a table of texts")
    if unknown := set(table) - _FIELDS:
        raise FileBroken(f"keys.{kid}.{min(unknown)}: there is no such field; allowed are {', '.join(sorted(_FIELDS))}")
    if table.get("alg") not in ALGS:
        raise FileBroken(f"keys.{kid}.alg: {table.get('alg')!r} is not one of {', '.join(ALGS)}")
    for part in _PARTS:
        if part in table and part + "_file" in table:
            raise FileBroken(f"keys.{kid}: name {part} or {part}_file, not both")


def render_keys(raw: Mapping[str, Any]) -> str:
    """The text of a keys file from the shape that raw_keys gives."""
    lines = [f"active = {_quoted(raw['active'])}"] if raw.get("active") else []
    for kid, table in raw["keys"].items():
        lines += ["", f"[keys.{_quoted(kid)}]", *(f"{name} = {_quoted(value)}" for name, value in table.items())]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def generated(alg: str, secret: str) -> dict[str, str]:
    """The table of a new key; `secret` (random text) is used by HS256 alone."""
    if alg == "HS256":
        return {"alg": alg, "secret": secret}
    private = ed25519.Ed25519PrivateKey.generate() if alg == "EdDSA" else ec.generate_private_key(ec.SECP256R1())
    pem = serialization.Encoding.PEM
    hidden = private.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    public = private.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    return {"alg": alg, "public": public.decode(), "private": hidden.decode()}


def _key(kid: str, table: Mapping[str, str], folder: Path) -> Key:
    parts = {part: _part(table, part, folder) for part in _PARTS}
    alg = table["alg"]
    if alg == "HS256":
        return _hmac_key(kid, parts)
    if parts["secret"] is not None:
        raise FileBroken(f"keys.{kid}: {alg} has no secret; name public (and private where tokens are minted)")
    kinds: tuple[Any, Any] = _KINDS[alg]
    private = None if parts["private"] is None else _private(kid, parts["private"])
    if private is not None and not isinstance(private, kinds[0]):
        raise FileBroken(f"keys.{kid}.private: is no key for {alg}")
    public = _public(kid, parts["public"]) if parts["public"] is not None else (private and private.public_key())
    if not isinstance(public, kinds[1]) or (alg == "ES256" and not isinstance(public.curve, ec.SECP256R1)):
        raise FileBroken(f"keys.{kid}.public: is missing or no key for {alg}")
    if private is not None and private.public_key() != public:
        raise FileBroken(f"keys.{kid}: public and private do not belong together")
    return Key(kid, alg, public, private)


_KINDS: Final[dict[str, tuple[Any, Any]]] = {
    "EdDSA": (ed25519.Ed25519PrivateKey, ed25519.Ed25519PublicKey),
    "ES256": (ec.EllipticCurvePrivateKey, ec.EllipticCurvePublicKey),
}


def _hmac_key(kid: str, parts: Mapping[str, str | None]) -> Key:
    secret = (parts["secret"] or "").encode()
    if parts["public"] or parts["private"] or len(secret) < SECRET_BYTES_MIN or b"-----BEGIN" in secret:
        raise FileBroken(
            f"keys.{kid}: HS256 has a secret of at least {SECRET_BYTES_MIN} bytes, no PEM, and nothing else"
        )
    try:
        _ALGORITHMS["HS256"].prepare_key(secret)
    except PyJWTError:  # whoever has the public half of what is meant for another algorithm could sign
        raise FileBroken(f"keys.{kid}.secret: is a key of another kind, in DER, SSH or JWK") from None
    return Key(kid, "HS256", secret, secret)


def _part(table: Mapping[str, str], part: str, folder: Path) -> str | None:
    if part + "_file" in table:
        return read_text(folder / table[part + "_file"]).strip()
    return table.get(part)


def _private(kid: str, pem: str) -> Any:
    try:
        return serialization.load_pem_private_key(pem.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise FileBroken(f"keys.{kid}.private: is not a PEM private key without a password") from None


def _public(kid: str, pem: str) -> Any:
    try:
        return serialization.load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise FileBroken(f"keys.{kid}.public: is not a PEM public key") from None
