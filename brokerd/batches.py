"""Batches cut to what the other side takes: a round may bring more posts and parcels than one batch may hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from protocol.envelope import BATCH_BYTES_MAX, BATCH_ITEMS_MAX, Parcel, ParcelKind, Post, StampParcel, pack_batch

_ITEM_BYTES: Final = 160  # about what an item takes beside its body or frames


def batches(name: str, items: Sequence[Post] | Sequence[Parcel]) -> Iterator[bytes]:
    """The items from `name`, in order, in batches of at most BATCH_ITEMS_MAX and about BATCH_BYTES_MAX; an item that is
    larger than that goes alone."""
    some: list[Post | Parcel] = []
    size = 0
    for item in items:
        grown = size + _ITEM_BYTES + len(getattr(item, "frames", b"") or getattr(item, "body", b""))
        if some and (grown > BATCH_BYTES_MAX or len(some) == BATCH_ITEMS_MAX):
            yield pack_batch(name, some)  # type: ignore[arg-type]  # posts or parcels, as they came
            some, grown = [], grown - size
        some.append(item)
        size = grown
    if some:
        yield pack_batch(name, some)  # type: ignore[arg-type]


def stamp_back(name: str, shard: int, stamp: int) -> bytes:
    """For the node whose batch for `shard` carried this stamp: it was taken just now."""
    return pack_batch(name, [StampParcel(ParcelKind.STAMP, shard, stamp)])
