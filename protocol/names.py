"""Names and ids: what may stand in them, and how one is made from another. Spec: protocol/SPEC.md §5.

A name that passes here is safe as part of a Redis key, a routing key and a log line: no check is needed behind it.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Final, NewType
from zlib import crc32

from protocol.wire import CID_BYTES, DEVICE_TAG_BYTES, MESSAGE_ID_BYTES, NAME_BYTES_MAX

UserId = NewType("UserId", str)
DeviceId = NewType("DeviceId", str)
NodeId = NewType("NodeId", str)  # "<name>:<epoch>": the epoch is new at every start
SessionId = NewType("SessionId", str)
MessageId = NewType("MessageId", bytes)
Seq = NewType("Seq", int)
Cid = NewType("Cid", int)

NAME_PATTERN: Final = rf"[a-z0-9][a-z0-9._@+-]{{0,{NAME_BYTES_MAX - 1}}}"
NAME_ALLOWED: Final = "1 to 64 of a-z 0-9 . _ @ + -, beginning with a letter or digit"
_is_name = re.compile(NAME_PATTERN).fullmatch


def is_name(text: object) -> bool:
    """Whether `text` may be the name of a user, a device or a node. One spelling only: upper case is refused."""
    return type(text) is str and _is_name(text) is not None


def device_tag(user: str, device: str) -> bytes:
    """The DEVICE_TAG_BYTES that begin every message id of this device."""
    return blake2b(f"{user}\0{device}".encode(), digest_size=DEVICE_TAG_BYTES, person=b"chatd.device").digest()


def message_id(tag: bytes, cid: int) -> bytes:
    """The id of message `cid` of the device with `tag`; the same at every resend, so both ends can compute it."""
    return tag + cid.to_bytes(CID_BYTES, "big")


def keyed_message_id(user: str, key: str) -> bytes:
    """The id of a message posted over HTTP under an idempotency key; the same for the same user and key."""
    return blake2b(f"{user}\0{key}".encode(), digest_size=MESSAGE_ID_BYTES, person=b"chatd.http").digest()


def shard_of(user: str, shards: int) -> int:
    """The inbound shard of a receiver, 0..shards-1; a receiver never changes it while `shards` stays."""
    return crc32(user.encode()) % shards
