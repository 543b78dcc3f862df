"""What a node notes of messages: taken and confirmed, written and acknowledged, refused, left behind by a session.

Called by the postbox, the postroom and the switchboard; nothing here waits. The hot paths compare one byte by themselves
(brokerd.tracing.Sample) and come here for the few that pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from brokerd.ports import Page
from brokerd.support_ports import Hop, HopKind
from brokerd.tracing import HopBuffer, Sample, id_of
from protocol.envelope import EntryPost, TraceParcel
from protocol.errors import Code
from protocol.names import device_tag, message_id
from protocol.wire import MESSAGE_ID_BYTES, Processed, Type

if TYPE_CHECKING:
    from chatd.line import Line
    from chatd.postbox import Poster

WATCHED_MAX: Final = 10_000  # written and not acknowledged, over all sessions; of the others no ACKED is noted
_DELIVER: Final = int(Type.DELIVER)
_STR8: Final = 0xC0  # msgpack: below it a text of up to 31 bytes begins, with its length in 5 bits


class _Followed:
    """A Poster that notes what its post became, and passes it on."""

    __slots__ = ("_by", "_hop", "_tracer")

    def __init__(self, tracer: NodeTracer, by: Poster, hop: Hop) -> None:
        self._tracer, self._by, self._hop = tracer, by, hop

    def accepted(self, cids: Sequence[int]) -> None:
        self._tracer.note(self._hop._replace(kind=int(HopKind.CONFIRMED), detail=""))
        self._by.accepted(cids)

    def refused(self, cid: int, code: Code, processed: Processed, retry_after_ms: int) -> None:
        self._by.refused(cid, code, processed, retry_after_ms)


class NodeTracer:
    """One for a node. `mask` and `want` are the sample's, for the hot paths."""

    def __init__(self, node: str, sample: Sample, buffer: HopBuffer, clock_ms: Callable[[], int]) -> None:
        self.mask, self.want = sample.mask, sample.want
        self.watched: dict[Line, list[tuple[int, bytes]]] = {}  # by session: seq and id, ascending
        self._watched = 0
        self._node, self._sample, self._buffer, self._clock_ms = node, sample, buffer, clock_ms

    def note(self, hop: Hop) -> None:
        """Keep a hop, of now."""
        self._buffer.note(hop._replace(at_ms=self._clock_ms()))

    def _note(
        self, id_: bytes, kind: HopKind, user: str, device: str, seq: int = 0, code: int = 0, detail: str = ""
    ) -> None:
        self._buffer.note(Hop(id_, self._clock_ms(), int(kind), self._node, user, device, seq, code, detail))

    # --- on its way in

    def taken(self, by: Poster, post: EntryPost) -> Poster:
        """One byte says that this post may be in the sample. Who is to be told of it instead of `by`."""
        if post.type != _DELIVER:
            return by
        id_ = id_of(post)
        if not self._sample.has(id_):
            return by
        session = getattr(by, "session", None)
        origin = f"{session.user}/{session.device}, session {session.id}" if session is not None else "HTTP"
        hop = Hop(id_, self._clock_ms(), int(HopKind.TAKEN), self._node, post.to, detail=origin)
        self._buffer.note(hop)
        return _Followed(self, by, hop)

    def refused(self, line: Line, cid: int, code: Code) -> None:
        """What a session posted was not taken, or nobody knows."""
        if not self._buffer.is_full:
            session = line.session
            tag = device_tag(session.user, session.device)
            self.refused_id(message_id(tag, cid), "", int(code), f"session {session.id}")

    def refused_id(self, id_: bytes, user: str, code: int, detail: str) -> None:
        """The same, of a message whose id and receiver are known."""
        self._note(id_, HopKind.REFUSED, user, "", code=code, detail=detail)

    # --- on its way out

    def handed(self, line: Line, parcel: TraceParcel) -> None:
        """A message of the sample was handed over. If the session has not come so far, it will read it: `paged`."""
        if line.session.feed.expected > parcel.seq > line.session.feed.acked:
            self._written(line, parcel.seq, parcel.id)

    def paged(self, line: Line, page: Page, before: int) -> None:
        """The session stood at seq `before` and took this page of the backlog."""
        if self.want != 0:
            return
        mask = self.mask
        try:
            some = [
                (seq, b[at : at + MESSAGE_ID_BYTES])
                for seq, (type_, _, _, b) in enumerate(page.entries, page.first)
                # the body is packed: array of 4, sender (1 or 2 bytes, text), id (2 bytes, 16 bytes)
                if type_ == _DELIVER
                and (b[at := (b[1] & 31) + 4 if b[1] < _STR8 else b[2] + 5] ^ b[at + MESSAGE_ID_BYTES - 1]) & mask == 0
            ]
        except IndexError:  # a body that this system did not pack
            return
        for seq, id_ in some:
            if before <= seq < line.session.feed.expected and self._sample.has(id_):
                self._written(line, seq, id_)

    def _written(self, line: Line, seq: int, id_: bytes) -> None:
        session = line.session
        self._note(id_, HopKind.WRITTEN, session.user, session.device, seq)
        if self._watched < WATCHED_MAX:
            self._watched += 1
            self.watched.setdefault(line, []).append((seq, id_))

    def acked(self, line: Line, seq: int) -> None:
        """The session acknowledged all up to `seq`. Asked only while something is watched."""
        watched = self.watched.get(line)
        if watched and watched[0][0] <= seq:
            done = [item for item in watched if item[0] <= seq]
            del watched[: len(done)]
            self._forget(line, len(done), watched)
            for at, id_ in done:
                self._note(id_, HopKind.ACKED, line.session.user, line.session.device, at)

    def lost(self, line: Line, code: int, detail: str) -> None:
        """The session is over; what it had not acknowledged waits on."""
        left = self.watched.get(line)
        if left:
            self._forget(line, len(left), [])
            for seq, id_ in left:
                self._note(id_, HopKind.TROUBLE, line.session.user, line.session.device, seq, code, detail[:80])

    def _forget(self, line: Line, count: int, left: list[tuple[int, bytes]]) -> None:
        self._watched -= count
        if not left:
            del self.watched[line]
