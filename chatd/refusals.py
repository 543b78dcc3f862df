"""The cids of one session that were refused and may come again, and the order that must be kept meanwhile. Pure.

What a peer wrote before it heard of a refusal must not pass the refused one, or the order would be lost: while a lower cid was
refused and did not come again, later ones are refused too, for ORDER_S_MAX at most. Spec: protocol/SPEC.md §10.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Final

REFUSED_MAX: Final = 4096  # that did not come again; then the session ends
ORDER_S_MAX: Final = 10.0  # so long later cids wait for the refused ones; a peer that gave them up goes on then


class Refusals:
    """One for a session."""

    __slots__ = ("_cids", "_heap", "_until_s")

    def __init__(self) -> None:
        self._cids: set[int] = set()
        self._heap: list[int] = []  # the same and older, lowest first
        self._until_s = 0.0

    def __len__(self) -> int:
        return len(self._cids)

    def __contains__(self, cid: int) -> bool:
        return cid in self._cids

    @property
    def are_too_many(self) -> bool:
        """Whether the session must end."""
        return len(self._cids) > REFUSED_MAX

    def note(self, cid: int) -> bool:
        """This one was refused. False: they are too many."""
        if cid not in self._cids:
            self._cids.add(cid)
            heappush(self._heap, cid)
        return not self.are_too_many

    def discard(self, cid: int) -> None:
        """It came again."""
        self._cids.discard(cid)

    def keep_order(self, now_s: float) -> None:
        """Later ones wait from now on for ORDER_S_MAX."""
        self._until_s = max(self._until_s, now_s + ORDER_S_MAX)

    def hold_back(self, cid: int, now_s: float) -> bool:
        """Whether a lower cid was refused and did not come again, so that this one must wait."""
        if not self._cids:
            return False
        heap = self._heap
        while heap[0] not in self._cids:
            heappop(heap)
        return cid > heap[0] and now_s < self._until_s
