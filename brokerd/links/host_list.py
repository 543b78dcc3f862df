"""Splits a URL whose place may be a list of hosts. urlsplit refuses one with an IPv6 address in it: to it a host that has brackets
is all that stands there (Debian's Python 3.11.2 and the later releases of every version)."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit


def split_url(url: str) -> tuple[SplitResult, str]:
    """The parts, without the place; and the place, `[user:password@]host[:port][,host[:port] …]`, as it stands. Raises
    ValueError, which may quote secrets."""
    scheme, colon, rest = url.partition("://")
    end = min((at for at in map(rest.find, "/?#") if at >= 0), default=len(rest))
    return urlsplit(scheme + colon + rest[end:]), rest[:end]
