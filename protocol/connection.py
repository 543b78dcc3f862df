"""One connection, without I/O: bytes and time in, messages and bytes out; the same for both sides.

The shell calls `receive(data)` for what the socket brought and performs what comes out; it calls `send(...)` and writes
`bytes_to_send()`; it calls `tick(now_s)` no later than `next_deadline_s`. The peer's fault comes out as a value
(Closing), with the ERROR frame already queued; only our own misuse raises (OutOfTurn). Spec: protocol/SPEC.md §2, §6.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from protocol.codec import DECODERS, TYPE_OF, Malformed, encode
from protocol.errors import ERRORS, Code
from protocol.frames import Frame, FrameFault, FrameReader, Oversize
from protocol.messages import Error, Message, Ping, Pong, Welcome
from protocol.states import SPEAKERS, TRANSITIONS, Side, State
from protocol.wire import (
    DETAIL_BYTES_MAX,
    GREETING_BODY_BYTES_MAX,
    KEEPALIVE_MISSES,
    MAGIC,
    PREFACE,
    PREFACE_BYTES,
    VERSION_MAJOR,
    VERSION_MINOR,
    Flag,
    Limits,
    Processed,
    Type,
)


class Closing(NamedTuple):
    """The connection is over: write what is queued, then close. The last event that a connection gives."""

    code: Code
    detail: str


class Refused(NamedTuple):
    """A frame was refused and answered; the connection goes on. For logs and counters."""

    code: Code
    ref: int


Event = Message | Closing | Refused

OUR_PREFACE: Final = PREFACE.pack(MAGIC, VERSION_MAJOR, VERSION_MINOR, 0)
_CLOSING_CODES: Final = frozenset(int(code) for code, row in ERRORS.items() if row.closes)
_STAYS_OPEN_FROM: Final = 300  # 1xx and 2xx close, also those that are not in this registry yet
_KNOWN: Final = frozenset(int(type_) for type_ in Type)

# What a side may say in a state, and the state that follows: TRANSITIONS and SPEAKERS folded for one look a frame.
_MAY_SAY: Final[dict[tuple[Side, State], dict[int, State]]] = {
    (side, state): {int(type_): then for type_, then in row.items() if side in SPEAKERS[type_]}
    for side in Side
    for state, row in TRANSITIONS.items()
}

_NOTHING: Final[dict[int, State]] = {}


class OutOfTurn(Exception):
    """We tried to send what the state does not allow: a bug on our side."""


class Connection:
    """What both sides share. Use ServerConnection or ClientConnection."""

    side: Side
    peer: Side
    noted: frozenset[int] = frozenset()  # the types of which _on_message is told

    def __init__(self, state: State, body_bytes_max: int, *, now_s: float, deadline_s: float, skippable: bool) -> None:
        self.state = state
        self._reader = FrameReader(body_bytes_max, skippable=skippable)
        self._out: list[bytes] = []
        self._head = bytearray()  # the preface, while it is incomplete
        self._heard_s = now_s
        self.next_deadline_s = deadline_s

    # --- in

    def receive(self, data: bytes, now_s: float) -> list[Event]:
        """Bytes off the socket, cut anywhere. Never raises for what a peer can send."""
        self._heard_s = now_s
        if self.state is State.CLOSED:
            return []
        if self.state is State.PREFACE:
            data, fault = self._take_preface(data)
            if fault is not None:
                return [fault]
        try:
            frames = self._reader.feed(data)
        except FrameFault as fault_:
            events = self._take_all(fault_.before)
            return events if self.is_over else [*events, self.fail(fault_.code, fault_.detail)]
        return self._take_all(frames)

    def _take_all(self, frames: list[Frame | Oversize]) -> list[Event]:
        events: list[Event] = []
        state, may_say = None, _NOTHING
        for frame in frames:
            if self.state is not state:  # looked up only when it changed
                state = self.state
                if state is State.CLOSED:
                    break
                may_say = _MAY_SAY[self.peer, state]
            type_ = frame[0]
            then = may_say.get(type_)
            if then is None or type(frame) is Oversize:
                if (event := self._take_odd(frame, then)) is not None:
                    events.append(event)
                continue
            _, flags, ref, body = frame
            try:
                message = DECODERS[type_](flags, ref, body)  # type: ignore[arg-type] # a Frame, as Oversize is ruled out
            except Malformed as fault:
                events.append(self.fail(Code.BODY_MALFORMED, f"{Type(type_).name}: {fault}"))
                continue
            if then is not state:
                self.state = then
            if type_ in self.noted:
                self._on_message(message)
            events.append(message)
        return events

    @property
    def is_over(self) -> bool:
        """Nothing is read any more; what bytes_to_send() still gives may be written, then the socket closes."""
        return self.state is State.CLOSED

    def _take_odd(self, frame: Frame | Oversize, then: State | None) -> Event | None:
        """What may not be said now (`then` is None), or is too long."""
        type_ = frame.type
        if then is None:
            if type_ not in _KNOWN:
                return self._take_unknown(frame)
            code = Code.OUT_OF_TURN if self.state is State.OPEN else Code.LOGIN_REQUIRED
            return self.fail(code, f"{Type(type_).name} is not for you to send in state {self.state.value}")
        assert isinstance(frame, Oversize)
        return self._refuse_oversize(frame)

    def _take_unknown(self, frame: Frame | Oversize) -> Event | None:
        if self.state is not State.OPEN:
            return self.fail(Code.LOGIN_REQUIRED, f"type {frame.type} before login")
        if frame.flags & Flag.IGNORE:
            return None
        return self.refuse(frame.ref, Code.UNSUPPORTED, detail=f"type {frame.type}")

    def _refuse_oversize(self, frame: Oversize) -> Event:
        limit = self._reader.body_bytes_max
        return self.refuse(frame.ref, Code.TOO_LARGE, detail=f"{frame.length} bytes, at most {limit}", limit=limit)

    def _take_preface(self, data: bytes) -> tuple[bytes, Closing | None]:
        self._head += data
        seen = bytes(self._head[: len(MAGIC)])
        if seen != MAGIC[: len(seen)]:
            return b"", self._refuse_preface(Code.BAD_PREFACE, "the first bytes are not CHTD")
        if len(self._head) < PREFACE_BYTES:
            return b"", None
        _, major, _, _ = PREFACE.unpack_from(self._head)
        if major != VERSION_MAJOR:
            return b"", self._refuse_preface(Code.VERSION_UNSUPPORTED, f"major {major}, this is {VERSION_MAJOR}")
        rest = bytes(self._head[PREFACE_BYTES:])
        self._head.clear()
        self.state = State.GREETING
        return rest, None

    def _refuse_preface(self, code: Code, detail: str) -> Closing:
        self._out.append(OUR_PREFACE)  # no frame: the peer has not shown that it knows frames
        self.state = State.CLOSED
        return Closing(code, detail)

    def _on_message(self, message: Message) -> None:
        """What a side does at once on messages of the `noted` types."""

    # --- out

    def send(self, message: Message) -> None:
        """Queue one message. Raises OutOfTurn when this side may not send it in this state."""
        type_ = TYPE_OF[type(message)]
        state = _MAY_SAY[self.side, self.state].get(type_)
        if state is None:
            raise OutOfTurn(f"{type_.name} by the {self.side.value} in state {self.state.value}")
        self.state = state
        self._out.append(encode(message))

    def send_frames(self, frames: bytes) -> None:
        """Queue frames that are already bytes (deliveries, packed once for all sessions). State OPEN only."""
        if self.state is not State.OPEN:
            raise OutOfTurn(f"deliveries in state {self.state.value}")
        self._out.append(frames)

    def bytes_to_send(self) -> list[bytes]:
        """What must be written now, in order; the caller owns it."""
        out, self._out = self._out, []
        return out

    def refuse(
        self, ref: int, code: Code, *, processed: Processed = Processed.NO, retry_after_ms: int = 0, detail: str = "",
        limit: int = 0,
    ) -> Refused | Closing:  # fmt: skip
        """Answer request `ref` with an error; closes when the registry says so, and before WELCOME always (there is
        nothing to go on with). A client says nothing: it only closes."""
        closes = ERRORS[code].closes or self.state is not State.OPEN
        if self.side is Side.SERVER and self.state not in (State.CLOSED, State.PREFACE):
            text = (detail or ERRORS[code].english).encode()[:DETAIL_BYTES_MAX].decode(errors="ignore")
            self._out.append(encode(Error(ref, 0, code, processed, retry_after_ms, text, limit)))
        if closes:
            self.state = State.CLOSED
            return Closing(code, detail)
        return Refused(code, ref)

    def fail(self, code: Code, detail: str = "", *, retry_after_ms: int = 0) -> Closing:
        """End the connection with a code that closes."""
        outcome = self.refuse(0, code, retry_after_ms=retry_after_ms, detail=detail)
        assert type(outcome) is Closing, code
        return outcome

    # --- time

    def tick(self, now_s: float) -> list[Event]:
        """Call when next_deadline_s has come."""
        raise NotImplementedError


class ServerConnection(Connection):
    """The server's side of one connection."""

    side = Side.SERVER
    peer = Side.CLIENT

    def __init__(self, limits: Limits, *, now_s: float, preface: bool = True) -> None:
        """`preface` is False on a WebSocket, where the subprotocol stands for it."""
        state = State.PREFACE if preface else State.GREETING
        deadline_s = now_s + limits.login_s_max
        super().__init__(state, GREETING_BODY_BYTES_MAX, now_s=now_s, deadline_s=deadline_s, skippable=False)
        self.limits = limits

    def welcome(self, message: Welcome, now_s: float) -> None:
        """Open the session: from here the negotiated limits count, and keepalive runs."""
        self.send(message)
        self._reader.body_bytes_max = self.limits.body_bytes_max
        self._reader.skippable = True
        self._heard_s = now_s
        self.next_deadline_s = now_s + self.limits.keepalive_s * KEEPALIVE_MISSES

    def excuse(self, now_s: float) -> None:
        """We do not read the peer now: its silence is ours."""
        self._heard_s = now_s

    def tick(self, now_s: float) -> list[Event]:
        """LOGIN_TIMEOUT before WELCOME; SILENT when KEEPALIVE_MISSES intervals brought nothing."""
        if self.state is State.CLOSED or now_s < self.next_deadline_s:
            return []
        if self.state is not State.OPEN:
            return [self.fail(Code.LOGIN_TIMEOUT, f"no login within {self.limits.login_s_max:g} s")]
        dead_s = self._heard_s + self.limits.keepalive_s * KEEPALIVE_MISSES
        if now_s >= dead_s:
            return [self.fail(Code.SILENT, f"silent for {now_s - self._heard_s:.0f} s")]
        self.next_deadline_s = dead_s
        return []


class ClientConnection(Connection):
    """The client's side. Give it Hello first; it answers PING itself and sends PING when it was silent too long."""

    side = Side.CLIENT
    peer = Side.SERVER
    noted = frozenset((int(Type.WELCOME), int(Type.ERROR), int(Type.PING)))

    def __init__(self, hello: Message, *, now_s: float, login_s_max: float, preface: bool = True) -> None:
        limit = 1 << 20
        super().__init__(State.GREETING, limit, now_s=now_s, deadline_s=now_s + login_s_max, skippable=False)
        if preface:
            self._out.append(OUR_PREFACE)
        self.keepalive_s = 0.0  # settled by WELCOME
        self.position = 0  # the last processed seq: the shell keeps it, PING carries it
        self._spoke_s = now_s
        self._login_s_max = login_s_max
        self._may_be_preface = preface  # the server's first bytes may be its preface: it does not speak our version
        self.send(hello)

    def receive(self, data: bytes, now_s: float) -> list[Event]:
        """As Connection.receive. A preface in place of the first frame comes out as Closing(VERSION_UNSUPPORTED)."""
        if self._may_be_preface:
            self._head += data
            if MAGIC.startswith(self._head[: len(MAGIC)]):  # no frame begins so: it would claim a gigabyte
                return self._take_server_preface(now_s)
            data = bytes(self._head)
            self._head.clear()
            self._may_be_preface = False
        return super().receive(data, now_s)

    def _take_server_preface(self, now_s: float) -> list[Event]:
        self._heard_s = now_s
        if self.state is State.CLOSED or len(self._head) < PREFACE_BYTES:
            return []
        _, major, minor, _ = PREFACE.unpack_from(self._head)
        code = Code.BAD_PREFACE if major == VERSION_MAJOR else Code.VERSION_UNSUPPORTED
        return [self.fail(code, f"the server speaks version {major}.{minor}, this is {VERSION_MAJOR}")]

    def _on_message(self, message: Message) -> None:
        kind = type(message)
        if kind is Welcome:
            assert isinstance(message, Welcome)
            self.keepalive_s = message.keepalive_ms / 1000
            self._spoke_s = self._heard_s
            self.next_deadline_s = self._heard_s + self.keepalive_s / 2
        elif kind is Error:
            assert isinstance(message, Error)
            final = message.code in _CLOSING_CODES or message.code < _STAYS_OPEN_FROM
            if final or self.state is not State.OPEN:
                self.state = State.CLOSED
        elif kind is Ping:
            self.send(Pong(self.position, 0, known=False, time_ms=0))

    def spoke(self, now_s: float) -> None:
        """The shell wrote something: no PING is due for a while."""
        self._spoke_s = now_s

    def tick(self, now_s: float) -> list[Event]:
        """Queue a PING after half a keepalive interval of our own silence; Closing(SILENT) when the server is dead."""
        if self.state is State.CLOSED or now_s < self.next_deadline_s:
            return []
        if self.state is not State.OPEN:
            return [self.fail(Code.LOGIN_TIMEOUT, f"no WELCOME within {self._login_s_max:g} s")]
        if now_s - self._heard_s >= self.keepalive_s * KEEPALIVE_MISSES:
            return [self.fail(Code.SILENT, f"the server was silent for {now_s - self._heard_s:.0f} s")]
        if now_s - self._spoke_s >= self.keepalive_s / 2 or now_s - self._heard_s >= self.keepalive_s / 2:
            self.send(Ping(self.position, 0))
            self._spoke_s = now_s
        self.next_deadline_s = now_s + self.keepalive_s / 4
        return []
