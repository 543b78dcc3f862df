"""What a broker notes of the messages it works off: hops, and the word to a node to look out for the rest.

Called by the broker between two steps of a round; nothing here waits, and no fault here may touch a message.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from brokerd.ports import EXPIRING, Append, Appended, Entry, Owed
from brokerd.route import BOUNCE_CODES, Plan, Routed, sender_of
from brokerd.support_ports import Hop, HopKind
from brokerd.tracing import DETAIL_CHARS_MAX, HopBuffer, Sample, id_of, is_message_id
from protocol.envelope import EntryPost, ParcelKind, Post, TraceParcel
from protocol.errors import Code
from protocol.wire import Type

_DELIVER: Final = int(Type.DELIVER)


class BrokerTracer:
    """One for a broker, named `name`."""

    def __init__(
        self, name: str, sample: Sample, buffer: HopBuffer, clock_ms: Callable[[], int], log: Any
    ) -> None:  # fmt: skip
        self._name, self._sample, self._buffer = name, sample, buffer
        self._clock_ms, self._log = clock_ms, log

    def routed(self, work: Plan, appended: Sequence[Appended], out: Routed, now_ms: int) -> None:
        """A batch was saved and routed: the sample's SAVED, REPEAT and HANDED, every BOUNCED. Adds to `out.parcels`."""
        try:
            if self._sample.want == 0:
                self._note_sample(work, appended, out, now_ms)
            if out.bounces:
                self._note_bounces(work, appended, now_ms)
        except Exception:
            self._log.exception("trace_failed")

    def _note_sample(self, work: Plan, appended: Sequence[Appended], out: Routed, now_ms: int) -> None:
        mask = self._sample.mask
        for item, answer in zip(work.appends, appended, strict=True):
            # e[0] is the origin, e[1] the cid: what of the id's first and last byte stands there
            some = [e for e in item.entries if (e[0][0] ^ (e[1] or e[0][-1])) & mask == 0]
            if some:
                self._note_entries(item, answer, some, out, now_ms)

    def _note_entries(
        self, item: Append, answer: Appended, some: list[Entry], out: Routed, now_ms: int
    ) -> None:  # fmt: skip
        for entry, result in zip(item.entries, answer.results, strict=True):
            if entry not in some or entry.type != _DELIVER or result < 0:
                continue
            id_ = id_of(entry)
            if not self._sample.has(id_):
                continue
            if result == 0:
                self._note(id_, now_ms, HopKind.REPEAT, item.user)
                continue
            self._note(id_, now_ms, HopKind.SAVED, item.user, seq=result)
            for seat in answer.seats:
                self._note(id_, now_ms, HopKind.HANDED, item.user, seat.device, result, detail=seat.node)
            for node in {seat.node for seat in answer.seats} & out.parcels.keys():
                out.parcels[node].append(TraceParcel(ParcelKind.TRACE, item.user, result, id_))

    def _note_bounces(self, work: Plan, appended: Sequence[Appended], now_ms: int) -> None:
        for item, answer in zip(work.appends, appended, strict=True):
            for entry, result in zip(item.entries, answer.results, strict=True):
                if result < 0 and entry.type == _DELIVER and not self._buffer.is_full:
                    code = int(BOUNCE_CODES[result])
                    self._note(id_of(entry), now_ms, HopKind.BOUNCED, item.user, code=code)

    def buried(self, posts: Sequence[Post], reason: str) -> None:
        """These posts went to the dead letters."""
        for post in posts:
            if isinstance(post, EntryPost) and post.type == _DELIVER:
                self._note_body(post.body, HopKind.DEAD, post.to, detail=reason[:DETAIL_CHARS_MAX])

    def told(self, user: str, owed: Sequence[Owed]) -> None:
        """The sample's DELIVERED receipts are durable."""
        if self._sample.want == 0:
            for item in owed:
                if not item.flags & EXPIRING:
                    self._note_body(item.body, HopKind.RECEIPT, user, item.seq, is_sampled=True)

    def expired(self, user: str, owed: Sequence[Owed]) -> None:
        """The time of these entries of the user's queue was over."""
        for item in owed:
            self._note_body(item.body, HopKind.EXPIRED, user, item.seq, code=int(Code.TTL_PASSED))

    # --- notes

    def _note_body(
        self, body: bytes, kind: HopKind, user: str, seq: int = 0, *,
        code: int = 0, detail: str = "", is_sampled: bool = False,
    ) -> None:  # fmt: skip
        """Of a DELIVER body; others have no message id there, and are left out."""
        if self._buffer.is_full:
            return
        try:
            id_ = sender_of(body)[1]
        except Exception:  # a body that this system did not pack
            self._log.info("trace_without_id", kind=kind.name, user=user, bytes=len(body))
            return
        if is_message_id(id_) and (not is_sampled or self._sample.has(id_)):
            self._note(id_, self._clock_ms(), kind, user, seq=seq, code=code, detail=detail)

    def _note(
        self, id_: bytes, at_ms: int, kind: HopKind, user: str, device: str = "", seq: int = 0, code: int = 0, detail: str = ""
    ) -> None:  # fmt: skip
        self._buffer.note(Hop(id_, at_ms, int(kind), self._name, user, device, seq, code, detail))
