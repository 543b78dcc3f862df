"""Tokens: who signed, for whom, until when; and every known way of cheating about it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from chatd.auth.files import FileBroken
from chatd.auth.keys import KeyRing, generated, parse_keys, raw_keys, render_keys
from chatd.auth.tokens import LEEWAY_S, Expected, mint, verify
from chatd.ports import Identity, LoginRefused
from protocol.errors import Code
from protocol.wire import SECRET_BYTES_MAX

NOW_S = 1_800_000_000.0
EXPECTED = Expected("chatd", "https://id.example")
SECRET = "s" * 32
RAW = {
    "active": "ed",
    "keys": {"ed": generated("EdDSA", ""), "es": generated("ES256", ""), "hs": generated("HS256", SECRET)},
}
RING = parse_keys(render_keys(RAW), Path())


def _claims(**changed: Any) -> dict[str, Any]:
    claims = {"sub": "ann", "aud": "chatd", "iss": "https://id.example", "iat": NOW_S, "exp": NOW_S + 60, **changed}
    return {name: value for name, value in claims.items() if value is not ...}


def _signed(claims: Any, kid: Any = "hs", alg: str = "HS256", key: Any = SECRET, **header: Any) -> str:
    payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    return jwt.PyJWS().encode(payload, key, algorithm=alg, headers={"kid": kid, **header})


def _raw_token(header: Any, claims: Any, sign: Any = lambda text: b"") -> str:
    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    text = f"{part(json.dumps(header).encode())}.{part(json.dumps(claims).encode())}"
    return f"{text}.{part(sign(text.encode()))}"


def _refusal(token: str, user: str = "", ring: KeyRing = RING, now_s: float = NOW_S) -> Code:
    with pytest.raises(LoginRefused) as caught:
        verify(token, user, ring, EXPECTED, now_s)
    assert len(token) < 20 or token not in str(caught.value)
    return caught.value.code


@pytest.mark.parametrize("kid", ["ed", "es", "hs"])
def test_a_token_of_each_algorithm_names_its_user_and_its_end(kid: str) -> None:
    token = mint(RING.keys[kid], "ann", EXPECTED, NOW_S, 60)
    for user in ("", "ann"):
        assert verify(token, user, RING, EXPECTED, NOW_S) == Identity("ann", NOW_S + 60 + LEEWAY_S)


def test_a_token_of_another_user_is_not_yours() -> None:
    assert _refusal(_signed(_claims()), "bob") == Code.NOT_YOURS


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"exp": NOW_S - LEEWAY_S}, Code.TOKEN_EXPIRED),
        ({"exp": 0}, Code.TOKEN_EXPIRED),
        ({"exp": ...}, Code.BAD_CREDENTIALS),
        ({"exp": None}, Code.BAD_CREDENTIALS),
        ({"exp": str(int(NOW_S) + 60)}, Code.BAD_CREDENTIALS),
        ({"exp": True}, Code.BAD_CREDENTIALS),
        ({"exp": float("nan")}, Code.BAD_CREDENTIALS),
        ({"exp": float("inf")}, Code.BAD_CREDENTIALS),
        ({"exp": 10**400}, Code.BAD_CREDENTIALS),
        ({"exp": -1}, Code.BAD_CREDENTIALS),
        ({"nbf": NOW_S + LEEWAY_S + 1}, Code.BAD_CREDENTIALS),
        ({"nbf": "soon"}, Code.BAD_CREDENTIALS),
        ({"iat": NOW_S + LEEWAY_S + 1}, Code.BAD_CREDENTIALS),
        ({"aud": "other"}, Code.TOKEN_FOREIGN),
        ({"aud": ...}, Code.TOKEN_FOREIGN),
        ({"aud": ["other"]}, Code.TOKEN_FOREIGN),
        ({"aud": "chatd2"}, Code.TOKEN_FOREIGN),
        ({"aud": {"chatd": 1}}, Code.TOKEN_FOREIGN),
        ({"iss": "https://evil.example"}, Code.TOKEN_FOREIGN),
        ({"iss": ...}, Code.TOKEN_FOREIGN),
        ({"sub": ...}, Code.BAD_CREDENTIALS),
        ({"sub": "Ann"}, Code.BAD_CREDENTIALS),
        ({"sub": "ann\n"}, Code.BAD_CREDENTIALS),
        ({"sub": ["ann"]}, Code.BAD_CREDENTIALS),
    ],
)
def test_a_claim_that_is_not_right_is_refused_with_its_code(changed: dict[str, Any], code: Code) -> None:
    assert _refusal(_signed(_claims(**changed))) == code


@pytest.mark.parametrize(
    "changed",
    [
        {"exp": NOW_S - LEEWAY_S + 1},
        {"nbf": NOW_S + LEEWAY_S - 1},
        {"iat": ...},
        {"aud": ["x", "chatd"]},
        {"more": [1]},
    ],
)
def test_a_clock_that_is_a_little_off_and_claims_that_are_not_asked_for_do_no_harm(changed: dict[str, Any]) -> None:
    assert verify(_signed(_claims(**changed)), "", RING, EXPECTED, NOW_S).user == "ann"


def test_any_issuer_is_good_where_none_is_configured() -> None:
    assert verify(_signed(_claims(iss=...)), "", RING, Expected("chatd"), NOW_S).user == "ann"


def test_a_key_that_is_not_known_is_foreign_and_a_bad_signature_of_a_known_one_is_not() -> None:
    assert _refusal(_signed(_claims(), kid="other")) == Code.TOKEN_FOREIGN
    assert _refusal(_signed(_claims(), key="x" * 32)) == Code.BAD_CREDENTIALS
    other = ed25519.Ed25519PrivateKey.generate()
    assert _refusal(_signed(_claims(), kid="ed", alg="EdDSA", key=other)) == Code.BAD_CREDENTIALS


def test_a_token_without_kid_is_foreign() -> None:
    assert _refusal(jwt.encode(_claims(), SECRET, algorithm="HS256")) == Code.TOKEN_FOREIGN


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "", None, 1, ["HS256"], "HS512", "RS256", "EdDSA"])
@pytest.mark.parametrize("kid", ["ed", "es", "hs"])
def test_the_token_has_no_say_in_its_algorithm(alg: Any, kid: str) -> None:
    if alg == "EdDSA" and kid == "ed":
        alg = "ES256"
    assert _refusal(_raw_token({"kid": kid, "alg": alg}, _claims())) == Code.BAD_CREDENTIALS


@pytest.mark.parametrize("alg", ["none", None, "HS512", "hs256"])
def test_a_signature_that_is_right_under_another_alg_than_the_keys_is_not(alg: Any) -> None:
    token = _raw_token({"kid": "hs", "alg": alg}, _claims(), lambda text: hmac.digest(SECRET.encode(), text, "sha256"))
    assert _refusal(token) == Code.BAD_CREDENTIALS


@pytest.mark.parametrize("kid", ["ed", "es"])
def test_a_public_key_is_no_hmac_secret(kid: str) -> None:
    pem = RAW["keys"][kid]["public"].encode()  # type: ignore[index]
    for secret in (
        pem,
        pem.strip(),
        RING.keys[kid].verify.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo),
    ):
        forged = _raw_token(
            {"kid": kid, "alg": "HS256"},
            _claims(),
            lambda text, secret=secret: hmac.digest(secret, text, hashlib.sha256),
        )
        assert _refusal(forged) == Code.BAD_CREDENTIALS


def test_a_key_that_the_token_brings_along_is_not_used() -> None:
    mine = ed25519.Ed25519PrivateKey.generate()
    jwk = json.loads(jwt.algorithms.OKPAlgorithm.to_jwk(mine.public_key()))
    token = _signed(_claims(), kid="ed", alg="EdDSA", key=mine, jwk=jwk, jku="https://evil.example", x5u="file:///x")
    assert _refusal(token) == Code.BAD_CREDENTIALS


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        "ä.ö.ü",
        "\ud800",
        "\0" * 9,
        "W10.e30.",
        "A" * (SECRET_BYTES_MAX + 1),
        _raw_token([], {}),
        _raw_token({"kid": 1, "alg": "HS256"}, {}),
        _raw_token({"kid": ["hs"], "alg": "HS256"}, {}),
        _signed(b"[]"),
        _signed(b"1"),
        _signed(b"\xff"),
        _signed(b"{"),
        _signed(b"[" * 2000),
        _signed(b"9" * 2000),
        _signed(_claims(), crit=["x"], x=1),
        _signed(_claims(), b64=False, crit=["b64"]),
        _signed(_claims(), b64=True, crit=["b64"]),
        _raw_token({"kid": "hs", "alg": "HS256", "b64": 0}, {}),
        _signed(_claims()) + ".e30",
        f"{'W' * 2000}.e30.e30",
        f"{base64.urlsafe_b64encode(b'[' * 2000).decode()}.e30.e30",
    ],
)
def test_what_is_no_token_is_refused_and_breaks_nothing(token: str) -> None:
    assert _refusal(token) == Code.BAD_CREDENTIALS


def test_no_single_changed_character_passes() -> None:
    token = mint(RING.keys["hs"], "ann", EXPECTED, NOW_S, 60)
    for place, char in enumerate(token):
        changed = token[:place] + ("A" if char != "A" else "B") + token[place + 1 :]
        assert _refusal(changed) in (Code.BAD_CREDENTIALS, Code.TOKEN_FOREIGN)


def _spellings(segment: str) -> list[str]:
    """Others that a lenient decoder reads as the same bytes."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    loose = (
        segment[:-1] + letters[letters.index(segment[-1]) ^ 1]
    )  # a bit that no byte has, where the length leaves one
    return [
        segment + "=" * (-len(segment) % 4 or 4), segment + "=", segment + "\n", " " + segment, segment[:4] + "!" + segment[4:],
        *([loose] if len(segment) % 4 in (2, 3) else []),
        *([segment.replace("-", "+").replace("_", "/")] if set("-_") & set(segment) else []),
    ]  # fmt: skip


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_token_has_one_spelling(place: int) -> None:
    """Signed as it is spelled, so that only base64url itself could refuse it."""
    parts = _signed(_claims(more="~~~???>>>ÿÿÿ"), kid="hs").split(".")
    for other in _spellings(parts[place]):
        changed = [*parts[:place], other, *parts[place + 1 :]]
        if place < 2:
            mac = hmac.digest(SECRET.encode(), ".".join(changed[:2]).encode(), hashlib.sha256)
            changed[2] = base64.urlsafe_b64encode(mac).rstrip(b"=").decode()
        assert _refusal(".".join(changed)) == Code.BAD_CREDENTIALS, other


def test_what_another_algorithm_calls_a_key_is_no_hmac_secret(tmp_path: Path) -> None:
    jwk = json.dumps({"kty": "oct", "k": "x" * 43})
    with pytest.raises(FileBroken, match=r"keys\.k9\.secret: is a key of another kind"):
        parse_keys(render_keys({"keys": {"k9": {"alg": "HS256", "secret": jwk}}}), Path())


def test_a_token_at_the_limit_of_length_is_read() -> None:
    pad = SECRET_BYTES_MAX - len(_signed(_claims(pad="")))
    token = _signed(_claims(pad="x" * (pad * 3 // 4 - 3)))
    assert SECRET_BYTES_MAX - 8 < len(token) <= SECRET_BYTES_MAX
    assert verify(token, "", RING, EXPECTED, NOW_S).user == "ann"


def test_rotation_both_keys_verify_until_the_old_one_is_dropped() -> None:
    old = mint(RING.keys["ed"], "ann", EXPECTED, NOW_S, 60)
    without = {"active": "es", "keys": {kid: RAW["keys"][kid] for kid in ("es", "hs")}}  # type: ignore[index]
    rotated = parse_keys(render_keys({**RAW, "active": "es"}), Path())
    assert verify(old, "", rotated, EXPECTED, NOW_S).user == "ann"
    assert _refusal(old, ring=parse_keys(render_keys(without), Path())) == Code.TOKEN_FOREIGN


def _pem(key: Any) -> str:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({}, "alg"),
        ({"alg": "none"}, "alg"),
        ({"alg": "RS256"}, "alg"),
        ({"alg": "HS256"}, "at least 32 bytes"),
        ({"alg": "HS256", "secret": "s" * 31}, "at least 32 bytes"),
        ({"alg": "HS256", "secret": RAW["keys"]["ed"]["public"]}, "no PEM"),  # type: ignore[index]
        ({"alg": "HS256", "secret": SECRET, "public": "x"}, "nothing else"),
        ({"alg": "EdDSA"}, "public"),
        ({"alg": "EdDSA", "secret": SECRET}, "no secret"),
        ({"alg": "EdDSA", "public": "x"}, "PEM"),
        ({"alg": "EdDSA", "public": RAW["keys"]["es"]["public"]}, "no key for EdDSA"),  # type: ignore[index]
        ({"alg": "EdDSA", "public": _pem(rsa.generate_private_key(65537, 2048).public_key())}, "no key for EdDSA"),
        ({"alg": "ES256", "public": _pem(ec.generate_private_key(ec.SECP384R1()).public_key())}, "no key for ES256"),
        ({"alg": "ES256", "private": RAW["keys"]["ed"]["private"]}, "no key for ES256"),  # type: ignore[index]
        ({**generated("EdDSA", ""), "public": RAW["keys"]["ed"]["public"]}, "belong together"),  # type: ignore[index]
        ({"alg": "EdDSA", "public_file": "/no/such"}, "can not be read"),
        ({"alg": "HS256", "secret": SECRET, "secret_file": "x"}, "not both"),
        ({"alg": "HS256", "secert": SECRET}, "no such field"),
    ],
)
def test_a_key_that_can_not_be_used_is_named_and_not_shown(table: dict[str, str], says: str) -> None:
    with pytest.raises(FileBroken) as caught:
        parse_keys(render_keys({"keys": {"k9": table}}), Path())
    assert "k9" in str(caught.value) or "/no/such" in str(caught.value)
    assert says in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["[", "active = 'x'", "akey = 1", "keys = 1", "[keys.'a b']\nalg='HS256'", "[keys]\nk=1"]
)
def test_a_keys_file_of_another_shape_is_refused(text: str) -> None:
    with pytest.raises(FileBroken):
        parse_keys(text, Path())


def test_keys_may_stand_in_files_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "k.pem").write_text(RAW["keys"]["ed"]["public"])  # type: ignore[index]
    (tmp_path / "s").write_text(SECRET + "\n")
    text = '[keys.ed]\nalg="EdDSA"\npublic_file="k.pem"\n[keys.hs]\nalg="HS256"\nsecret_file="s"\n'
    ring = parse_keys(text, tmp_path)
    assert ring.keys["ed"].sign is None
    assert verify(_signed(_claims()), "", ring, EXPECTED, NOW_S).user == "ann"


def test_what_is_written_is_read_back_the_same() -> None:
    odd = {"active": "a.b", "keys": {"a.b": {"alg": "HS256", "secret": 'é"\\\n\x7f\t' + SECRET}}}
    assert raw_keys(render_keys(odd)) == odd


def test_secrets_are_in_no_repr() -> None:
    assert SECRET not in repr(RING)
