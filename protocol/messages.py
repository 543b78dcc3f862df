"""What frames mean: one NamedTuple a message. `ref` is the head's number, `flags` its bits; the fields behind them are the
body's array, in this order. Spec: protocol/SPEC.md §4. Packed and unpacked by protocol/codec.py.

NamedTuples, because one is made for every frame (0.25 µs; a frozen dataclass takes 1 µs).
"""

from __future__ import annotations

from typing import NamedTuple


class Hello(NamedTuple):
    """Client: who I am and where I stand. ref: last seq this device processed, 0 = none."""

    ref: int
    flags: int
    minor: int
    features: tuple[str, ...]
    user: str
    device: str
    scheme: int
    secret: str
    generation: bytes  # of the queue that `ref` counts in; b"" = none
    credit: int  # deliveries that may be outstanding (unacknowledged)
    info: dict[str, str]  # client name, version, platform: for the operator's eyes


class Welcome(NamedTuple):
    """Server: you are in, these are the settled limits. ref: the queue's newest seq (head)."""

    ref: int
    flags: int
    minor: int
    features: tuple[str, ...]
    node: str
    session: str
    time_ms: int
    device_tag: bytes
    cursor: int  # deliveries go on behind this seq
    generation: bytes
    body_bytes_max: int
    keepalive_ms: int
    unaccepted_max: int
    credit: int


class Send(NamedTuple):
    """Client: a message to a user. ref: cid."""

    ref: int
    flags: int
    to: str
    payload: bytes
    ttl_s: int | None = None


class Accepted(NamedTuple):
    """Server: these are durable. ref: the largest of `cids`."""

    ref: int
    flags: int
    cids: tuple[int, ...]


class Deliver(NamedTuple):
    """Server: a message for you. ref: seq."""

    ref: int
    flags: int
    sender: str
    id: bytes
    time_ms: int
    payload: bytes


class Sent(NamedTuple):
    """Server: another device of yours sent this. ref: seq."""

    ref: int
    flags: int
    to: str
    id: bytes
    time_ms: int
    payload: bytes


class Receipt(NamedTuple):
    """Server: what became of messages that you sent to `peer`. ref: seq."""

    ref: int
    flags: int
    peer: str
    status: int
    ids: tuple[bytes, ...]
    time_ms: int
    reason: int  # an error code for EXPIRED and FAILED, else 0


class Read(NamedTuple):
    """Client: my user has read these messages of `to`. ref: cid (accepted and resent like SEND)."""

    ref: int
    flags: int
    to: str
    ids: tuple[bytes, ...]


class ReadSync(NamedTuple):
    """Server: another device of yours said READ. ref: seq."""

    ref: int
    flags: int
    peer: str
    ids: tuple[bytes, ...]
    time_ms: int


class Signal(NamedTuple):
    """Client: an ephemeral message (typing …): never stored, never answered. ref: 0."""

    ref: int
    flags: int
    to: str
    payload: bytes


class Signalled(NamedTuple):
    """Server: an ephemeral message for you. ref: 0."""

    ref: int
    flags: int
    sender: str
    payload: bytes


class Ack(NamedTuple):
    """Client: this device has processed all up to seq ref (cumulative)."""

    ref: int
    flags: int


class Credit(NamedTuple):
    """Client: deliver up to seq ref (an absolute total; it is never taken back)."""

    ref: int
    flags: int


class Drained(NamedTuple):
    """Server: all that waited at login, up to seq ref, has been delivered."""

    ref: int
    flags: int


class Gone(NamedTuple):
    """Server: seqs ref..last are not coming, for `reason`. Move your position over them."""

    ref: int
    flags: int
    last: int
    reason: int


class Ping(NamedTuple):
    """Either side: are you there? ref: the client's last processed seq, or the newest seq the server pushed."""

    ref: int
    flags: int


class Pong(NamedTuple):
    """The answer to PING. ref, from the server: the newest seq of your queue if `known`."""

    ref: int
    flags: int
    known: bool
    time_ms: int


class GoAway(NamedTuple):
    """Server: I stop. ref: the largest cid that was accepted; come back after min..max ms, at random between."""

    ref: int
    flags: int
    reason: int
    after_ms_min: int
    after_ms_max: int


class Error(NamedTuple):
    """Server: request ref (a cid or seq; 0: the connection) failed."""

    ref: int
    flags: int
    code: int
    processed: int
    retry_after_ms: int
    detail: str
    limit: int = 0  # for TOO_LARGE: the limit in bytes


class Bye(NamedTuple):
    """Client: I leave now."""

    ref: int
    flags: int


Message = (
    Hello | Welcome | Send | Accepted | Deliver | Sent | Receipt | Read | ReadSync | Signal | Signalled | Ack | Credit
    | Drained | Gone | Ping | Pong | GoAway | Error | Bye
)  # fmt: skip
