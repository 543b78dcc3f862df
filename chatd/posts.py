"""The posts that a message becomes: one for its receiver and, when the sender has more devices, a copy for them.

Pure. Bodies are packed here, once; everything behind moves opaque bytes.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from protocol.codec import pack_fields
from protocol.envelope import EntryPost, SignalPost
from protocol.tuples import new
from protocol.wire import TTL_S_MAX, Flag, Status, Type

COPIES: Final = ""  # as a receiver in Untaken: the sender's own devices, whose copies have a numbering of their own
SEND_FLAGS: Final = int(Flag.RECEIPT | Flag.READ_RECEIPT)
_TTL_MS_MAX: Final = TTL_S_MAX * 1000

# plain numbers: an IntEnum member costs 0.1 µs more at each use, and these are used for every message
_ENTRY, _SIGNAL = 0, 1
_DELIVER, _SENT, _RECEIPT = int(Type.DELIVER), int(Type.SENT), int(Type.RECEIPT)
_READ_SYNC, _SIGNALLED, _READ = int(Type.READ_SYNC), int(Type.SIGNALLED), int(Status.READ)


class Origin(NamedTuple):
    """Who posts. `tag` is the device tag (cid > 0) or a whole key (cid 0): protocol.envelope.EntryPost."""

    user: str
    tag: bytes


class Untaken(dict[str, int]):
    """Of one session: receiver → the last cid posted to it that may not be taken (EntryPost.prev)."""

    def before(self, cid: int, to: str) -> int:
        """The `prev` of a post to this receiver; the post is noted. A stale one does no harm: the store has got that far."""
        before = self.get(to, 0)
        if cid > before:
            self[to] = cid
            return before
        return cid - 1  # it comes again: whatever lies before it in its gap stays open


def message_post(
    by: Origin, cid: int, to: str, id_: bytes, flags: int, payload: bytes, ttl_s: int | None, now_ms: int, prev: int = 0
) -> EntryPost:
    """A message for the queue of `to`. `prev`: see EntryPost."""
    expires_ms = now_ms + (ttl_s * 1000 if ttl_s else _TTL_MS_MAX)
    body = pack_fields((by.user, id_, now_ms, payload))
    return new(EntryPost, (_ENTRY, to, by.tag, cid, _DELIVER, flags & SEND_FLAGS, expires_ms, body, prev))


def message_copy(
    by: Origin, cid: int, to: str, id_: bytes, flags: int, payload: bytes, now_ms: int, prev: int = 0
) -> EntryPost:
    """The same message for the sender's own devices. A numbering of its own: its receiver is the sender."""
    body = pack_fields((to, id_, now_ms, payload))
    expires_ms = now_ms + _TTL_MS_MAX
    return EntryPost(_ENTRY, by.user, b"c" + by.tag, cid, _SENT, flags & SEND_FLAGS, expires_ms, body, prev)


def read_post(by: Origin, cid: int, to: str, ids: tuple[bytes, ...], now_ms: int, prev: int = 0) -> EntryPost:
    """ "Your messages were read", for their sender."""
    body = pack_fields((by.user, _READ, ids, now_ms, 0))
    return EntryPost(_ENTRY, to, by.tag, cid, _RECEIPT, 0, now_ms + _TTL_MS_MAX, body, prev)


def read_copy(by: Origin, cid: int, to: str, ids: tuple[bytes, ...], now_ms: int, prev: int = 0) -> EntryPost:
    """The same for the reader's own devices."""
    body = pack_fields((to, ids, now_ms))
    return EntryPost(_ENTRY, by.user, b"c" + by.tag, cid, _READ_SYNC, 0, now_ms + _TTL_MS_MAX, body, prev)


def signal_post(by: Origin, to: str, payload: bytes) -> SignalPost:
    """An ephemeral message: never stored."""
    return SignalPost(_SIGNAL, to, _SIGNALLED, pack_fields((by.user, payload)))
