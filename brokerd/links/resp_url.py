"""Where a Redis server is: redis://[user:password@]host[:port][/db] or unix://[user:password@]/path[?db=n]."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

ALLOWED = "redis://[user:password@]host[:port][/db] or unix://[user:password@]/path[?db=n]"
PORT_DEFAULT = 6379


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """A parsed URL. `path` is None for TCP. `shown` is safe to log."""

    host: str
    port: int
    path: str | None
    db: int
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    @property
    def shown(self) -> str:
        """The address without what is secret."""
        return f"unix://{self.path}" if self.path is not None else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, url: str) -> RedisUrl:
        """Raises ValueError that says what is allowed, and never shows the password."""
        try:
            parts = urlsplit(url)
            user = unquote(parts.username) if parts.username else None
            password = unquote(parts.password) if parts.password is not None else None
            if parts.scheme == "redis" and parts.hostname and not parts.query:
                db = int(parts.path.strip("/") or 0)
                return cls(parts.hostname, parts.port or PORT_DEFAULT, None, db, user, password)
            if parts.scheme == "unix" and parts.path.startswith("/") and set(query := parse_qs(parts.query)) <= {"db"}:
                db = int(query.get("db", ["0"])[-1])
                return cls("", 0, unquote(parts.path), db, user, password)
        except ValueError:
            pass  # the parts' own complaints may quote the password
        raise ValueError(f"not the address of a Redis: it must be {ALLOWED}")
