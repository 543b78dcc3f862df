"""The postbox: collects the posts of one loop turn by shard and posts each shard's as one batch.

It takes what is ready: `flush` runs once a turn, and at a pace when much is said (chatd/pace.py). While the queue cannot take more, posts wait here,
bounded; when it stays shut for SHUT_S_MAX the waiting ones are refused with BUSY (nothing is half-accepted) and the gate
closes, so that sessions refuse at once.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Final, Protocol

from brokerd.crash_points import WRITTEN_TURNS, crash_point
from brokerd.metrics import Sizes, Value
from brokerd.ports import Inbound, LinkDown, PostRefused
from chatd.auth.own import is_own
from chatd.effects import Gate, PostBurst, PostEntry
from chatd.tracer import NodeTracer
from protocol.envelope import (
    BATCH_BYTES_MAX,
    BATCH_ITEMS_MAX,
    AckPost,
    EntryPost,
    Post,
    PostBatch,
    PostKind,
    SignalPost,
    TroublePost,
)
from protocol.errors import Code
from protocol.names import shard_of
from protocol.wire import Processed

WAITING_POSTS_MAX: Final = 50_000  # of all shards; beyond it the gate closes
WAITING_BYTES_MAX: Final = 32 * 1024 * 1024
SHUT_S_MAX: Final = 1.0
REFUSED_RETRY_MS: Final = 1000
_ITEM_BYTES: Final = 160  # about what an item takes beside its body
_SHARDS_KNOWN_MAX: Final = 100_000

_before_publish = crash_point("chatd.before_publish")
_published = crash_point("chatd.published", turns=WRITTEN_TURNS)
_confirmed = crash_point("chatd.confirmed")


class Poster(Protocol):
    """Who posted: a line, or an HTTP request."""

    def accepted(self, cids: Sequence[int]) -> None:
        """These are durable."""

    def refused(self, cid: int, code: Code, processed: Processed, retry_after_ms: int) -> None:
        """This was not taken, or nobody knows (processed)."""


class Ticket:
    """One thing that somebody waits for: it is accepted when all its parts (the post, the copy) are durable. A post that is
    all there is, under its own cid, needs none: its Poster stands for it."""

    __slots__ = ("by", "cid", "parts", "whole")

    def __init__(self, by: Poster, cid: int, parts: int) -> None:
        self.by = by
        self.cid = cid
        self.parts = self.whole = parts


_Tickets = list[Ticket | Poster | None]


class _Pile:
    """What waits for one shard."""

    __slots__ = ("posts", "size", "tickets")

    def __init__(self) -> None:
        self.posts: list[Post] = []
        self.tickets: _Tickets = []
        self.size = 0


class Postbox:
    """One for a node. `flush` is called by the switchboard at the end of a turn."""

    def __init__(
        self, node: str, shards: int, inbound: Inbound, gate: Gate, wake: Callable[[], None], tracer: NodeTracer | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        """`wake()` asks for a `flush` at the end of this turn."""
        self._now_s = now_s
        self._tracer = tracer
        self._mask, self._want = (tracer.mask, tracer.want) if tracer is not None else (0, -1)
        self.batches = 0
        self.posted = 0
        self._sizes = Sizes(BATCH_ITEMS_MAX)
        self._node = node
        self._shards = shards
        self._inbound = inbound
        self._gate = gate
        self._wake = wake
        self._piles = [_Pile() for _ in range(shards)]
        self._shard_of: dict[str, int] = {}
        self._acks: list[dict[tuple[str, str, bytes], int]] = [{} for _ in range(shards)]
        self._aging: set[int] = set()  # shards whose acks were there at the last call of age_acks
        self._due: set[int] = set()  # shards whose acks wait for no message any more
        self._waiting = 0
        self._waiting_bytes = 0
        self._in_flight: dict[asyncio.Future[None], list[Post]] = {}
        self._shut_since_s: float | None = None

    # --- in

    def post(self, by: Poster, effect: PostEntry) -> None:
        """Take an entry, and its copy. `by` is answered once."""
        told_cid, post, copy = effect
        _, to, origin, cid, _, _, _, body, _ = post
        if (origin[0] ^ (cid or origin[-1])) & self._mask == self._want and self._tracer is not None:
            by = self._tracer.taken(by, post)  # one byte of its id says that it may be traced
        if copy is None and told_cid == cid:
            self._put(to, post, len(body), by)
            return
        ticket = Ticket(by, told_cid, 1 if copy is None else 2)
        self._put(to, post, len(body), ticket)
        if copy is not None:
            self._put(copy.to, copy, len(copy.body), ticket)

    def post_burst(self, by: Poster, effect: PostBurst) -> None:
        """Take entries that have no copies. `by` is answered for each."""
        for post in effect.posts:
            _, to, origin, cid, _, _, _, body, _ = post
            may_be_traced = (origin[0] ^ (cid or origin[-1])) & self._mask == self._want
            answers = self._tracer.taken(by, post) if may_be_traced and self._tracer is not None else by
            self._put(to, post, len(body), answers)

    def signal(self, post: SignalPost) -> None:
        """Take an ephemeral message."""
        self._put(post.to, post, len(post.body), None)

    def trouble(self, post: TroublePost) -> None:
        """Take a status: delivery to a device stopped."""
        self._put(post.user, post, 0, None)

    def ack(self, user: str, device: str, seq: int, generation: bytes) -> None:
        """Take an acknowledgement; a later one of the same device and queue takes its place. Bounded by the sessions there
        are.

        It leaves with the next message for its shard, or when age_acks was called twice: nobody waits for it (a lost one
        is repeated by the next), and alone it costs as much as a message.
        """
        self._acks[self._shard(user)][user, device, generation] = seq

    def age_acks(self) -> bool:
        """What waited at the last call leaves at the next flush. Whether to call again."""
        waiting = {shard for shard, acks in enumerate(self._acks) if acks}
        self._due |= self._aging & waiting
        self._aging = waiting - self._due
        return bool(self._aging)

    def _put(self, to: str, post: Post, size: int, ticket: Ticket | Poster | None) -> None:
        shard = self._shard_of.get(to)
        pile = self._piles[self._shard(to) if shard is None else shard]
        pile.posts.append(post)
        pile.tickets.append(ticket)
        size += _ITEM_BYTES
        pile.size += size
        self._waiting += 1
        self._waiting_bytes += size
        if self._waiting > WAITING_POSTS_MAX or self._waiting_bytes > WAITING_BYTES_MAX:
            self._gate.is_open = False

    def _shard(self, user: str) -> int:
        shard = self._shard_of.get(user)
        if shard is None:
            if len(self._shard_of) >= _SHARDS_KNOWN_MAX:
                self._shard_of.clear()
            shard = self._shard_of[user] = shard_of(user, self._shards)
        return shard

    # --- out

    def flush(self) -> int:
        """Post what waits, as far as the queue takes it. How many posts left."""
        before = self.posted
        for shard, pile in enumerate(self._piles):
            acks = self._acks[shard]
            if acks and (pile.posts or shard in self._due) and self._inbound.is_ready:
                self._acks[shard] = {}
                self._due.discard(shard)
                for (user, device, generation), seq in acks.items():
                    self._put(user, AckPost(PostKind.ACK, user, device, seq, generation), 0, None)
            while pile.posts and self._inbound.is_ready:
                self._post_pile(shard, pile)
        return self.posted - before

    def _post_pile(self, shard: int, pile: _Pile) -> None:
        posts, tickets, size = pile.posts, pile.tickets, pile.size
        if len(posts) > BATCH_ITEMS_MAX or size > BATCH_BYTES_MAX:
            count = _fitting(posts)
            size = sum(_size(post) for post in posts[:count])
            pile.posts, pile.tickets, pile.size = posts[count:], tickets[count:], pile.size - size
            posts, tickets = posts[:count], tickets[:count]
        else:
            pile.posts, pile.tickets, pile.size = [], [], 0
        _before_publish()
        try:
            brake = self._gate.brake
            stamp = brake.stamp(shard, self._now_s()) if brake.wants_stamp(shard, len(posts)) else 0
            future = self._inbound.post(shard, PostBatch(self._node, posts, size, stamp))
        except LinkDown:  # between the look at is_ready and now
            pile.posts, pile.tickets, pile.size = posts + pile.posts, tickets + pile.tickets, size + pile.size
            return
        _published()
        self._waiting -= len(posts)
        self._waiting_bytes -= size
        self.batches += 1
        self.posted += len(posts)
        self._sizes.of_bits[len(posts).bit_length()] += 1
        self._in_flight[future] = posts
        future.add_done_callback(lambda done: self._posted(done, posts, tickets))

    def _posted(self, future: asyncio.Future[None], posts: list[Post], tickets: _Tickets) -> None:
        del self._in_flight[future]
        self._shut_since_s = None  # it moves
        if not future.cancelled() and future.exception() is None:
            _confirmed()
            _accept(posts, tickets)
        elif not future.cancelled() and isinstance(future.exception(), PostRefused):
            _refuse(posts, tickets, Processed.NO)
            self._keep_acks(posts)
        else:
            _refuse(posts, tickets, Processed.UNKNOWN)
        self._wake()

    # --- time

    def tick(self, now_s: float) -> None:
        """Move the gate; refuse what has waited too long."""
        if self._inbound.is_ready:
            self._shut_since_s = None
            self.flush()
            has_room = self._waiting <= WAITING_POSTS_MAX // 2 and self._waiting_bytes <= WAITING_BYTES_MAX // 2
            self._gate.is_open = has_room and not self._gate.store_full
            return
        if self._shut_since_s is None:
            self._shut_since_s = now_s
        elif now_s - self._shut_since_s >= SHUT_S_MAX:
            self._gate.is_open = False
            self._refuse_waiting()

    def _refuse_waiting(self) -> None:
        piles = [(pile.posts, pile.tickets) for pile in self._piles]
        for pile in self._piles:
            self._keep_acks(pile.posts)
            pile.posts, pile.tickets, pile.size = [], [], 0
        self._waiting = self._waiting_bytes = 0
        left = Counter(ticket for _, tickets in piles for ticket in tickets if type(ticket) is Ticket)
        for posts, tickets in piles:
            _refuse(posts, tickets, Processed.NO, left)

    def _keep_acks(self, posts: Sequence[Post]) -> None:
        """Acknowledgements are not refused, they wait on: nobody would send them again."""
        for post in posts:
            if isinstance(post, AckPost):
                shard, key = self._shard(post.user), (post.user, post.device, post.generation)
                self._acks[shard][key] = max(post.seq, self._acks[shard].get(key, 0))
                self._due.add(shard)

    @property
    def is_idle(self) -> bool:
        """Nothing waits and nothing is on its way, but perhaps for chatd's own users: a drain waits for people."""
        if not (self._waiting or self._in_flight or any(self._acks)):
            return True
        posted = chain((pile.posts for pile in self._piles), self._in_flight.values())
        users = chain((user for acks in self._acks for user, _, _ in acks), (_user(post) for post in chain(*posted)))
        return all(map(is_own, users))

    def statistics(self) -> dict[str, int]:
        """Gauges and counters, for metrics."""
        return {
            "batches": self.batches,
            "posted": self.posted,
            "waiting": self._waiting,
            "waiting_bytes": self._waiting_bytes,
            "in_flight": len(self._in_flight),
            "stamps_back": self._gate.brake.stamps_back,
            "shards_behind": self._gate.brake.shards_behind,
        }

    def samples(self) -> dict[str, Value]:
        """The same, and how large the batches are."""
        return {**self.statistics(), "batch_posts": self._sizes.buckets(self.posted)}


def _user(post: Post) -> str:
    return post.to if isinstance(post, EntryPost | SignalPost) else post.user


def _size(post: Post) -> int:
    body = getattr(post, "body", b"")
    return len(body) + _ITEM_BYTES


def _fitting(posts: list[Post]) -> int:
    """How many of the first posts fit into one batch; at least one."""
    size = 0
    for count, post in enumerate(posts[:BATCH_ITEMS_MAX]):
        size += _size(post)
        if size > BATCH_BYTES_MAX and count:
            return count
    return min(len(posts), BATCH_ITEMS_MAX)


def _accept(posts: list[Post], tickets: _Tickets) -> None:
    """Answer everybody once, with all that is now durable."""
    answers: dict[Poster, list[int]] = {}
    last, cids = None, [0]
    for post, ticket in zip(posts, tickets, strict=True):
        if ticket is None:
            continue
        if isinstance(ticket, Ticket):
            ticket.parts -= 1
            if ticket.parts:
                continue
            by, cid = ticket.by, ticket.cid
        else:
            by, cid = ticket, post.cid  # type: ignore[union-attr] # only an EntryPost is answered
        if by is not last:
            last, cids = by, answers.setdefault(by, [])
        cids.append(cid)
    for by, cids in answers.items():
        by.accepted(cids)


def _refuse(
    posts: list[Post], tickets: _Tickets, processed: Processed, left: Mapping[Ticket, int] | None = None
) -> None:  # fmt: skip
    """These were not taken (or nobody knows). Of a ticket with a part elsewhere nobody knows the whole; `left` says how many
    parts of each are here."""
    for post, ticket in zip(posts, tickets, strict=True):
        if ticket is None:
            continue
        if isinstance(ticket, Ticket):
            known = processed if ticket.whole == (left[ticket] if left else 1) else Processed.UNKNOWN
            if ticket.parts > 0:
                ticket.parts = -1  # and it answers nobody any more
                ticket.by.refused(ticket.cid, Code.BUSY, known, REFUSED_RETRY_MS)
        else:
            ticket.refused(post.cid, Code.BUSY, processed, REFUSED_RETRY_MS)  # type: ignore[union-attr] # an EntryPost
