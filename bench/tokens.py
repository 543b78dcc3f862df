"""Tokens for made-up users: the bench writes a keys file of the documented format and signs with it."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Final

import jwt

KID: Final = "bench"


class Mint:
    """Writes `<data_dir>/keys.toml` once, then signs."""

    def __init__(self, data_dir: Path) -> None:
        data_dir.mkdir(parents=True, exist_ok=True)
        self._secret = secrets.token_hex(32)
        path = data_dir / "keys.toml"
        path.write_text(f'active = "{KID}"\n\n[keys.{KID}]\nalg = "HS256"\nsecret = "{self._secret}"\n')
        path.chmod(0o600)
        self.path = path

    def token(self, user: str, ttl_s: int = 24 * 3600) -> str:
        """A token that proves to be `user`."""
        now_s = int(time.time())
        claims = {"sub": user, "aud": "chatd", "iat": now_s, "exp": now_s + ttl_s}
        return jwt.encode(claims, self._secret, algorithm="HS256", headers={"kid": KID})
