"""A session decides. Bytes, deliveries, answers and time go in; frames for its own peer and effects for others come out.

Nothing here waits, and nothing here knows a socket, Redis or RabbitMQ: switchboard.py performs the effects. What is
delivered, and when, is the feed's business (feed.py); this is logging in, sending, and what the peer may ask.
Spec: protocol/SPEC.md §4, §6, §10.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from brokerd.ports import Opened, Page
from chatd import effects as do
from chatd.brake import IN_FLIGHT_MAX, SHARE_MIN, Share
from chatd.feed import Feed
from chatd.full import FullHints
from chatd.ports import Identity
from chatd.posts import COPIES, Origin, Untaken, message_copy, message_post, read_copy, read_post, signal_post
from chatd.refusals import Refusals
from protocol.connection import Closing, Event, ServerConnection
from protocol.envelope import EntryPost
from protocol.errors import Code
from protocol.messages import Accepted, Ack, Bye, Credit, GoAway, Hello, Ping, Pong, Read, Send, Signal, Welcome
from protocol.names import NAME_ALLOWED, device_tag, is_name, message_id
from protocol.states import State
from protocol.wire import ACCEPTED_CIDS_MAX, FEATURES, TTL_S_MAX, VERSION_MINOR, Limits, Processed

BUSY_RETRY_MS: Final = 1000
RECEIVERS_MAX: Final = 4096  # in Untaken; then reading waits until all is answered
REFUSED_MUCH: Final = "too many refused requests: reconnect later, and resend what has no answer"
QUEUE_ANEW: Final = "the queue was made anew: log in again"  # the store came back with less than it had said


class Session:
    """One live connection of one device, from its first byte to its last. Take `effects` after every call."""

    def __init__(self, conn: ServerConnection, id_: str, gate: do.Gate) -> None:
        self.conn = conn
        self.id = id_
        self.effects: list[do.Effect] = []
        self.feed = Feed(conn, self.effects)
        self.full = FullHints()
        self.user = ""  # set at login, with device
        self.device = ""
        self.expires_s: float | None = None  # Unix time at which the credentials end
        self.devices = 1  # known devices of the user: more than one want copies of what is sent
        self.generation = b""  # of the queue that this session counts in
        self.unaccepted = 0
        self.last_cid = 0  # the largest cid taken in this session
        self._news = 0  # cids that were the largest yet
        self.accepted_cid = 0
        self._gate = gate
        self._share = Share(gate.brake)
        self._limits: Limits = conn.limits
        self._origin = Origin("", b"")
        self.is_holding = False  # reading from the peer waits for answers
        self._is_clear = False  # see _take_send
        self._burst: list[EntryPost] | None = None  # the last effect's, while a burst goes on
        self._now_s = 0.0  # of the newest read
        self._untaken = Untaken()
        self._refused = Refusals()
        self._asked_at: int | None = None  # our position when the newest seq was asked for; None: not asked

    def take_effects(self) -> list[do.Effect]:
        """What is to be done now, in order."""
        effects = self.effects[:]
        self.effects.clear()
        return effects

    # --- from the peer

    def receive(self, data: bytes, now_s: float, now_ms: int) -> None:
        """Bytes off the transport."""
        self._now_s = now_s
        self._take_all(self.conn.receive(data, now_s), now_ms)
        if not self.is_holding and not self._has_room():
            self.is_holding = True
            self.effects.append(do.HoldReading())

    def _take_all(self, events: list[Event], now_ms: int) -> None:
        self._is_clear = len(events) > 1 and self._looks_clear()
        self._burst = None
        for event in events:
            if type(event) is Send:
                self._take_send(event, now_ms)
                continue
            self._burst = None  # what is decided in between is performed in between
            if type(event) is Ack:
                self._take_ack(event)
            else:
                self._take(event, now_ms)

    def _take(self, event: Event, now_ms: int) -> None:
        match event:
            case Read():
                self._take_read(event, now_ms)
            case Signal():
                self._take_signal(event)
            case Ping():
                self._asked_at = self.feed.expected - 1 if self._asked_at is None else self._asked_at
                self.effects.append(do.AskHead())
            case Credit():
                self._take_credit(event)
            case Hello():
                self._take_hello(event)
            case Closing():
                self.effects.append(do.Close(event.code, event.detail))
            case Bye():
                self.effects.append(do.Close(None, "bye"))
            case _:
                pass  # PONG: any frame counts as life; Refused: already answered

    def _take_hello(self, hello: Hello) -> None:
        if is_name(hello.device) and (is_name(hello.user) or hello.user == ""):
            self.effects.append(do.Login(hello))
        else:
            self.fail(Code.BAD_NAME, f"user and device are {NAME_ALLOWED}")

    def _take_send(self, send: Send, now_ms: int) -> None:
        cid, flags, to, payload, ttl_s = send
        before = self._untaken.get(to) if self._is_clear else None
        if before is None or cid <= self.last_cid or ttl_s is not None:
            self._burst = None
            self._take_single(send, now_ms)
            return
        # one more of a burst to the same receiver, with nothing in its way: what _take_single looks at was looked at
        self.last_cid = self._untaken[to] = cid
        self._news += 1
        self.unaccepted += 1
        self._gate.in_flight += 1
        by = self._origin
        post = message_post(by, cid, to, message_id(by.tag, cid), flags, payload, None, now_ms, before)
        if self._burst is None:
            self._burst = []
            self.effects.append(do.PostBurst(self._burst))
        self._burst.append(post)

    def _looks_clear(self) -> bool:
        """Whether nothing but its own fault keeps a message of this read from being posted, without a copy: for a whole read,
        since what a session refuses for a while it refuses only when it was not clear before."""
        is_held = not self._gate.is_open or self._gate.brake.is_on or len(self._refused) or len(self.full)
        return not is_held and self.devices < 2 and self.feed.unread < self._limits.unread_max

    def _take_single(self, send: Send, now_ms: int) -> None:
        cid, flags, to, payload, ttl_s = send
        if not self._may_post(cid, to):
            return
        if ttl_s is not None and not 0 < ttl_s <= TTL_S_MAX:
            self._refuse(cid, Code.BAD_REQUEST, f"ttl_s is {ttl_s}; 1..{TTL_S_MAX} is allowed")
            return
        by = self._origin
        id_ = message_id(by.tag, cid)
        copy = None
        if self._wants_copy(to):
            copy = message_copy(by, cid, to, id_, flags, payload, now_ms, self._untaken.before(cid, COPIES))
        post = message_post(by, cid, to, id_, flags, payload, ttl_s, now_ms, self._untaken.before(cid, to))
        self._count_unaccepted(to)
        self.effects.append(do.PostEntry(cid, post, copy))

    def _take_read(self, read: Read, now_ms: int) -> None:
        cid, _, to, ids = read
        if self._may_post(cid, to):
            by = self._origin
            copy = (
                read_copy(by, cid, to, ids, now_ms, self._untaken.before(cid, COPIES)) if self._wants_copy(to) else None
            )
            self._count_unaccepted(to)
            self.effects.append(
                do.PostEntry(cid, read_post(by, cid, to, ids, now_ms, self._untaken.before(cid, to)), copy)
            )

    def _take_signal(self, signal: Signal) -> None:
        if not is_name(signal.to):
            self._refuse(0, Code.BAD_RECEIVER, NAME_ALLOWED)
        elif self._gate.is_open:
            self.effects.append(do.PostSignal(signal_post(self._origin, signal.to, signal.payload)))

    def _wants_copy(self, to: str) -> bool:
        """My other devices are told what I send, but for what I send to myself: they get that anyway."""
        return self.devices > 1 and to != self.user

    def _may_post(self, cid: int, to: str) -> bool:
        if self._refused.are_too_many:
            return False  # this session ends
        is_new = cid > self.last_cid
        if is_new:
            self.last_cid = cid
            self._news += 1
        elif cid not in self._refused:
            self._refuse(cid, Code.BAD_CID, f"cid {cid} after {self.last_cid}")
            return False
        if not is_name(to):
            self._refuse(cid, Code.BAD_RECEIVER, NAME_ALLOWED)
            return False
        is_busy = not self._gate.is_open or self._refused.hold_back(cid, self._now_s)
        if is_busy:
            if not self._refused.note(cid):
                self.fail(Code.INTERNAL, REFUSED_MUCH)
            if not self._gate.is_open:
                self._refused.keep_order(self._now_s)
        else:
            self._refused.discard(cid)
            # What an earlier session took without an answer comes first, and may not be refused: no more than it held
            is_exempt = not is_new or self._news <= self._limits.unaccepted_max
            if is_exempt or (self.feed.unread < self._limits.unread_max and not self.full.has(to, self._now_s)):
                return True  # else it would come back, and perhaps to a queue without room for that
        self._untaken.before(cid, to)  # it may come again, behind later ones: the refusal may be lost
        if self._wants_copy(to):
            self._untaken.before(cid, COPIES)
        self._refuse(cid, Code.BUSY if is_busy else Code.QUEUE_FULL, "", retry_after_ms=is_busy * BUSY_RETRY_MS)
        return False

    def _count_unaccepted(self, to: str) -> None:
        self.unaccepted += 1
        self._gate.in_flight += 1
        if self._gate.brake.is_on:
            self._share.take(to)

    def _has_room(self) -> bool:
        """Whether more may be read from the peer."""
        is_over_share = self.unaccepted >= SHARE_MIN and self._gate.in_flight >= IN_FLIGHT_MAX
        has_place = len(self._untaken) < RECEIVERS_MAX or self.unaccepted == 0
        is_over = is_over_share or not has_place or self.unaccepted >= self._limits.unaccepted_max
        return not (is_over or self._share.is_used_up())

    def _take_ack(self, ack: Ack) -> None:
        if ack.ref >= self.feed.expected:
            self._refuse(ack.ref, Code.BAD_ACK, f"ack {ack.ref}, delivered up to {self.feed.expected - 1}")
        elif self.feed.ack(ack.ref):
            self.effects.append(do.Acknowledge(ack.ref))

    def _take_credit(self, credit: Credit) -> None:
        most = self.feed.acked + self._limits.credit_max
        if credit.ref > most:
            self._refuse(credit.ref, Code.BAD_ACK, f"credit {credit.ref}, at most {most} now")
        else:
            self.feed.grant(credit.ref)

    # --- login and the end

    def logged_in(
        self, hello: Hello, identity: Identity, opened: Opened, *, node: str, now_s: float, now_ms: int
    ) -> None:
        """The register entry is ours and the queue is open: WELCOME, then what waits."""
        self.expires_s = identity.expires_s
        self.hear_devices(opened.devices)
        self.generation = opened.generation
        self._origin = Origin(self.user, device_tag(self.user, self.device))
        known = hello.ref if hello.generation == opened.generation and hello.ref <= opened.head else 0
        acked = max(opened.cursor, known)
        limits = self._limits
        credit = min(hello.credit, limits.credit_max)
        self.conn.welcome(
            Welcome(
                opened.head, 0, VERSION_MINOR, tuple(f for f in FEATURES if f in hello.features), node, self.id, now_ms,
                self._origin.tag, acked, opened.generation, limits.body_bytes_max, int(limits.keepalive_s * 1000),
                limits.unaccepted_max, credit,
            ),
            now_s,
        )  # fmt: skip
        if acked > opened.cursor:
            self.effects.append(do.Acknowledge(acked))
        self.feed.open(acked, opened.head, credit)

    def fail(self, code: Code, detail: str = "", *, retry_after_ms: int = 0) -> None:
        """End the session with a code that closes (a refused login, REPLACED, REVOKED, SLOW_READER …)."""
        if not self.conn.is_over:
            closing = self.conn.fail(code, detail, retry_after_ms=retry_after_ms)
            self.effects.append(do.Close(closing.code, closing.detail))

    def go_away(self, after_ms_min: int, after_ms_max: int) -> None:
        """Tell the peer that this node stops."""
        if self.is_open:
            self.conn.send(GoAway(self.accepted_cid, 0, int(Code.GOING_AWAY), after_ms_min, after_ms_max))

    @property
    def is_open(self) -> bool:
        """Logged in, and not over."""
        return self.conn.state is State.OPEN

    # --- answers to what was posted

    def accepted(self, cids: Sequence[int]) -> None:
        """These are durable. One frame for all of them."""
        self._answered(len(cids))
        if not self.is_open:
            return
        for at in range(0, len(cids), ACCEPTED_CIDS_MAX):
            part = tuple(cids[at : at + ACCEPTED_CIDS_MAX])
            top = max(part)
            self.accepted_cid = max(self.accepted_cid, top)
            self.conn.send(Accepted(top, 0, part))

    def refused(self, cid: int, code: Code, processed: Processed, retry_after_ms: int, now_s: float) -> None:
        """The queue did not take it, and the peer may send it again under its cid. When nobody knows whether it did, the
        session ends: the client resends it at the next login, and the queue tells a repeat from a new one."""
        if processed is not Processed.UNKNOWN:
            self._refused.keep_order(now_s)
            if not self._refused.note(cid):
                self.fail(Code.INTERNAL, REFUSED_MUCH)
        self._answered(1)
        if processed is Processed.UNKNOWN:
            self.fail(Code.INTERNAL, "whether the last messages were accepted is unknown: reconnect and resend")
        elif self.is_open:
            self.conn.refuse(cid, self._gate.refusing(code), processed=processed, retry_after_ms=retry_after_ms)

    def _answered(self, count: int) -> None:
        self.unaccepted -= count
        self._gate.in_flight -= count
        if self.unaccepted == 0:  # so all that was posted is taken, but for what was refused
            if not len(self._refused):
                self._untaken.clear()
            elif len(self._untaken) >= RECEIVERS_MAX:
                self.fail(Code.INTERNAL, REFUSED_MUCH)
        self.look_again()

    def look_again(self) -> None:
        """There may be room for what the peer says."""
        if self.is_holding and self._has_room():
            self.is_holding = False
            self.effects.append(do.ResumeReading())

    def _refuse(self, ref: int, code: Code, detail: str, *, retry_after_ms: int = 0) -> None:
        self.conn.refuse(ref, self._gate.refusing(code), detail=detail, retry_after_ms=retry_after_ms)

    # --- from the back room

    def push(self, first: int, last: int, frames: bytes) -> None:
        """Frames of seqs first..last. Before WELCOME they only show that something waits."""
        if not self.conn.is_over:  # the transport of a session that is over may stay for a moment
            self.feed.push(first, last, frames)

    def signal(self, frames: bytes) -> None:
        """Ephemeral frames: shed first when the peer reads slowly."""
        if self.is_open and self.feed.is_writable:
            self.conn.send_frames(frames)

    def hear_devices(self, count: int) -> None:
        """The user has so many known devices. It may be told out of order: the largest counts, a copy too many is left out."""
        self.devices = max(self.devices, count)

    def reaches(self, head: int) -> None:
        """The queue reaches up to `head`."""
        if self.is_open:
            self.feed.reaches(head)

    def reopened(self, opened: Opened) -> None:
        """The register entry was put back and the queue opened once more: hand-overs may have been lost meanwhile."""
        self.hear_devices(opened.devices)
        if not self.is_open:
            return
        if opened.generation != self.generation:
            self.fail(Code.STORE_DOWN, QUEUE_ANEW)
        else:
            self.feed.doubt()

    def head_told(self, head: int | None, now_ms: int) -> None:
        """The answer to AskHead: the PING is answered, a position that is behind is repaired. None: nobody knows.

        What was delivered since the question may be newer than the answer: only an answer behind the position at the
        question shows that the queue went back.
        """
        asked_at, self._asked_at = self._asked_at, None
        if self.is_open:
            self.conn.send(Pong(head or 0, 0, head is not None, now_ms))
            if head is not None and head < (asked_at or 0):
                self.fail(Code.STORE_DOWN, QUEUE_ANEW)
            elif head is not None:
                self.feed.reaches(head)

    def page(self, page: Page) -> None:
        """What ReadQueue asked for."""
        if self.is_open and not self.feed.page(page):
            self.fail(Code.STORE_DOWN, QUEUE_ANEW)

    def read_again(self) -> None:
        """ReadQueue failed; the store is back."""
        if self.is_open:
            self.feed.retry()

    # --- the transport and time

    def set_writable(self, writable: bool) -> None:
        """The transport's buffer passed its high or low mark."""
        if self.is_open:
            self.feed.set_writable(writable)
        else:
            self.feed.is_writable = writable

    def tick(self, now_s: float) -> None:
        """Time passed."""
        if self.is_holding:
            self.conn.excuse(now_s)
        for event in self.conn.tick(now_s):
            if isinstance(event, Closing):
                self.effects.append(do.Close(event.code, event.detail))
