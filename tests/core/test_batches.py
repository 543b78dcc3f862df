"""Batches are cut to what the other side takes, in order, and nothing is left out."""

from __future__ import annotations

import pytest

from brokerd.batches import batches
from protocol.envelope import (
    BATCH_BYTES_MAX,
    BATCH_ITEMS_MAX,
    FramesParcel,
    HeadParcel,
    Parcel,
    ParcelKind,
    unpack_parcels,
)


def framed(size: int) -> FramesParcel:
    return FramesParcel(ParcelKind.FRAMES, "bob", 1, 1, bytes(size))


def heads(count: int) -> list[Parcel]:
    return [HeadParcel(ParcelKind.HEAD, "bob", head) for head in range(1, count + 1)]


@pytest.mark.parametrize(
    ("parcels", "counts"),
    [
        ([], []),
        (heads(BATCH_ITEMS_MAX), [BATCH_ITEMS_MAX]),
        (heads(2 * BATCH_ITEMS_MAX + 1), [BATCH_ITEMS_MAX, BATCH_ITEMS_MAX, 1]),
        ([framed(BATCH_BYTES_MAX // 3)] * 5, [2, 2, 1]),
        ([framed(9), framed(BATCH_BYTES_MAX), framed(9), framed(9)], [1, 1, 2]),
    ],
)
def test_batches_hold_what_a_reader_takes(parcels: list[Parcel], counts: list[int]) -> None:
    read = [unpack_parcels(batch) for batch in batches("b1", parcels)]
    assert [len(some) for _, some in read] == counts
    assert [parcel for _, some in read for parcel in some] == parcels
    assert {name for name, _ in read} <= {"b1"}
