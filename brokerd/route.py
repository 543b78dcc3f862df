"""Routing, without I/O: what a batch asks of the store, and what follows from the store's answer.

`plan` sorts the posts of a batch by what must be done with them, keeping their order per user; `route` turns the answer
into parcels for nodes and bounces for senders. Both are pure: nothing here waits, logs or knows the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final, NamedTuple

import msgpack

from brokerd.ports import EXPIRING, FULL, NO_USER, Ack, Append, Appended, Entry, Owed, Seat
from protocol.codec import decode, encode_body
from protocol.envelope import (
    AckPost,
    EntryPost,
    FramesParcel,
    FullParcel,
    HeadParcel,
    Parcel,
    ParcelKind,
    Post,
    PostKind,
    SignalParcel,
    SignalPost,
    SweepPost,
    TroublePost,
)
from protocol.errors import Code
from protocol.frames import pack_frame
from protocol.messages import Receipt
from protocol.names import device_tag
from protocol.tuples import new
from protocol.wire import HEAD, MESSAGE_ID_BYTES, RECEIPT_IDS_MAX, TTL_S_MAX, Flag, Status, Type

# plain numbers: see chatd.posts
_ENTRY: Final = int(PostKind.ENTRY)
_RECEIPT: Final = int(Type.RECEIPT)
_FAILED_ORIGIN: Final = b"s" + bytes((Status.FAILED,))  # how the origin of a bounce begins: see status_post
BOUNCE_CODES: Final = {FULL: Code.QUEUE_FULL, NO_USER: Code.NO_SUCH_USER}


@dataclass(slots=True)
class Plan:
    """What a batch asks for, sorted."""

    appends: list[Append] = field(default_factory=list)
    signals: dict[str, list[SignalPost]] = field(default_factory=dict)
    acks: list[Ack] = field(default_factory=list)
    troubles: list[TroublePost] = field(default_factory=list)
    sweeps: set[str] = field(default_factory=set)


class Handed(NamedTuple):
    """A seat to which something is handed: remembered, so that it can be released when its node turns out to be gone."""

    user: str
    seat: Seat


@dataclass(slots=True)
class Routed:
    """What follows from the store's answer."""

    parcels: dict[str, list[Parcel]] = field(default_factory=dict)  # by node
    bounces: list[EntryPost] = field(default_factory=list)  # FAILED receipts, for the senders' own queues
    handed: dict[str, list[Handed]] = field(default_factory=dict)  # by node
    stored: int = 0
    repeats: int = 0
    bounced: dict[Code, int] = field(default_factory=dict)  # messages that came back, by reason
    dropped: int = 0  # receipts and copies for a queue that is over its bound


def plan(posts: Iterable[Post]) -> Plan:
    """Sort the posts of one shard. Acks of one device are folded into the furthest of each generation."""
    out = Plan()
    entries: dict[str, list[Entry]] = {}
    acks: dict[tuple[str, str, bytes], int] = {}
    for post in posts:
        if post[0] == _ENTRY:
            # the slice is the Entry: EntryPost is (kind, to, *Entry)
            of_user = entries.get(post[1])
            if of_user is None:
                of_user = entries[post[1]] = []
            fields: tuple[Any, ...] = post  # what its sender made of it is looked at where it is saved
            of_user.append(new(Entry, fields[2:]))
        elif isinstance(post, AckPost):
            key = (post.user, post.device, post.generation)
            acks[key] = max(post.seq, acks.get(key, 0))
        elif isinstance(post, SignalPost):
            out.signals.setdefault(post.to, []).append(post)
        elif isinstance(post, TroublePost):
            out.troubles.append(post)
        elif isinstance(post, SweepPost):
            out.sweeps.add(post.user)
    out.appends = [Append(user, items) for user, items in entries.items()]
    out.appends += [Append(user, ()) for user in out.signals if user not in entries]
    out.acks = [Ack(user, device, seq, 0, generation) for (user, device, generation), seq in acks.items()]
    return out


def route(work: Plan, appended: Sequence[Appended], now_ms: int) -> Routed:
    """Parcels for the nodes where the receivers are, bounces for the senders of what was not taken."""
    out = Routed()
    for (user, entries), answer in zip(work.appends, appended, strict=True):
        parcels = _parcels_of(user, entries, answer, out, now_ms)
        parcels += [FullParcel(ParcelKind.FULL, user, peer) for peer in _full_for(entries)]
        for signal in work.signals.get(user, ()):
            parcels.append(SignalParcel(ParcelKind.SIGNAL, user, pack_frame(signal.type, 0, 0, signal.body)))
        if parcels and answer.seats:
            _hand(user, parcels, answer.seats, out)
    return out


def route_part(work: Plan, appended: Sequence[Appended | None], now_ms: int) -> Routed:
    """As `route`, for those whose append was taken; the whole round comes again, and what follows for the others with it."""
    taken = [(item, answer) for item, answer in zip(work.appends, appended, strict=True) if answer is not None]
    return route(Plan(appends=[item for item, _ in taken]), [answer for _, answer in taken], now_ms)


def _parcels_of(user: str, entries: Sequence[Entry], answer: Appended, out: Routed, now_ms: int) -> list[Parcel]:
    """The frames of what was stored, in one piece; or a nudge, when all of it was stored before."""
    frames: list[bytes] = []
    bounced: dict[tuple[str, Code], list[bytes]] = {}
    first = last = 0
    pack_head = HEAD.pack
    for entry, result in zip(entries, answer.results, strict=True):
        if result > 0:
            first, last = first or result, result
            _, _, type_, flags, _, body, _ = entry
            frames += (pack_head(len(body), type_, flags, 0, result), body)
        elif result == 0:
            out.repeats += 1
        else:
            _bounce(entry, BOUNCE_CODES[result], bounced, out)
    if bounced:
        out.bounces += failed_posts(user, bounced, now_ms)
    if frames:
        out.stored += last - first + 1
        return [FramesParcel(ParcelKind.FRAMES, user, first, last, b"".join(frames))]
    return [HeadParcel(ParcelKind.HEAD, user, answer.head)] if entries and answer.head else []


def _full_for(entries: Sequence[Entry]) -> set[str]:
    """Whose queues were full, by the bounces among these entries (also by one that finds no room itself)."""
    bounces = [
        decode(_RECEIPT, 0, 0, it.body)
        for it in entries
        if it.type == _RECEIPT and it.origin.startswith(_FAILED_ORIGIN)
    ]
    return {it.peer for it in bounces if isinstance(it, Receipt) and it.reason == Code.QUEUE_FULL}


def _bounce(entry: Entry, code: Code, bounced: dict[tuple[str, Code], list[bytes]], out: Routed) -> None:
    if entry.type == Type.DELIVER:
        sender, id_ = sender_of(entry.body)
        bounced.setdefault((sender, code), []).append(id_)
        out.bounced[code] = out.bounced.get(code, 0) + 1
    else:
        out.dropped += 1


def _hand(user: str, parcels: list[Parcel], seats: Sequence[Seat], out: Routed) -> None:
    """Each node once, however many devices sit there."""
    for seat in seats:
        handed = out.handed.setdefault(seat.node, [])
        if not handed or handed[-1].user != user:
            out.parcels.setdefault(seat.node, []).extend(parcels)
        handed.append(Handed(user, seat))


# --- receipts ------------------------------------------------------------------------------------------------------


def sender_of(body: bytes) -> tuple[str, bytes]:
    """Sender and message id of a DELIVER body, which this system packed itself."""
    fields = msgpack.unpackb(body)
    return fields[0], fields[1]


def status_post(
    sender: str, peer: str, status: Status, ids: Sequence[bytes], now_ms: int, reason: int = 0
) -> EntryPost:
    """FAILED or EXPIRED of these messages, taken once however often the same are posted together."""
    body = encode_body(Receipt(0, 0, peer, int(status), tuple(ids), now_ms, int(reason)))
    name = ids[0] if len(ids) == 1 else blake2b(b"".join(ids), digest_size=MESSAGE_ID_BYTES).digest()
    origin = b"s" + bytes((status,)) + name
    return EntryPost(PostKind.ENTRY, sender, origin, 0, int(Type.RECEIPT), 0, now_ms + TTL_S_MAX * 1000, body)


def failed_posts(user: str, bounced: Mapping[tuple[str, Code], Sequence[bytes]], now_ms: int) -> list[EntryPost]:
    """FAILED receipts for messages to `user` that came back together: one for each sender, reason and RECEIPT_IDS_MAX ids.

    A flood against a full queue costs its sender's queue an entry a round, not an entry a message: with one for each, those
    beyond twice the bound of that queue were lost. When a round is repeated, and cut otherwise, some ids are told twice.
    """
    return [
        status_post(sender, user, Status.FAILED, ids[at : at + RECEIPT_IDS_MAX], now_ms, code)
        for (sender, code), ids in bounced.items()
        for at in range(0, len(ids), RECEIPT_IDS_MAX)
    ]


def told_posts(user: str, owed: Sequence[Owed], now_ms: int, generation: bytes) -> list[EntryPost]:
    """What an ack made due: DELIVERED, but EXPIRED for what was claimed by a sweep before the ack came."""
    delivered = [item for item in owed if not item.flags & EXPIRING]
    expiring = [item for item in owed if item.flags & EXPIRING]
    return delivered_posts(user, delivered, now_ms, generation) + expired_posts(user, expiring, now_ms)


def delivered_posts(user: str, owed: Sequence[Owed], now_ms: int, generation: bytes) -> list[EntryPost]:
    """DELIVERED receipts for the senders of `owed`, one for each sender (and RECEIPT_IDS_MAX ids).

    They are numbered by seq, as if this generation of the receiver's queue were a device: a repeat with the same end is
    dropped, and a user who was deleted and made anew begins at 1 without being taken for a repeat. After a
    crash between posting and settling, a repeat that reaches further tells some ids twice; receipts are idempotent.
    """
    by_sender: dict[str, list[tuple[int, bytes]]] = {}
    for seq, _, body in owed:
        sender, id_ = sender_of(body)
        by_sender.setdefault(sender, []).append((seq, id_))
    origin = device_tag(user, f"#{generation.hex()}")  # no device has such a name
    posts = []
    for sender, told in by_sender.items():
        for at in range(0, len(told), RECEIPT_IDS_MAX):
            part = told[at : at + RECEIPT_IDS_MAX]
            ids = tuple(id_ for _, id_ in part)
            body = encode_body(Receipt(0, 0, user, int(Status.DELIVERED), ids, now_ms, 0))
            expires_ms = now_ms + TTL_S_MAX * 1000
            posts.append(EntryPost(PostKind.ENTRY, sender, origin, part[-1][0], int(Type.RECEIPT), 0, expires_ms, body))
    return posts


def expired_posts(user: str, owed: Sequence[Owed], now_ms: int) -> list[EntryPost]:
    """EXPIRED receipts, for those senders who asked to be told."""
    posts = []
    for _, flags, body in owed:
        if flags & Flag.RECEIPT:
            sender, id_ = sender_of(body)
            posts.append(status_post(sender, user, Status.EXPIRED, [id_], now_ms, Code.TTL_PASSED))
    return posts
