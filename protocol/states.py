"""The state machine of one connection, as a table. Nothing else moves a state, and the table does not know which side
it serves: both sides obey the same law. Spec: protocol/SPEC.md §6.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from protocol.wire import Type


class Side(Enum):
    """Who speaks."""

    __hash__ = object.__hash__  # a member is single; Enum's own is a function in Python, and every frame asks

    CLIENT = "client"
    SERVER = "server"


class State(Enum):
    """Where a connection is between its first and its last byte."""

    __hash__ = object.__hash__  # as above

    PREFACE = "preface"  # the client's 8 bytes are not complete
    GREETING = "greeting"  # HELLO is awaited
    LOGIN = "login"  # HELLO is in, WELCOME not yet out
    OPEN = "open"
    CLOSED = "closed"  # nothing is read or written any more


_C, _S = frozenset({Side.CLIENT}), frozenset({Side.SERVER})
_BOTH = _C | _S

SPEAKERS: Final[dict[Type, frozenset[Side]]] = {
    Type.HELLO: _C,
    Type.WELCOME: _S,
    Type.SEND: _C,
    Type.ACCEPTED: _S,
    Type.DELIVER: _S,
    Type.SENT: _S,
    Type.RECEIPT: _S,
    Type.READ: _C,
    Type.READ_SYNC: _S,
    Type.SIGNAL: _C,
    Type.SIGNALLED: _S,
    Type.ACK: _C,
    Type.CREDIT: _C,
    Type.DRAINED: _S,
    Type.GONE: _S,
    Type.PING: _BOTH,
    Type.PONG: _BOTH,
    Type.GOAWAY: _S,
    Type.ERROR: _S,
    Type.BYE: _C,
}

_OPEN: dict[Type, State] = {type_: State.OPEN for type_ in Type if type_ not in (Type.HELLO, Type.WELCOME, Type.BYE)}

TRANSITIONS: Final[dict[State, dict[Type, State]]] = {
    State.PREFACE: {},
    State.GREETING: {Type.HELLO: State.LOGIN, Type.ERROR: State.GREETING, Type.GOAWAY: State.GREETING},
    State.LOGIN: {
        Type.WELCOME: State.OPEN,
        Type.ERROR: State.LOGIN,
        Type.GOAWAY: State.LOGIN,
        Type.BYE: State.CLOSED,
    },
    State.OPEN: {**_OPEN, Type.BYE: State.CLOSED},
    State.CLOSED: {},
}

assert set(SPEAKERS) == set(Type)
