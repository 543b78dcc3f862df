"""A client of the simulated world, as the specification has it (§10, §11): what it keeps over its connections, and the
fake transport between it and a node, which can be cut, halved and slowed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

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
    Receipt,
    Send,
    Sent,
    Welcome,
)  # fmt: skip
from protocol.names import device_tag, message_id
from protocol.wire import FEATURES, Flag, Processed, Scheme, Status, Type
from tests.sim.ledger import Broken, Told
from tests.sim.links import STEP_S

UNANSWERED_MAX = 12


class Pipe:
    """One connection. Implements chatd.ports.Wire for the node's end."""

    def __init__(self, world: Any, device: Device, node: Any, seed: int) -> None:
        self._world, self._device, self.node = world, device, node
        self._loop = world.loop
        self.random = Random(seed)
        self._up_s = self._down_s = 0.0
        self.is_broken = False
        self._is_reading = True
        self._held: list[bytes] = []
        self._device_gone = self._line_gone = False
        self.line = node.board.enter(self, device.name, preface=True)

    def _later_s(self, last_s: float) -> float:
        return max(last_s + STEP_S, self._loop.time() + self.random.random() ** 3 * 0.03)

    def say(self, data: bytes) -> None:
        """The client writes."""
        if not self.is_broken:
            self._up_s = self._later_s(self._up_s)
            self._loop.call_at(self._up_s, self._up, data)

    def _up(self, data: bytes) -> None:
        if self.is_broken or self._line_gone:
            return
        if self._is_reading:
            self.line.receive(data)
        else:
            self._held.append(data)

    def write(self, chunks: list[bytes]) -> None:
        """The node writes."""
        if self.node.process.has(self._world.odds.cut_before_write):
            self.cut("before it was written")
        if not self.is_broken:
            self._down_s = self._later_s(self._down_s)
            self._loop.call_at(self._down_s, self._down, b"".join(chunks))

    def _down(self, data: bytes) -> None:
        if self._device_gone:
            return
        if self.is_broken:  # a part of it, perhaps, and then no more
            self._device_gone = True
            data = data[: self.random.randrange(len(data) + 1)] if self.random.random() < 0.5 else b""
        if data:
            self._device.receive(self, data)

    def pending_bytes(self) -> int:
        return 0

    def pause_reading(self) -> None:
        self._is_reading = False

    def resume_reading(self) -> None:
        self._is_reading = True
        held, self._held = self._held, []
        for data in held:
            self._loop.call_soon(self._up, data)

    def greeted(self) -> None:
        pass

    def close(self, code: Code | None, detail: str) -> None:
        """The node closes."""
        self._loop.call_at(self._later_s(self._down_s), self._lose_device)
        self._loop.call_soon(self._lose_line)

    def hang_up(self) -> None:
        """The client closes: the node hears it behind what was written."""
        self._device_gone = True
        self._loop.call_at(self._later_s(self._up_s), self._lose_line)

    def cut(self, why: str) -> None:
        """Both ends learn of it, in their time; in a rough world the node learns much later."""
        if not self.is_broken:
            self.is_broken = True
            self._world.ledger.note(b"", f"cut {self._device.name}: {why}")
            late_s = self.random.choice((0.1, 1.0)) if self._world.is_gentle else self.random.choice((0.1, 5.0))
            self._loop.call_later(self.random.random() * late_s, self._lose_line)
            self._loop.call_later(0.03 + self.random.random() * 0.2, self._lose_device)

    def _lose_line(self) -> None:
        if not self._line_gone:
            self._line_gone = True
            if self.node.process.is_alive:
                self.line.lost("cut")

    def _lose_device(self) -> None:
        self._device_gone = True
        self._device.lost(self)


@dataclass
class Waiting:
    """A SEND without an answer."""

    send: Send
    text: bytes
    is_sent: bool = False
    was_sent_before: bool = False  # in an earlier session


class Device:
    """One device of one user."""

    def __init__(self, world: Any, user: str, device: str, seed: int) -> None:
        self.user, self.device, self.name = user, device, f"{user}/{device}"
        self.tag = device_tag(user, device)
        self._world, self._loop, self._ledger = world, world.loop, world.ledger
        self.random = Random(seed)
        self.position: int | None = None
        self.generation = b""
        self._last_cid = 0
        self.waiting: dict[int, Waiting] = {}
        self._retries = 0
        self.pipe: Pipe | None = None
        self._conn: ClientConnection | None = None
        self._welcome_s = 0.0
        self._ack_due = False
        self.is_in = False
        self.evicted = 0

    @property
    def is_quiet(self) -> bool:
        return not self.waiting and not self._retries

    # --- connections

    def connect(self) -> None:
        """To any node that lives; later when there is none."""
        node = self._world.any_node(self.random)
        pipe = Pipe(self._world, self, node, self.random.getrandbits(32)) if node is not None else None
        if pipe is None or pipe.line is None:
            self._loop.call_later(0.5, self.connect)
            return
        credit = 64 if self._world.is_gentle else self.random.choice((2, 8, 64))
        hello = Hello(
            self.position or 0, 0, 0, FEATURES, self.user, self.device, int(Scheme.PASSWORD), "secret",
            self.generation, credit, {},
        )  # fmt: skip
        self._ledger.acknowledged(self.user, self.position or 0)  # HELLO says so too
        self.pipe, self._conn = pipe, ClientConnection(hello, now_s=self._loop.time(), login_s_max=10.0)
        self._world.on_doorstep(self.user)
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
            self.pipe = self._conn = None
            self.is_in = False
            self._loop.call_later(self.random.random() * 0.6, self.connect)

    def _drop(self, pipe: Pipe, why: str) -> None:
        self._ledger.note(b"", f"{self.name} goes: {why}")
        pipe.hang_up()
        self.lost(pipe)

    def leave(self) -> None:
        """A clean good-bye, and back again."""
        if self.pipe is not None and self.is_in and self._conn is not None:
            self._conn.send(Bye(0, 0))
            self._flush()
            self._drop(self.pipe, "BYE")

    def _flush(self) -> None:
        if self._conn is not None and self.pipe is not None:
            data = b"".join(self._conn.bytes_to_send())
            if data:
                self._conn.spoke(self._loop.time())
                self.pipe.say(data)

    # --- sending

    def say(self, to: str, text: bytes, *, wants_receipt: bool) -> None:
        """A new message, now or at the next login."""
        self._ledger.messages[text] = Told(self.name.partition("/")[0], self.tag, to, wants_receipt)
        self._send(to, text, int(Flag.RECEIPT) * wants_receipt)

    def _send(self, to: str, text: bytes, flags: int) -> None:
        self._last_cid += 1
        cid = self._last_cid
        item = self.waiting[cid] = Waiting(Send(cid, flags, to, text), text)
        self._ledger.sent(text, message_id(self.tag, cid), self.name)
        if self.is_in:
            self._put(item)
            self._flush()

    def _put(self, item: Waiting) -> None:
        assert self._conn is not None
        item.was_sent_before, item.is_sent = item.is_sent, True
        self._conn.send(item.send)

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
        if self.position is not None and (welcome.generation, welcome.cursor) != (self.generation, self.position):
            raise Broken(f"{self.name} stood at {self.position}; WELCOME says {welcome.cursor} of {welcome.ref}")
        self.position, self.generation = welcome.cursor, welcome.generation
        self._conn.position = self.position
        self._welcome_s, self.is_in = self._loop.time(), True
        self._ledger.note(
            b"", f"{self.name} is in at {pipe.node.process.name}, position {self.position} of {welcome.ref}"
        )
        for cid in sorted(self.waiting):
            self._put(self.waiting[cid])

    def _accepted(self, pipe: Pipe, accepted: Accepted) -> None:
        for cid in accepted.cids:
            if self.waiting.pop(cid, None) is None:
                raise Broken(f"{self.name}: cid {cid} was answered twice")
            self._ledger.accepted(message_id(self.tag, cid))

    def _error(self, pipe: Pipe, error: Error) -> None:
        if error.code == Code.BUSY and error.ref and error.processed == Processed.NO:
            return self._busy(pipe, error)
        if ERRORS[Code(error.code)].closes and (ERRORS[Code(error.code)].retry or error.code == Code.REPLACED):
            self.evicted += error.code == Code.REPLACED
            return self._drop(pipe, f"{Code(error.code).name} {error.detail}")
        raise Broken(f"{self.name} was told {Code(error.code).name} of {error.ref}: {error.detail}")

    def _busy(self, pipe: Pipe, error: Error) -> None:
        item = self.waiting[error.ref]
        if item.was_sent_before:
            return self._drop(pipe, f"a resend, {error.ref}, was refused")
        del self.waiting[error.ref]
        self._ledger.refuse(message_id(self.tag, error.ref))
        self._retries += 1
        self._loop.call_later(error.retry_after_ms / 1000 + self.random.random(), self._again, item)
        return None

    def _again(self, item: Waiting) -> None:
        self._retries -= 1
        self._send(item.send.to, item.text, item.send.flags)

    def _closing(self, pipe: Pipe, closing: Closing) -> None:
        if closing.code not in (Code.SILENT, Code.LOGIN_TIMEOUT):
            raise Broken(f"{self.name} cannot go on: {closing}")
        self._drop(pipe, closing.code.name)

    def _delivery(self, pipe: Pipe, message: Any) -> None:
        assert self.position is not None
        assert self._conn is not None
        if message.ref <= self.position:
            return  # a repeat
        if message.ref != self.position + 1:
            raise Broken(f"{self.name} stood at {self.position} and was delivered {message.ref}")
        id_ = message.ids[0] if type(message) is Receipt else b"" if type(message) is Gone else message.id
        self._ledger.at(self.user, self.device, message.ref, _TYPES[type(message)], id_)
        if type(message) is Deliver:
            since_s = self._welcome_s if self._world.is_gentle else None
            self._ledger.delivered(self.user, self.device, message.ref, id_, since_s)
        elif type(message) is Receipt and message.status == Status.DELIVERED:
            for told in message.ids:
                self._ledger.receipt(self.user, self.device, told)
        elif type(message) is Gone:
            raise Broken(f"{self.name}: {message}")
        self.position = message.ref
        self._conn.position = self.position
        if not self._ack_due:
            self._ack_due = True
            self._loop.call_later(self.random.random() * 0.3, self._ack)

    def _ack(self) -> None:
        self._ack_due = False
        if self.is_in and self._conn is not None and self.position:
            self._ledger.acknowledged(self.user, self.position)
            self._conn.send(Ack(self.position, 0))
            self._flush()


_TYPES = {Deliver: int(Type.DELIVER), Sent: int(Type.SENT), Receipt: int(Type.RECEIPT), Gone: int(Type.GONE)}
_TAKES: dict[type, Callable[[Device, Pipe, Any], None]] = {
    Welcome: Device._welcome,
    Accepted: Device._accepted,
    Error: Device._error,
    Closing: Device._closing,
    Deliver: Device._delivery,
    Sent: Device._delivery,
    Receipt: Device._delivery,
    Gone: Device._delivery,
    GoAway: lambda device, pipe, event: None,
}
