"""What of a configuration can change while chatd runs. Values in, values out; who performs it is the node."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple, TypeVar

from brokerd.settings import differences
from chatd.config import ChatConfig, HttpSection, TcpSection

L = TypeVar("L", TcpSection, HttpSection)


class Reloaded(NamedTuple):
    """The configuration that is in effect from now on, the keys that changed with it, and those that need a restart."""

    config: ChatConfig
    changed: list[str]
    restart: list[str]


def reloaded(old: ChatConfig, new: ChatConfig) -> Reloaded:
    """`old` with all of `new` that a running chatd can take over."""
    merged = replace(
        old,
        limits=new.limits,
        ws=new.ws,
        lease_s=new.lease_s,
        drain_s_max=new.drain_s_max,
        log=replace(old.log, level=new.log.level),
        tcp=_certificate(old.tcp, new.tcp),
        http=_certificate(old.http, new.http),
    )
    return Reloaded(merged, differences(old, merged), differences(merged, new))


def _certificate(old: L, new: L) -> L:
    """Another certificate; a port does not change between TLS and none while clients are on it."""
    if old.tls_cert is None or new.tls_cert is None:
        return old
    return replace(old, tls_cert=new.tls_cert, tls_key=new.tls_key)
