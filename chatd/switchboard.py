"""The switchboard performs what sessions decide, and does nothing else.

Everything that one loop turn brought (bytes, hand-overs, confirms) changes sessions at once; what it costs to tell others
is paid at the end of the turn, together: one post a shard, one look-up for all PINGs, one write a socket.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

from brokerd.crash_points import crash_point
from brokerd.ports import Ack, Entrance, Inbound, Nodes, Register, SentQueue
from brokerd.tracing import HopBuffer, Sample
from chatd.brake import SLOT_S
from chatd.effects import (
    Acknowledge,
    AskHead,
    Close,
    Gate,
    HoldReading,
    Login,
    PostBurst,
    PostEntry,
    PostSignal,
    ReadQueue,
    ResumeReading,
)
from chatd.entrance import InTurn
from chatd.line import Line
from chatd.logins import Logins
from chatd.pace import Pace
from chatd.pages import Pages
from chatd.ports import Accounts, Wire
from chatd.postbox import Postbox
from chatd.roster import Roster
from chatd.session import Session
from chatd.tracer import NodeTracer
from protocol.connection import ServerConnection
from protocol.envelope import PostKind, TroublePost
from protocol.errors import Code
from protocol.wire import Limits

PAUSED_S_MAX: Final = 60.0  # a peer that took nothing for so long is closed (SLOW_READER)
PING_USERS_MAX: Final = 1000  # in one look-up
# The one thing that lingers, for a message that goes to the same shard: see Postbox.ack.
ACK_WAIT_S: Final = 0.1

_ack_read = crash_point("chatd.ack_read")


@dataclass(slots=True)
class Counts:
    """What this node did since it started."""

    connections: int = 0
    logins: int = 0
    logins_refused: int = 0
    accepted: int = 0
    refused: int = 0
    delivered: int = 0
    acks: int = 0
    pages: int = 0
    gaps: int = 0
    replaced: int = 0
    slow_readers: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


class Switchboard:
    """All sessions of a node. Methods are called from the event loop; slow things run as tasks of `tasks`."""

    def __init__(
        self,
        node: str,
        *,
        shards: int,
        inbound: Inbound,
        nodes: Nodes,
        sent_queue: SentQueue,
        register: Register,
        accounts: Accounts,
        limits: Limits,
        outbox_bytes_max: int,
        connections_max: int,
        tasks: asyncio.TaskGroup,
        log: Any,
        store_fault: Callable[[], str] = lambda: "",
        tracer: NodeTracer | None = None,
        entrance: Entrance | None = None,
        pace_s: float = 0.0,
    ) -> None:
        """`store_fault()` says what became of the store that was known, while another stands in its place. `entrance`: of a
        store that has register and sent_queue. `pace_s`: see chatd/pace.py, with one message for each shard."""
        self.node = node
        self.store_fault = store_fault
        self.take_over(limits, outbox_bytes_max, connections_max)
        self.counts = Counts()
        self.roster = Roster()
        self.gate = Gate(shards)
        self.lines: set[Line] = set()
        self.tracer = tracer or NodeTracer(node, Sample(0), HopBuffer(None, log), self.now_ms)
        self._loop = asyncio.get_running_loop()
        self.now_s: Callable[[], float] = self._loop.time
        self.postbox = Postbox(node, shards, inbound, self.gate, self.wake, self.tracer, self.now_s)
        self.sent_queue, self.register, self.nodes = sent_queue, register, nodes
        self.entrance = entrance or InTurn(register, sent_queue)
        self.log = log
        self.is_draining = False
        self.lease_ends_s = math.inf  # by our own clock
        self._tasks = tasks
        self.logins = Logins(self, accounts)
        self._pages = Pages(self)
        self._dirty: set[Line] = set()
        self._pinged: list[Line] = []
        self._acked: dict[tuple[str, str, bytes], int] = {}  # while the store is full; for ACK_WAIT_S at most
        self._ids = itertools.count(1)
        self._pace = Pace(pace_s, shards)
        # something is on its way: for ACKs that wait in the postbox, the next flush, the brake's next slot, the end of the turn
        self._is_aging = self._is_pacing = self._is_braking = self._woken = False
        self._perform: dict[type, Callable[[Line, Any], None]] = {
            PostEntry: self.postbox.post,
            PostBurst: self.postbox.post_burst,
            Acknowledge: self._acknowledge,
            ReadQueue: self._read_queue,
            AskHead: self._ask_head,
            PostSignal: self._post_signal,
            Login: self._login,
            HoldReading: lambda line, _: line.wire.pause_reading(),
            ResumeReading: self._resume_reading,
            Close: self._close,
        }

    def take_over(self, limits: Limits, outbox_bytes_max: int, connections_max: int) -> None:
        """These limits, for sessions that begin from now on; what may wait for a slow reader, for all of them."""
        self.limits = limits
        self._outbox_bytes_max = outbox_bytes_max
        self._connections_max = connections_max

    @staticmethod
    def now_ms() -> int:
        """Wall clock: for time stamps and expiry only, never for deadlines."""
        return time.time_ns() // 1_000_000

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something slow beside the turn; its failure is the node's failure."""
        self._tasks.create_task(work)

    @property
    def is_doubtful(self) -> bool:
        """We did not renew our lease in time (frozen, or cut off): our seats are not seen, our users may have gone elsewhere.
        Until it is renewed and every seat was claimed back nothing is delivered here."""
        return self.now_s() > self.lease_ends_s

    # --- lines come and go

    def enter(self, wire: Wire, peer: str, *, preface: bool) -> Line | None:
        """chatd.ports.Door: a transport was accepted."""
        if self.is_draining or len(self.lines) >= self._connections_max:
            return None
        conn = ServerConnection(self.limits, now_s=self.now_s(), preface=preface)
        session = Session(conn, f"{next(self._ids):x}", self.gate)
        line = Line(wire, peer, session, self, self.log)
        self.lines.add(line)
        self.counts.connections += 1
        return line

    def lost(self, line: Line, reason: str) -> None:
        """The transport is gone: so is the session. What waits for the device waits on, with its status."""
        self.lines.discard(line)
        self._dirty.discard(line)
        self._pages.lost(line)
        session = line.session
        code, detail = line.closing or (None, reason)
        if not session.user:
            return
        self.roster.remove(line)
        self.tracer.lost(line, int(code or 0), detail)
        if session.feed.is_behind:
            why = int(code or Code.SILENT)
            self.postbox.trouble(TroublePost(PostKind.TROUBLE, session.user, session.device, why, self.now_ms()))
            self.wake()
        self.logins.see_off(line, code, detail)

    # --- the end of a turn

    def attend(self, line: Line) -> None:
        """A session may have decided something: perform it now, write at the end of the turn."""
        session = line.session
        while session.effects:  # performing may decide more
            for effect in session.take_effects():
                self._perform[type(effect)](line, effect)
        if not line.is_lost:
            self._dirty.add(line)
            if not self._woken:
                self.wake()

    def wake(self) -> None:
        """Ask for an end of turn."""
        if not self._woken:
            self._woken = True
            self._loop.call_soon(self._end_turn)

    def _end_turn(self) -> None:
        self._woken = False
        self._flush()
        if self._pinged:
            lines, self._pinged = self._pinged[:PING_USERS_MAX], self._pinged[PING_USERS_MAX:]
            self.spawn(self.logins.look_up(lines))
        if self._dirty:
            dirty, self._dirty = self._dirty, set()
            for line in dirty:
                self._write(line)

    def _flush(self) -> None:
        wait_s = self._pace.wait_s(self.now_s())
        if wait_s == 0.0:
            if posts := self.postbox.flush():
                self._pace.took(posts, self.now_s())
        elif not self._is_pacing:
            self._is_pacing = True
            self._loop.call_later(wait_s, self._flush_late)

    def _flush_late(self) -> None:
        self._is_pacing = False
        self.wake()

    def _write(self, line: Line) -> None:
        chunks = line.session.conn.bytes_to_send()
        if chunks:
            self.counts.bytes_out += len(chunks[0]) if len(chunks) == 1 else sum(map(len, chunks))
            line.wire.write(chunks)
            if line.closing is None and line.wire.pending_bytes() > self._outbox_bytes_max:
                self._close_slow(line)
        if line.closing is not None:
            line.wire.close(*line.closing)

    def _close_slow(self, line: Line) -> None:
        self.counts.slow_readers += 1
        line.session.fail(Code.SLOW_READER)
        self.attend(line)

    # --- effects

    def _acknowledge(self, line: Line, effect: Acknowledge) -> None:
        _ack_read()
        self.counts.acks += 1
        session = line.session
        self.postbox.ack(session.user, session.device, effect.seq, session.generation)
        if self.tracer.watched:
            self.tracer.acked(line, effect.seq)
        if self.gate.store_full:
            if not self._acked:
                self._loop.call_later(ACK_WAIT_S, self._acknowledge_now)
            self._acked[session.user, session.device, session.generation] = effect.seq
        if not self._is_aging:
            self._is_aging = True
            self._loop.call_later(ACK_WAIT_S / 2, self._age_acks)

    def _age_acks(self) -> None:
        self._is_aging = self.postbox.age_acks()
        if self._is_aging:
            self._loop.call_later(ACK_WAIT_S / 2, self._age_acks)
        self.wake()

    def _acknowledge_now(self) -> None:
        """The store is full, and ACKs make room in it; in their shard they may stand behind messages that wait for it.
        So they go there directly as well."""
        acked, self._acked = self._acked, {}
        acks = [Ack(user, device, seq, 0, generation) for (user, device, generation), seq in acked.items()]
        self.spawn(self._pages.acknowledge(acks))

    @property
    def is_idle(self) -> bool:
        """Nothing waits to be posted, and nothing is on its way."""
        return self.postbox.is_idle

    def _post_signal(self, line: Line, effect: PostSignal) -> None:
        self.postbox.signal(effect.post)

    def _login(self, line: Line, effect: Login) -> None:
        line.wire.greeted()
        self.spawn(self.logins.login(line, effect.hello))

    def _ask_head(self, line: Line, effect: AskHead) -> None:
        self._pinged.append(line)
        self.wake()

    def _resume_reading(self, line: Line, effect: ResumeReading) -> None:
        if line.paused_s is None:
            line.wire.resume_reading()

    def _close(self, line: Line, effect: Close) -> None:
        if line.closing is None:
            line.closing = (effect.code, effect.detail)

    def _read_queue(self, line: Line, effect: ReadQueue) -> None:
        self.counts.pages += 1
        self.spawn(self._pages.read(line, effect))

    # --- time

    def stamp_back(self, shard: int, stamp: int) -> None:
        """brokerd took the batch with this stamp: see chatd/brake.py."""
        if self.gate.brake.told(shard, stamp, self.now_s()):
            self._read_on()
        if self.gate.brake.is_on and not self._is_braking:
            self._is_braking = True
            self._loop.call_later(SLOT_S, self._next_slot)

    def _next_slot(self) -> None:
        self.gate.brake.next_slot(self.now_s())
        self._read_on()
        self._is_braking = self.gate.brake.is_on
        if self._is_braking:
            self._loop.call_later(SLOT_S, self._next_slot)

    def _read_on(self) -> None:
        for line in [line for line in self.lines if line.session.is_holding]:
            line.session.look_again()
            self.attend(line)

    def tick(self) -> None:
        """Once a second: deadlines, slow readers, what waits for a link."""
        now_s = self.now_s()
        self.postbox.tick(now_s)
        for line in self._pages.take_stalled():
            line.session.read_again()
            self.attend(line)
        for line in tuple(self.lines):
            session = line.session
            if session.conn.next_deadline_s <= now_s:
                session.tick(now_s)
                self.attend(line)
            elif line.paused_s is not None and now_s - line.paused_s > PAUSED_S_MAX and line.closing is None:
                self._close_slow(line)
        self.logins.check_credentials(time.time())
        if fault := self.store_fault():
            self._fail_all(Code.STORE_CHANGED, fault)

    def _fail_all(self, code: Code, detail: str) -> None:
        for line in self.roster:
            line.session.fail(code, detail)
            self.attend(line)
