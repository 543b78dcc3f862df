"""What HTTP handlers take and give: values, no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Headers = Sequence[tuple[bytes, bytes]]  # names in lower case, as h11 gives them

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"
MSGPACK = "application/msgpack"


class Request(NamedTuple):
    """One whole request. `path` is raw (percent-encoded, without the query); `args` are the route's typed values."""

    method: str
    path: str
    query: str
    version: str  # "1.0" or "1.1"
    headers: Headers
    body: bytes
    peer: str
    args: Mapping[str, Any]

    def all(self, name: bytes) -> list[str]:
        """Every value of a header (lower-case name), in order; bytes over 127 as Latin-1."""
        return [value.decode("latin-1") for key, value in self.headers if key == name]

    def one(self, name: bytes) -> str | None:
        """A header's value; None when it is absent or stands there twice with different values."""
        values = set(self.all(name))
        return values.pop() if len(values) == 1 else None

    def tokens(self, name: bytes) -> list[str]:
        """The members of a comma-separated header, trimmed, in order."""
        return [token.strip() for value in self.all(name) for token in value.split(",") if token.strip()]


class Response(NamedTuple):
    """An answer. Content-Length, Date and Connection are added when it is written."""

    status: int
    body: bytes
    content_type: str
    headers: tuple[tuple[str, str], ...] = ()
