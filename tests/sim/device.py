"""A client of the simulated world: the cores of the Python client (protocol/client_core.py, connection.py), a memory that
outlives its connections, and habits that its seed decides.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from protocol.client_core import Fate, Incoming, Mark, Outgoing, Take, fate_of
from protocol.client_link import LATE_LOGIN_S_MAX
from protocol.connection import ClientConnection, Closing
from protocol.errors import ERRORS, Code
from protocol.messages import (
    Accepted,
    Ack,
    Bye,
    Deliver,
    Error,
    GoAway,
    Gone,
    Hello,
    Read,
    ReadSync,
    Receipt,
    Send,
    Sent,
    Signal,
    Signalled,
    Welcome,
)  # fmt: skip
from protocol.names import device_tag, message_id
from protocol.wire import FEATURES, Flag, Scheme, Type
from tests.sim.ledger import Broken, Said
from tests.sim.pipe import Pipe

UNANSWERED_MAX = 12


class Device:
    """One device of one user."""

    def __init__(self, world: Any, user: str, device: str, seed: int) -> None:
        self.user, self.device, self.name = user, device, f"{user}/{device}"
        self.tag = device_tag(user, device)
        self._world, self._loop, self._ledger = world, world.loop, world.ledger
        self.random = Random(seed)
        self.outgoing = Outgoing(1, ())
        self.place = Incoming(b"", 0)
        self.pipe: Pipe | None = None
        self._conn: ClientConnection | None = None
        self._hello_ref = 0
        self._given_up_s: float | None = None  # when we last gave up a login
        self._welcome_s = 0.0
        self._held_until_s = 0.0  # told BUSY: nothing leaves before
        self._ack_due = False
        self._emptied = 0  # how often the store was, as far as this device knows
        self.is_in = self.is_leaving = self.has_gone = False

    @property
    def is_quiet(self) -> bool:
        return not len(self.outgoing) and not self._ack_due

    # --- connections

    def connect(self) -> None:
        """To any node that lives; later when there is none."""
        node = self._world.any_node(self.random)
        pipe = Pipe(self._world, self, node, self.random.getrandbits(32)) if node is not None else None
        if pipe is None or pipe.line is None:
            self._loop.call_later(0.5, self.connect)
            return
        credit = 64 if self._world.shape.is_gentle else self.random.choice((2, 8, 64))
        place = self.place
        self._hello_ref = place.hello()
        hello = Hello(
            self._hello_ref, 0, 0, FEATURES, self.user, self.device, int(Scheme.PASSWORD), "secret",
            place.generation, credit, {},
        )  # fmt: skip
        self._ledger.processed(self.user, place.generation, place.processed)  # HELLO says so too
        self.pipe, self._conn = pipe, ClientConnection(hello, now_s=self._loop.time(), login_s_max=10.0)
        self._flush()
        self._tick(pipe)

    def _tick(self, pipe: Pipe) -> None:
        if pipe is not self.pipe or self._conn is None:
            return
        self._handle(pipe, self._conn.tick(self._loop.time()))
        if pipe is self.pipe:
            self._flush()
            self._loop.call_at(max(self._conn.next_deadline_s, self._loop.time() + 0.01), self._tick, pipe)

    def lost(self, pipe: Pipe) -> None:
        """The connection is gone: again, after a while."""
        if pipe is self.pipe:
            if not self.is_in:
                self._given_up_s = self._loop.time()
            self._forget()
            back_s = self._loop.time() + 0.1 + self.random.random() * 0.5
            self._loop.call_at(back_s, self.connect)
            self._world.on_doorstep(self.user, back_s)

    def _forget(self) -> None:
        self.pipe = self._conn = None
        self.is_in = self.is_leaving = False
        self.outgoing.lose_connection()

    def _drop(self, pipe: Pipe, why: str) -> None:
        self._ledger.note(b"", f"{self.name} goes: {why}")
        pipe.hang_up()
        self.lost(pipe)

    def leave(self, *, for_good: bool = False) -> None:
        """A clean good-bye, and back again."""
        if self.pipe is None or not self.is_in or self._conn is None:
            return
        pipe = self.pipe
        self._conn.send(Bye(0, 0))
        self._flush()
        if for_good:
            self.has_gone = True
            pipe.hang_up()
            self._forget()
        else:
            self._drop(pipe, "BYE")

    def _go_elsewhere(self, pipe: Pipe) -> None:
        if pipe is self.pipe:
            self.leave()

    def _flush(self) -> None:
        if self._conn is None or self.pipe is None:
            return
        if self.is_in and not self.is_leaving and self._loop.time() >= self._held_until_s:
            for request in self.outgoing.transmit(UNANSWERED_MAX):
                self._conn.send(request)
        data = b"".join(self._conn.bytes_to_send())
        if data:
            self._conn.spoke(self._loop.time())
            self.pipe.say(data)

    # --- sending

    def say(self, to: str, text: bytes, *, flags: int = 0, ttl_s: int | None = None) -> None:
        """A new message, now or at the next login."""
        expires_ms = self._loop.now_ms() + ttl_s * 1000 if ttl_s else 0
        wants = bool(flags & Flag.RECEIPT)
        self._request(
            Send(0, flags, to, text, ttl_s), Said(self.user, self.device, to, b"", text, wants, expires_ms, False)
        )

    def _read(self, message: Deliver) -> None:
        said = Said(self.user, self.device, message.sender, message.id, b"", False, 0, False)
        self._request(Read(0, 0, message.sender, (message.id,)), said)

    def _request(self, request: Send | Read, said: Said) -> None:
        numbered = self.outgoing.post(request)
        self._ledger.say(message_id(self.tag, numbered.ref), said)
        self._flush()

    def signal(self, to: str, text: bytes) -> None:
        """Something that may be lost."""
        if self.is_in and self._conn is not None:
            self._ledger.signals.add((to, text))
            self._conn.send(Signal(0, 0, to, text))
            self._flush()

    # --- hearing

    def receive(self, pipe: Pipe, data: bytes) -> None:
        """Bytes came."""
        if pipe is self.pipe and self._conn is not None:
            self._handle(pipe, self._conn.receive(data, self._loop.time()))
            if pipe is self.pipe:
                self._flush()

    def _handle(self, pipe: Pipe, events: list[Any]) -> None:
        for event in events:
            if pipe is not self.pipe:
                return
            take = _TAKES.get(type(event))
            if take is not None:
                take(self, pipe, event)

    def _welcome(self, pipe: Pipe, welcome: Welcome) -> None:
        assert self._conn is not None
        place = self.place
        may_differ = not place.generation or self._emptied != self._ledger.emptied or self._ledger.is_unsure
        if not may_differ and (welcome.generation, welcome.cursor) != (place.generation, self._hello_ref):
            raise Broken(f"{self.name} stood at {self._hello_ref}; WELCOME says {welcome.cursor} of {welcome.ref}")
        self._emptied = self._ledger.emptied if welcome.generation != place.generation else self._emptied
        place.welcome(welcome)
        self._ledger.enrol(self.user, self.device, welcome.cursor)
        self._conn.position = place.processed
        self._welcome_s, self.is_in = self._loop.time(), True
        self._ledger.note(
            b"", f"{self.name} is in at {pipe.node.process.name}, position {place.processed} of {welcome.ref}"
        )

    def _accepted(self, pipe: Pipe, accepted: Accepted) -> None:
        for cid in accepted.cids:
            if self.outgoing.answer(cid) is None:
                raise Broken(f"{self.name}: cid {cid} was answered twice", message_id(self.tag, cid))
            self._ledger.accepted(message_id(self.tag, cid))

    def _error(self, pipe: Pipe, error: Error) -> None:
        code = Code(error.code)
        if error.ref in self.outgoing.flight:
            fate = fate_of(error)
            if fate is Fate.AGAIN:
                self._busy(error)
            elif code == Code.QUEUE_FULL:
                self.outgoing.answer(error.ref)
                self._ledger.refused(message_id(self.tag, error.ref))
            elif fate is Fate.UNKNOWN:
                self._drop(pipe, f"nobody knows what became of {error.ref}")
            else:
                raise Broken(f"{self.name} was told {code.name} {error.detail}", message_id(self.tag, error.ref))
        elif ERRORS[code].closes and (ERRORS[code].retry or code == Code.REPLACED):
            if code == Code.REPLACED and not self._is_own_work():
                self._world.replaced(self)
            self._drop(pipe, f"{code.name} {error.detail}")
        else:
            raise Broken(f"{self.name} was told {code.name} of {error.ref}: {error.detail}")

    def _is_own_work(self) -> bool:
        """Whether a login of ours replaced us: one that we gave up, and that was carried out late. It counts once."""
        given_up_s, self._given_up_s = self._given_up_s, None
        return given_up_s is not None and self._loop.time() - given_up_s < LATE_LOGIN_S_MAX

    def _busy(self, error: Error) -> None:
        self._ledger.note(message_id(self.tag, error.ref), f"refused for now: {error.detail}")
        self.outgoing.refuse(error.ref)
        self._held_until_s = self._loop.time() + error.retry_after_ms / 1000
        self._loop.call_at(self._held_until_s, self._flush)

    def _closing(self, pipe: Pipe, closing: Closing) -> None:
        if closing.code not in (Code.SILENT, Code.LOGIN_TIMEOUT):
            raise Broken(f"{self.name} cannot go on: {closing}")
        self._drop(pipe, closing.code.name)

    def _go_away(self, pipe: Pipe, told: GoAway) -> None:
        self.is_leaving = True
        after_s = self.random.uniform(told.after_ms_min, told.after_ms_max) / 1000
        self._ledger.note(b"", f"{self.name} is told to go, and will in {after_s:.2f} s")
        self._loop.call_later(after_s, self._go_elsewhere, pipe)

    def _signalled(self, pipe: Pipe, signal: Signalled) -> None:
        self._ledger.signalled(self.name, signal.payload)
        self._world.heard.add((self.name, signal.payload))

    # --- deliveries

    def _delivery(self, pipe: Pipe, message: Any) -> None:
        last = message.last if type(message) is Gone else message.ref
        before = self.place.received
        take = self.place.take(message.ref, last)
        if take is Take.GAP:
            raise Broken(f"{self.name} stood at {before} and was delivered {message.ref}")
        if take is Take.NEW:
            self._new(message, before)
        if not self._ack_due:
            self._ack_due = True
            self._loop.call_later(self.random.random() * 0.3, self._ack)

    def _new(self, message: Any, before: int) -> None:
        ledger, generation = self._ledger, self.place.generation
        if type(message) is Gone:
            for seq in range(max(message.ref, before + 1), message.last + 1):
                ledger.at(self.user, generation, seq, int(Type.GONE), b"")
            ledger.note(b"", f"{self.name} is told that {message.ref} to {message.last} are gone")
        elif type(message) is Deliver:
            ledger.at(self.user, generation, message.ref, int(Type.DELIVER), message.id)
            since_s = self._welcome_s if self._world.shape.is_gentle else None
            ledger.delivered(self.user, self.device, message.ref, message.id, since_s)
            if message.flags & Flag.READ_RECEIPT and self.random.random() < self._world.shape.read:
                self._read(message)
        elif type(message) is Receipt:
            ledger.at(self.user, generation, message.ref, int(Type.RECEIPT), message.ids[0])
            for id_ in message.ids:
                ledger.receipt(self.name, message.peer, message.status, id_)
        elif type(message) is Sent:
            ledger.at(self.user, generation, message.ref, int(Type.SENT), message.id)
            ledger.copied(self.name, message.id)
        else:
            ledger.at(self.user, generation, message.ref, int(Type.READ_SYNC), message.ids[0])
            ledger.read_synced(self.name, message.ids[0])

    def _ack(self) -> None:
        """What came is processed now."""
        self._ack_due = False
        place = self.place
        place.finish(Mark(place.epoch, place.received))
        self._ledger.processed(self.user, place.generation, place.processed)
        if self.is_in and self._conn is not None:
            self._conn.position = place.processed
            seq = place.ack_due()
            if seq is not None:
                self._conn.send(Ack(seq, 0))
                self._flush()


_TAKES: dict[type, Callable[[Device, Pipe, Any], None]] = {
    Welcome: Device._welcome,
    Accepted: Device._accepted,
    Error: Device._error,
    Closing: Device._closing,
    Deliver: Device._delivery,
    Sent: Device._delivery,
    Receipt: Device._delivery,
    ReadSync: Device._delivery,
    Gone: Device._delivery,
    Signalled: Device._signalled,
    GoAway: Device._go_away,
}
