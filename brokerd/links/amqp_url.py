"""Where RabbitMQ is: amqp://[user:password@]host[:port][,host[:port] …][/vhost], amqps:// for TLS. Options behind ? are aiormq's."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit, urlunsplit

from brokerd.links.host_list import split_url

ALLOWED: Final = "amqp://[user:password@]host[:port][,host[:port]…][/vhost] or amqps://…"
HOSTS_MAX: Final = 32


def rabbit_urls(url: str) -> tuple[str, ...]:
    """The address of each host, in the order of the list. Raises ValueError that never shows the password."""
    try:
        parts, place = split_url(url)
        login, at, hosts = place.rpartition("@")
        urls = tuple(urlunsplit(parts._replace(netloc=login + at + host.strip())) for host in hosts.split(","))
        if parts.scheme in ("amqp", "amqps") and len(urls) <= HOSTS_MAX and all(map(_is_one, urls)):
            return urls
    except ValueError:
        pass  # the parts' own complaints may quote the password
    raise ValueError(f"not the address of a RabbitMQ: it must be {ALLOWED}")


def _is_one(url: str) -> bool:
    parts = urlsplit(url)
    return bool(parts.hostname) and parts.port != 0
