"""The ports of the system: what it asks of a queue, a register and a sent_queue, whatever stands behind them.

Adapters live in brokerd/links (RabbitMQ, Redis, SQLite, memory); the contracts written here are tested on every one of
them by tests/contracts. An adapter that is down raises LinkDown: then nothing is known, and nobody may be taken for
absent because of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

from protocol.envelope import Batch

# --- failures ------------------------------------------------------------------------------------------------------


class LinkDown(Exception):
    """The service behind the port cannot be reached or did not answer in time. Whether it acted is unknown."""


class StoreChanged(LinkDown):
    """The store answers, but it is not the one that was known: it came back empty, or another stands in its place.

    As when it is down: nothing that it says of users and messages may be believed, until its operator settles it.
    """


class PostRefused(Exception):
    """The queue surely did not take the batch (nack, no such queue). Nothing of it will be delivered."""


# --- the sent_queue ------------------------------------------------------------------------------------------------


class Entry(NamedTuple):
    """One thing to append to a user's sent_queue; see protocol.envelope.EntryPost for origin, cid and prev."""

    origin: bytes
    cid: int
    type: int
    flags: int
    expires_ms: int
    body: bytes
    prev: int = 0


class Append(NamedTuple):
    """What one batch has for one user. `entries` may be empty: then only the seats are looked up."""

    user: str
    entries: Sequence[Entry]


# What became of an entry: a seq (1..) or one of these.
REPEAT: Final = 0  # taken before; the first result stands
FULL: Final = -1  # the queue is at its bound, nothing was stored; a repeat of it gets FULL again
NO_USER: Final = -2  # there is no such user, nothing was stored


class Seat(NamedTuple):
    """One live session of a device, as the register knows it."""

    device: str
    node: str
    session: str


class Appended(NamedTuple):
    """The answer to one Append. Seats are those of the moment after the save (promise 4)."""

    results: Sequence[int]  # one for each entry: seq, REPEAT, FULL or NO_USER
    head: int  # the newest seq of the user, 0 = none
    seats: Sequence[Seat]


class Ack(NamedTuple):
    """`device` of `user` processed all up to `seq`; receipts up to `settled` are durable (0: none are known to be).
    `generation` is the queue's that these seqs count in, b"" = not said."""

    user: str
    device: str
    seq: int
    settled: int
    generation: bytes = b""


# Kept with an entry's flags, and shown in Owed only: `expired` gave it, so its sender is told EXPIRED, whoever acknowledges it
# from then on. One step of the store decides, and a message has one end.
EXPIRING: Final = 0x40


class Owed(NamedTuple):
    """An entry whose sender must be told what became of it. `body` is its DELIVER body, `flags` its flags: with EXPIRING
    its receipt is EXPIRED, else DELIVERED."""

    seq: int
    flags: int
    body: bytes


class Acked(NamedTuple):
    """The answer to one Ack: entries that this ack delivered for the first time and whose sender asked for a receipt.

    While `owed` is not empty nothing of it is forgotten: post the receipts, then send the same Ack again with
    `settled` = the seq of the last owed entry. Repeat until `owed` is empty. `generation` is that of the queue, whose seqs
    mean nothing in another one.
    """

    owed: Sequence[Owed]
    generation: bytes = b""


class Stored(NamedTuple):
    """An entry as it is read back. `type` 0 (a tombstone): it expired or was removed; `flags` is then 0 and `body` the
    reason, an error code as decimal digits."""

    type: int
    flags: int
    expires_ms: int
    body: bytes


class Page(NamedTuple):
    """Entries of seqs first..first+len-1. `head` is the newest seq at the moment of reading.

    `first` > after+1 when entries were trimmed before this device acknowledged them (it was away for longer than the
    retention): those seqs are gone.
    """

    first: int
    entries: Sequence[Stored]
    head: int


class Opened(NamedTuple):
    """A device's place at login."""

    cursor: int  # the last seq it acknowledged, or where a new device begins
    head: int
    generation: bytes  # GENERATION_BYTES; a new one when the queue was made anew
    devices: int  # known devices of the user, this one included


class QueueStatus(NamedTuple):
    """For chatctl: floor (trimmed up to), head, bytes; by device the cursor, the last trouble, and about when it was
    last seen (Unix ms; an ACK counts once a day at most). The generation is in hex."""

    floor: int
    head: int
    bytes: int
    cursors: dict[str, int]
    troubles: dict[str, str]
    seen_ms: dict[str, int]
    generation: str


class PartlySaved(LinkDown):
    """The store took some appends of a call and not the others (it is full): None stands for those. They may be repeated,
    all of them."""

    def __init__(self, why: str, appended: Sequence[Appended | None]) -> None:
        super().__init__(why)
        self.appended = appended


class SentQueue(Protocol):
    """Per user, the ordered log of what was sent to that user and not yet acknowledged by all of the user's devices.

    Every method that takes several items makes one round trip for all, and answers in the order of the items. All calls
    for one user are made by one owner at a time (the shard's consumer), but for open/read/heads, which any node makes.
    Raises LinkDown from every method; then each item may or may not have been carried out, and may be repeated.
    """

    async def append(self, appends: Sequence[Append], now_ms: int) -> list[Appended]:
        """Save, dedupe and then look up, atomically for each user. Users in `appends` are distinct. May raise PartlySaved.

        Durable when it returns (as durable as the adapter is set to be). Seqs are 1, 2, 3 … per user without gaps.
        A cid not above the highest one answered is a repeat, unless it lies in a gap (brokerd.links.gaps): an entry whose `prev`
        is above that mark leaves mark+1..prev open.
        RECEIPT entries are taken up to twice the bound of the queue; SENT and READ_SYNC entries are left out as REPEAT
        for a user with fewer than two known devices.
        """

    async def leave_open(self, user: str, origin: bytes, cid: int, now_ms: int) -> None:
        """The entry (origin, cid) was not taken and later ones may be: it can still be appended. Without effect when it
        was answered, has no cid (a key stays open by itself), or there is no such user."""

    async def acknowledge(self, acks: Sequence[Ack], now_ms: int) -> list[Acked]:
        """Move cursors forward (never back, never over head) and trim what every known device has processed.

        An ack of a device that is not known is ignored, and one of another generation than the queue's: it waited while
        the queue was made anew, and would trim what nobody has seen.
        """

    async def open(self, user: str, device: str, fresh_generation: bytes, now_ms: int) -> Opened:
        """Make the user (if new) and the device known, and say where it stands. `fresh_generation` is used if new.

        Devices that did not log in within the retention are forgotten here: they no longer hold entries back.
        """

    async def read(self, user: str, after: int, count_max: int, bytes_max: int) -> Page:
        """The entries behind seq `after`: at least one if there is one, else at most count_max and about bytes_max."""

    async def heads(self, users: Sequence[str]) -> list[int]:
        """The newest seq of each user (0: none)."""

    async def note_trouble(self, user: str, device: str, reason: int, at_ms: int) -> None:
        """Keep why delivery to a device last stopped, and how often it did (attempts). Cleared by nothing but removal."""

    async def expired(self, user: str, now_ms: int, count_max: int) -> list[Owed]:
        """Entries whose time is over and which are not yet tombstones, oldest first, for receipts to their senders.

        What is given with Flag.RECEIPT is EXPIRING from now on, and is given again until it is buried. Entries of type
        DELIVER whose seq every device acknowledged are never among them, nor are those whose receipts an ack made due.
        """

    async def bury(self, user: str, seqs: Sequence[int], reason: int, now_ms: int) -> None:
        """Turn these entries into tombstones (their bodies are freed, their seqs stay), trim what is tombstones only at
        the front, and settle when the user is next due for a sweep."""

    async def due(self, now_ms: int, count_max: int) -> list[str]:
        """Users who have something that may have expired. A user stays due until bury or a later append moves it."""

    async def create_user(self, user: str, fresh_generation: bytes, now_ms: int) -> bool:
        """Make a user known. False when it was."""

    async def delete_user(self, user: str) -> bool:
        """Forget a user with queue, cursors and dedupe. False when there was none."""

    async def has_user(self, user: str) -> bool:
        """Whether the user exists."""

    async def status(self, user: str) -> QueueStatus | None:
        """The state of a user's queue, None when there is no such user."""


# --- the register --------------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """One entry of the register as it is written there, for people: also of a node that is gone. An entry that nobody can
    read has neither node nor session. `lease_ms` is how long its node's lease still lives; 0: nobody sees the entry."""

    device: str
    node: str
    session: str
    lease_ms: int


class Register(Protocol):
    """Who is on which node. An entry frees itself within one lease of its node's death. Raises LinkDown."""

    async def claim(self, user: str, seat: Seat, former: Seat | None = None) -> Seat | None:
        """Put the seat in for its device; give the one it replaced. The newest claim wins.

        With `former`, the seat that this session had, it only takes that seat's place or an empty one: when another
        stands there, nothing is changed, and that one is given (None: it was done).
        """

    async def release(self, user: str, seat: Seat) -> bool:
        """Take the seat out if it is still exactly this one (compare and delete)."""

    async def seats(self, users: Sequence[str]) -> list[list[Seat]]:
        """The seats of each user on nodes whose lease lives. One round trip."""

    async def rows(self, user: str) -> list[Row]:
        """All that is written of a user, by device. A round trip for each node as well: it is for chatctl."""

    async def renew_lease(self, node: str, ttl_ms: int) -> bool:
        """Say that the node lives for another ttl. False: it had no lease any more, so that its seats were not seen."""

    async def drop_lease(self, node: str) -> None:
        """Say that the node is gone (a clean stop)."""


class Entered(NamedTuple):
    """What a claim and an opening gave together."""

    other: Seat | None  # see Register.claim
    opened: Opened
    seats: Sequence[Seat]  # the user's: on the claiming node, and on others whose lease lives


class Entrance(Protocol):
    """Register and SentQueue, where a session asks both: a login, and its end. Raises LinkDown; then each step may have been
    carried out or not."""

    async def enter(
        self, user: str, seat: Seat, former: Seat | None, fresh_generation: bytes, now_ms: int
    ) -> Entered:  # fmt: skip
        """Register.claim, SentQueue.open and Register.seats, in this order."""

    async def leave(self, places: Sequence[tuple[str, Seat]]) -> None:
        """Register.release for each (user, seat)."""


# --- queues --------------------------------------------------------------------------------------------------------


class Delivery(NamedTuple):
    """One batch off a shard. Call `done` once, after the work is safe: it acknowledges it. Batches of one shard are
    acknowledged in order. After the link broke, `done` does nothing (the batch comes again)."""

    shard: int
    body: Batch
    redelivered: bool
    done: Callable[[], None]


class Inbound(Protocol):
    """chatd's and brokerd's way to the shards: durable, ordered per poster and shard."""

    @property
    def is_ready(self) -> bool:
        """Whether a post would be taken now (connected, not blocked by an alarm)."""

    def post(self, shard: int, batch: Batch) -> asyncio.Future[None]:
        """Begin to post; posts of one shard are taken in the order of the calls. Done = durable.

        The future fails with PostRefused (surely not taken). While the link is down the batches that were begun are
        kept and posted again in order after the reconnect, before anything newer: their future waits.
        Raises LinkDown at once when `is_ready` is False.
        """


class Shards(Protocol):
    """brokerd's way to consume."""

    async def consume(self, shard: int, take: Callable[[Delivery], None]) -> None:
        """Call `take` for every batch of the shard, from now on, also after reconnects. One consumer is active on a
        shard at a time in the whole cluster; the others wait for it to go."""

    def bury(self, delivery: Delivery, reason: str) -> asyncio.Future[None]:
        """Put a batch that cannot be decoded into the dead-letter queue, with its reason. Then call its `done`."""


class Nodes(Protocol):
    """The way to the nodes: not durable. What is lost here is found by its seq."""

    def hand(self, node: str, batch: bytes) -> None:
        """Send a batch of parcels to a node. Never waits; while the link is down some are kept for later, within bounds."""

    def on_absent(self, told: Callable[[str], None]) -> None:
        """`told(node)` is called when a node turned out to have no queue: its seats are stale."""


class NodeInbox(Protocol):
    """chatd's own queue of parcels. Exclusive to this node; gone when the node is gone."""

    async def open(self, node: str, take: Callable[[bytes], None], on_gap: Callable[[], None]) -> None:
        """Call `take` for every batch from now on. `on_gap` when batches may have been lost (the link broke and came
        back): every session must catch up."""
