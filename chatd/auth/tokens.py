"""Signed tokens: JWTs (RFC 7519) that any product can mint, verified here without asking anybody.

PyJWT checks the signature; the form (RFC 7515 §7.1) and the claims are checked here, against a clock that is handed in. The
algorithm is that of the key with the token's `kid`, never what the token says.

The form is ours because PyJWT reads a token twice, character by character, and proves at every login anew that our keys are
keys: 120 µs of a login, against 11 (HS256).
"""

from __future__ import annotations

import json
from binascii import Error as NotBase64
from binascii import a2b_base64, b2a_base64
from functools import lru_cache
from typing import Any, Final, NamedTuple

import jwt

from chatd.auth.keys import Key, KeyRing
from chatd.ports import Identity, LoginRefused
from protocol.errors import Code
from protocol.names import is_name
from protocol.wire import SECRET_BYTES_MAX

LEEWAY_S: Final = 30.0  # how far the minter's clock may be off
TIME_S_MAX: Final = 2.0**53
HEADERS_MAX: Final = 64  # kept in memory: one for each key and minter
_FROM_URL: Final = bytes.maketrans(b"-_", b"+/")
_TO_URL: Final = bytes.maketrans(b"+/", b"-_")


class Expected(NamedTuple):
    """What a token must be for. `issuer` None: anybody's."""

    audience: str
    issuer: str | None = None


def verify(token: str, user: str, ring: KeyRing, expected: Expected, now_s: float) -> Identity:
    """Who `token` proves one to be at `now_s` (Unix time); `user` must be that one, or "".

    Raises LoginRefused: TOKEN_FOREIGN (key, aud or iss is not ours), TOKEN_EXPIRED, NOT_YOURS, else BAD_CREDENTIALS.
    The identity ends LEEWAY_S after exp.
    """
    if len(token) > SECRET_BYTES_MAX or not token.isascii():
        raise LoginRefused(Code.BAD_CREDENTIALS, "the token is too long or not ASCII")
    claims = _claims(token, ring)
    if not _is_for(claims.get("aud"), expected.audience):
        raise LoginRefused(Code.TOKEN_FOREIGN, "aud is another")
    if expected.issuer is not None and claims.get("iss") != expected.issuer:
        raise LoginRefused(Code.TOKEN_FOREIGN, "iss is another")
    ends_s = _check_times(claims, now_s)
    subject = claims.get("sub")
    if not isinstance(subject, str) or not is_name(subject):
        raise LoginRefused(Code.BAD_CREDENTIALS, "sub is not a user name")
    if user not in ("", subject):
        raise LoginRefused(Code.NOT_YOURS, "sub is another user")
    return Identity(subject, ends_s)


def mint(key: Key, user: str, expected: Expected, now_s: float, ttl_s: float) -> str:
    """A token for `user` that ends after `ttl_s`. The key must be able to sign."""
    claims: dict[str, Any] = {"sub": user, "aud": expected.audience, "iat": int(now_s), "exp": int(now_s + ttl_s)}
    if expected.issuer is not None:
        claims["iss"] = expected.issuer
    if key.sign is None:
        raise ValueError(f"key {key.kid} only verifies")
    return jwt.encode(claims, key.sign, algorithm=key.alg, headers={"kid": key.kid})


class _Header(NamedTuple):
    kid: str
    alg: Any


class _NoToken(Exception):
    """It has not the form of a token. Text for people."""


def _claims(token: str, ring: KeyRing) -> dict[str, Any]:
    """What a key of ours has signed."""
    try:
        head, payload, signature = token.encode("ascii").split(b".")
        header = _header(head)
        payload_bytes, signature_bytes = _from_base64(payload), _from_base64(signature)
    except (_NoToken, ValueError) as error:
        raise LoginRefused(Code.BAD_CREDENTIALS, f"no token: {error}") from None
    key = ring.keys.get(header.kid)
    if key is None:
        raise LoginRefused(Code.TOKEN_FOREIGN, "kid is not known here")
    # only the key's own algorithm: another alg in the header, "none" too, ends here
    if header.alg != key.alg or not key.checks(b"%b.%b" % (head, payload), signature_bytes):
        raise LoginRefused(Code.BAD_CREDENTIALS, "the signature is not right")
    try:
        claims = json.loads(payload_bytes)
    except (ValueError, RecursionError) as error:
        raise LoginRefused(Code.BAD_CREDENTIALS, f"{type(error).__name__}") from None
    if not isinstance(claims, dict):
        raise LoginRefused(Code.BAD_CREDENTIALS, "the claims are no object")
    return claims


@lru_cache(HEADERS_MAX)
def _header(segment: bytes) -> _Header:
    """Who signs tokens has one header for all of them. Raises _NoToken, ValueError."""
    try:
        header = json.loads(_from_base64(segment))
    except RecursionError:
        raise _NoToken("its header is nested too deeply") from None
    if not isinstance(header, dict):
        raise _NoToken("its header is no object")
    kid = header.get("kid", "")
    if not isinstance(kid, str):
        raise _NoToken("kid is no text")
    if "crit" in header or header.get("b64", True) is not True:  # extensions that must be understood: none is
        raise _NoToken("its header asks for an extension")
    return _Header(kid, header.get("alg"))


def _from_base64(segment: bytes) -> bytes:
    """base64url without padding, in its one spelling (RFC 7515 §2). Raises _NoToken."""
    try:
        data = a2b_base64(segment.translate(_FROM_URL) + b"=" * (-len(segment) % 4))
    except NotBase64:
        raise _NoToken("not base64url") from None
    if b2a_base64(data, newline=False).rstrip(b"=").translate(_TO_URL) != segment:
        raise _NoToken("not base64url")
    return data


def _is_for(aud: Any, audience: str) -> bool:
    return aud == audience or (isinstance(aud, list) and audience in aud)


def _check_times(claims: dict[str, Any], now_s: float) -> float:
    exp_s, nbf_s, iat_s = (_time(claims, name) for name in ("exp", "nbf", "iat"))
    if exp_s is None:
        raise LoginRefused(Code.BAD_CREDENTIALS, "exp is missing")
    if now_s >= exp_s + LEEWAY_S:
        raise LoginRefused(Code.TOKEN_EXPIRED, f"it ended {now_s - exp_s:.0f} s ago")
    if any(begin_s is not None and begin_s > now_s + LEEWAY_S for begin_s in (nbf_s, iat_s)):
        raise LoginRefused(Code.BAD_CREDENTIALS, "nbf or iat is in the future")
    return exp_s + LEEWAY_S


def _time(claims: dict[str, Any], name: str) -> float | None:
    if name not in claims:
        return None
    value = claims[name]
    if type(value) not in (int, float) or not 0 <= value < TIME_S_MAX:  # nan fails this too
        raise LoginRefused(Code.BAD_CREDENTIALS, f"{name} is not a time")
    return float(value)
