"""What travels between the daemons: batches of posts to a shard, batches of parcels to a node.

One AMQP message carries one batch. A batch is msgpack `[version, node, items]`; an item is an array whose first element
is its kind, and arrays only grow at their end, so that an old and a new daemon understand each other during an upgrade.
A body is packed once, where the message enters (protocol.messages.encode_body), and is opaque from there on.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, Final, NamedTuple

import msgpack

from protocol.tuples import new

BATCH_VERSION: Final = 1
BATCH_BYTES_MAX: Final = 1024 * 1024  # a batch is cut before it grows over this
BATCH_ITEMS_MAX: Final = 4096


class Undecodable(Exception):
    """The bytes are not a batch of a version that this daemon knows. The batch belongs in the dead-letter queue."""


class PostKind(IntEnum):
    """What a post to a shard asks brokerd to do."""

    ENTRY = 0
    SIGNAL = 1
    ACK = 2
    TROUBLE = 3
    SWEEP = 4


class EntryPost(NamedTuple):
    """Append `body` as a frame of `type` to the sent_queue of `to`.

    `origin` and `cid` make it idempotent: with cid > 0, `origin` is a device tag and a cid not above the highest taken
    from it is a repeat; with cid 0 the whole `origin` is the key and is taken once. `prev` is the last cid below `cid` that
    this origin posted to `to` and that its node does not know to be taken (refused, or not confirmed yet), 0 = there is
    none: it may still come.
    """

    kind: int
    to: str
    origin: bytes
    cid: int
    type: int
    flags: int
    expires_ms: int
    body: bytes
    prev: int = 0


class SignalPost(NamedTuple):
    """Hand `body` as a frame of `type` to the live sessions of `to`; nothing is stored."""

    kind: int
    to: str
    type: int
    body: bytes


class AckPost(NamedTuple):
    """`device` of `user` processed all up to `seq` of the queue of this generation (b"": an older daemon does not say)."""

    kind: int
    user: str
    device: str
    seq: int
    generation: bytes = b""


class TroublePost(NamedTuple):
    """Delivery to `device` of `user` stopped before all was acknowledged; what waits, waits on with this status."""

    kind: int
    user: str
    device: str
    reason: int  # an error code
    at_ms: int


class SweepPost(NamedTuple):
    """Look through the queue of `user` for what has expired."""

    kind: int
    user: str


Post = EntryPost | SignalPost | AckPost | TroublePost | SweepPost


class ParcelKind(IntEnum):
    """What a parcel asks a node to do."""

    FRAMES = 0
    SIGNAL = 1
    HEAD = 2
    EVICT = 3
    DEVICES = 4
    TRACE = 5
    FULL = 6
    STAMP = 7


class FramesParcel(NamedTuple):
    """`frames` are the whole frames of seqs first..last of `user`, ready to be written to each live session."""

    kind: int
    user: str
    first: int
    last: int
    frames: bytes


class SignalParcel(NamedTuple):
    """Whole frames without a seq, for each session of `user`."""

    kind: int
    user: str
    frames: bytes


class HeadParcel(NamedTuple):
    """The queue of `user` reaches up to `head`: a session that stands before it reads the gap."""

    kind: int
    user: str
    head: int


class EvictParcel(NamedTuple):
    """Close `session` of `device` with `code`: the device has a newer one, or its user was withdrawn."""

    kind: int
    user: str
    device: str
    session: str
    code: int


class DevicesParcel(NamedTuple):
    """`user` has so many known devices now: with more than one, what a session sends is copied to the others."""

    kind: int
    user: str
    devices: int


class TraceParcel(NamedTuple):
    """Seq `seq` of `user`, just handed over, is message `id`, which is traced: note when it is written and acknowledged."""

    kind: int
    user: str
    seq: int
    id: bytes


class FullParcel(NamedTuple):
    """A message of `user` to `peer` failed with QUEUE_FULL: for a moment the sessions of `user` may refuse others at once."""

    kind: int
    user: str
    peer: str


class StampParcel(NamedTuple):
    """The batch of this node for `shard` that carried `stamp` was taken by brokerd just now (chatd.brake)."""

    kind: int
    shard: int
    stamp: int


UserParcel = FramesParcel | SignalParcel | HeadParcel | EvictParcel | DevicesParcel | TraceParcel | FullParcel
Parcel = UserParcel | StampParcel

_pack = msgpack.Packer(autoreset=True, buf_size=256 * 1024).pack
_POSTS: Final[dict[int, Any]] = {
    PostKind.ENTRY: EntryPost, PostKind.SIGNAL: SignalPost, PostKind.ACK: AckPost,
    PostKind.TROUBLE: TroublePost, PostKind.SWEEP: SweepPost,
}  # fmt: skip
_PARCELS: Final[dict[int, Any]] = {
    ParcelKind.FRAMES: FramesParcel, ParcelKind.SIGNAL: SignalParcel,
    ParcelKind.HEAD: HeadParcel, ParcelKind.EVICT: EvictParcel, ParcelKind.DEVICES: DevicesParcel,
    ParcelKind.TRACE: TraceParcel, ParcelKind.FULL: FullParcel,
    ParcelKind.STAMP: StampParcel,
}  # fmt: skip


def pack_batch(node: str, items: Sequence[Post] | Sequence[Parcel], stamp: int = 0) -> bytes:
    """One batch from `node` (or the name of a brokerd). About 0.4 µs an item. A `stamp` that is not 0 is given back to `node`
    when brokerd takes the batch."""
    return bytes(_pack((BATCH_VERSION, node, items, stamp) if stamp else (BATCH_VERSION, node, items)))


class PostBatch:
    """A batch of posts that nobody has packed: where its consumer is in the same process, nobody has to (a tenth of the CPU of
    an embedded chatd at full load). `size` is about what it takes when packed, in bytes."""

    __slots__ = ("node", "posts", "size", "stamp")

    def __init__(self, node: str, posts: list[Post], size: int, stamp: int = 0) -> None:
        self.node = node
        self.posts = posts
        self.size = size
        self.stamp = stamp

    def __len__(self) -> int:
        return self.size


Batch = bytes | PostBatch


def packed(batch: Batch) -> bytes:
    """The batch as it travels."""
    return pack_batch(batch.node, batch.posts, batch.stamp) if isinstance(batch, PostBatch) else batch


def unpack_posts(data: Batch) -> tuple[str, list[Post]]:
    """The node and the posts of a batch. Raises Undecodable. Kinds that are not known are left out."""
    return unpack_stamped(data)[:2]


def unpack_stamped(data: Batch) -> tuple[str, list[Post], int]:
    """As unpack_posts, and the stamp: 0 = there is none."""
    if isinstance(data, PostBatch):
        return data.node, data.posts, data.stamp
    return _unpack(data, _POSTS)


def unpack_parcels(data: bytes) -> tuple[str, list[Parcel]]:
    """The sender and the parcels of a batch. Raises Undecodable. Kinds that are not known are left out."""
    return _unpack(data, _PARCELS)[:2]


def _unpack(data: bytes, kinds: dict[int, Any]) -> tuple[str, list[Any], int]:
    try:
        unpacked = msgpack.unpackb(data, max_array_len=BATCH_ITEMS_MAX, max_map_len=0, max_ext_len=0)
        version, node, items = unpacked[:3]  # a newer daemon may say more
        if version != BATCH_VERSION or type(node) is not str or type(items) is not list:
            raise Undecodable(f"batch version {version!r}")
        out = []
        for item in items:
            kind = kinds.get(item[0])
            if kind is None:
                continue
            fields = len(kind._fields)
            if len(item) == fields:
                out.append(new(kind, item))
            else:  # longer: of a newer daemon; shorter: of an older one, when the rest has defaults
                out.append(kind(*item[:fields]))
        stamp = unpacked[3] if len(unpacked) > 3 else 0
        return node, out, stamp if type(stamp) is int else 0
    except (ValueError, TypeError, IndexError, msgpack.UnpackException) as fault:
        raise Undecodable(f"{type(fault).__name__}: {fault}") from None
