"""Where a Redis server is.

redis://[user:password@]host[:port][/db] or unix://[user:password@]/path[?db=n]: this one.
redis+sentinel://[user:password@]host[:port][,host[:port]…]/name[/db][?sentinel_password=…]: the primary that these
sentinels call `name`. User and password are those of the Redis servers.
rediss:// and rediss+sentinel:// are the same over TLS, the sentinels too; certificate and name are checked against the
system's authorities, or with ?ca=/path against those of a PEM file.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from brokerd.links.host_list import split_url

ALLOWED = (
    "redis://[user:password@]host[:port][/db], unix://[user:password@]/path[?db=n] or "
    "redis+sentinel://[user:password@]host[:port][,host[:port]…]/name[/db][?sentinel_password=…]; "
    "rediss://… and rediss+sentinel://… for TLS, with ?ca=/path.pem"
)
PORT_DEFAULT = 6379
SENTINEL_PORT_DEFAULT = 26379
SENTINELS_MAX = 32

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """A parsed URL. `path` is None for TCP. With `sentinels` host and port are empty: they say where it is, under the
    name `primary`. `shown` is safe to log."""

    host: str
    port: int
    path: str | None
    db: int
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    sentinels: tuple[Address, ...] = ()
    primary: str = ""
    sentinel_password: str | None = field(default=None, repr=False)
    has_tls: bool = False
    ca: str | None = None  # a PEM file

    def tls(self) -> ssl.SSLContext | None:
        """For new connections; None: without TLS. Raises OSError when the file of `ca` cannot be read or holds nothing good."""
        return ssl.create_default_context(cafile=self.ca) if self.has_tls else None

    @property
    def shown(self) -> str:
        """The address without what is secret."""
        if self.sentinels:
            return f"{self.primary} of {','.join(f'{host}:{port}' for host, port in self.sentinels)}"
        return f"unix://{self.path}" if self.path is not None else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, url: str) -> RedisUrl:
        """Raises ValueError that says what is allowed, and never shows the password."""
        try:
            parts, place = split_url(url)
            if parts.scheme in ("redis+sentinel", "rediss+sentinel"):
                return _with_sentinels(parts, place)
            parts = urlsplit(url)
            user = unquote(parts.username) if parts.username else None
            password = unquote(parts.password) if parts.password is not None else None
            query = _query(parts)
            has_tls = parts.scheme == "rediss"
            if parts.scheme in ("redis", "rediss") and parts.hostname and set(query) <= ({"ca"} if has_tls else set()):
                db = int(parts.path.strip("/") or 0)
                return cls(
                    parts.hostname, parts.port or PORT_DEFAULT, None, db, user, password,
                    has_tls=has_tls, ca=query.get("ca", [None])[-1],
                )  # fmt: skip
            if parts.scheme == "unix" and parts.path.startswith("/") and set(query) <= {"db"}:
                db = int(query.get("db", ["0"])[-1] or 0)
                return cls("", 0, unquote(parts.path), db, user, password)
        except ValueError:
            pass  # the parts' own complaints may quote the password
        raise ValueError(f"not the address of a Redis: it must be {ALLOWED}")


def _query(parts: SplitResult) -> dict[str, list[str | None]]:
    found: dict[str, list[str | None]] = {}
    found.update(parse_qs(parts.query, strict_parsing=bool(parts.query)))  # type: ignore[arg-type]
    return found


def _with_sentinels(parts: SplitResult, place: str) -> RedisUrl:
    """Raises ValueError, which may quote secrets."""
    login, _, hosts = place.rpartition("@")
    user, has_password, password = login.partition(":")
    name, _, db = parts.path.removeprefix("/").partition("/")
    query, has_tls = _query(parts), parts.scheme.startswith("rediss")
    sentinels = tuple(map(_address, hosts.split(",")))
    if not name or set(query) - {"sentinel_password", *(["ca"] if has_tls else [])} or len(sentinels) > SENTINELS_MAX:
        raise ValueError
    return RedisUrl(
        "", 0, None, int(db or 0), unquote(user) or None, unquote(password) if has_password else None,
        sentinels, unquote(name), query.get("sentinel_password", [None])[-1], has_tls, query.get("ca", [None])[-1],
    )  # fmt: skip


def _address(text: str) -> Address:
    one = urlsplit(f"//{text.strip()}")
    if not one.hostname or one.username is not None or one.path or one.port == 0:
        raise ValueError
    return one.hostname, one.port or SENTINEL_PORT_DEFAULT
