"""What must be so at the end of a world: nothing is owed to anybody, nothing is out of order, the register is true."""

from __future__ import annotations

from protocol.codec import decode
from protocol.envelope import EntryPost, unpack_posts
from protocol.messages import ReadSync, Receipt, Sent
from protocol.names import message_id
from protocol.wire import Status, Type
from tests.sim.ledger import Broken, Ledger, Said
from tests.sim.store import Store

Owed = tuple[str, bytes] | None  # what is owed, and of which message


def unanswered(ledger: Ledger) -> Owed:
    """Every request is answered."""
    for id_, said in ledger.said.items():
        if not said.accepted_s and not said.is_refused:
            return "never answered", id_
    return None


def unseen(ledger: Ledger, store: Store) -> Owed:
    """What was accepted is seen by every device of its receiver, unless its time was over or its sender was told why."""
    dropped = _dropped(store)
    for id_, said in ledger.said.items():
        if said.of or said.is_unsure or said.is_refused or Status.FAILED in said.told or _is_over(ledger, said):
            continue
        if (said.sender, Status.FAILED, id_) in dropped:
            continue
        for device, begin in ledger.devices[said.to].items():
            if id_ not in ledger.seen.get(f"{said.to}/{device}", ()) and not _was_before(ledger, said, id_, begin):
                return f"accepted, and not seen by {said.to}/{device}", id_
    return None


def _is_over(ledger: Ledger, said: Said) -> bool:
    return 0 < said.expires_ms <= ledger.now_ms()


def _was_before(ledger: Ledger, said: Said, id_: bytes, begin: int) -> bool:
    """A device that came later begins behind what all others had by then."""
    return begin > 0 and any(
        ledger.seen.get(f"{said.to}/{device}", {}).get(id_, begin + 1) <= begin for device in ledger.devices[said.to]
    )


def untold(ledger: Ledger, store: Store) -> Owed:
    """Who asked is told how it ended: DELIVERED, EXPIRED or FAILED, on each device; and who was read, READ."""
    dropped = _dropped(store)
    for id_, said in ledger.said.items():
        if said.is_unsure or said.is_refused:
            continue
        if said.of:
            statuses, of, user = (Status.READ,), said.of, said.to
        elif said.wants_receipt:
            statuses, of, user = (Status.DELIVERED, Status.EXPIRED, Status.FAILED), id_, said.sender
        else:
            continue
        if any((user, status, of) in dropped for status in statuses) or ledger.said[of].is_unsure:
            continue
        for device, begin in ledger.devices[user].items():
            told = ledger.said[of].told
            if not begin and not any(f"{user}/{device}" in told.get(status, ()) for status in statuses):
                return f"{user}/{device} was not told {' or '.join(status.name for status in statuses)}", id_
    return None


def uncopied(ledger: Ledger, store: Store) -> Owed:
    """What a user with several devices says appears on all of them."""
    dropped = _dropped(store)
    for id_, said in ledger.said.items():
        if said.is_unsure or said.is_refused or said.sender not in ledger.shared or said.to == said.sender:
            continue
        kind, told, of = (Type.READ_SYNC, ledger.synced, said.of) if said.of else (Type.SENT, ledger.copies, id_)
        if (said.sender, kind, of) in dropped:
            continue
        for device, begin in ledger.devices[said.sender].items():
            if not begin and of not in told.get(f"{said.sender}/{device}", ()):
                return f"{said.sender}/{device} has no copy of it", id_
    return None


def _dropped(store: Store) -> set[tuple[str, int, bytes]]:
    """Receipts and copies that found a full queue: (user, status or type, message)."""
    dropped: set[tuple[str, int, bytes]] = set()
    for user, entry in store.dropped:
        body = decode(entry.type, entry.flags, 1, entry.body)
        if isinstance(body, Receipt):
            dropped.update((user, body.status, id_) for id_ in body.ids)
        elif isinstance(body, ReadSync):
            dropped.update((user, int(Type.READ_SYNC), id_) for id_ in body.ids)
        elif isinstance(body, Sent):
            dropped.add((user, int(Type.SENT), body.id))
    return dropped


def check_order(ledger: Ledger, nacked: list[bytes]) -> None:
    """What one device sent to one user is seen in the order of its cids. One that RabbitMQ refused while a later one was on
    its way may come behind it."""
    passed = {message_id(post.origin, post.cid) for batch in nacked for post in _entries(batch)}
    for name, seen in ledger.seen.items():
        last: dict[bytes, bytes] = {}
        for id_ in sorted(seen, key=lambda it: seen[it]):
            if ledger.said[id_].is_unsure or id_ in passed:
                continue
            if id_ < last.get(id_[:9], b""):
                raise Broken(f"{name} saw it behind a later one", id_)
            last[id_[:9]] = id_


def _entries(batch: bytes) -> list[EntryPost]:
    """The messages of devices in a batch."""
    posts = unpack_posts(batch)[1]
    return [post for post in posts if isinstance(post, EntryPost) and post.type == Type.DELIVER]
