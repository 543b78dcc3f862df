"""Which cids below the highest one taken may still be taken: the gaps of a dedupe mark. Pure.

A poster numbers what it sends, and everything up to the highest cid taken counts as taken. That is wrong when a batch
was refused while a later one was on its way: cid 7 refused, cid 8 taken, and 7 sent once more. So an entry says `prev`,
the cid before it that its poster does not know to be taken; when the store has not got that far, there is a gap.

Gaps are a flat list of ranges, [first, last, first, last …], ascending. Almost always it is empty.
"""

from __future__ import annotations

from typing import Final

GAPS_MAX: Final = 64  # of one origin; as many batches would have to be refused one by one. The oldest closes.


def open_gap(gaps: list[int], high: int, prev: int) -> None:
    """An entry behind `prev` is about to be taken and `high` is the mark so far: what lies between was not taken."""
    first = max(high, 0) + 1
    if prev >= first:
        gaps += (first, prev)
        del gaps[: -2 * GAPS_MAX]


def fill_gap(gaps: list[int], cid: int, prev: int) -> bool:
    """Whether `cid`, not above the mark, may be taken. Then it is, and with it what its poster knows to be taken."""
    for at in range(0, len(gaps), 2):
        first, last = gaps[at], gaps[at + 1]
        if first <= cid <= last:
            below = (first, prev) if first <= prev else ()
            above = (cid + 1, last) if cid < last else ()
            gaps[at : at + 2] = (*below, *above)
            return True
    return False
