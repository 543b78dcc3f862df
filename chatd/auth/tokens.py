"""Signed tokens: JWTs (RFC 7519) that any product can mint, verified here without asking anybody.

PyJWT checks the form and the signature; the claims are checked here, against a clock that is handed in. The algorithm
is that of the key with the token's `kid`, never what the token says.
"""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

import jwt

from chatd.auth.keys import Key, KeyRing
from chatd.ports import Identity, LoginRefused
from protocol.errors import Code
from protocol.names import is_name
from protocol.wire import SECRET_BYTES_MAX

LEEWAY_S: Final = 30.0  # how far the minter's clock may be off
TIME_S_MAX: Final = 2.0**53
_JWS: Final = jwt.PyJWS()


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
    claims = _claims(token, _key_of(token, ring))
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


def _key_of(token: str, ring: KeyRing) -> Key:
    try:
        header = _JWS.get_unverified_header(token)
    except jwt.PyJWTError as error:
        raise LoginRefused(Code.BAD_CREDENTIALS, f"no token: {error}") from None
    key = ring.keys.get(header.get("kid", ""))
    if key is None:
        raise LoginRefused(Code.TOKEN_FOREIGN, "kid is not known here")
    return key


def _claims(token: str, key: Key) -> dict[str, Any]:
    try:  # only the key's own algorithm: another alg in the header, "none" too, ends here
        claims = json.loads(_JWS.decode_complete(token, key.verify, algorithms=[key.alg])["payload"])
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        raise LoginRefused(Code.BAD_CREDENTIALS, f"{type(error).__name__}") from None
    if not isinstance(claims, dict):
        raise LoginRefused(Code.BAD_CREDENTIALS, "the claims are no object")
    return claims


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
