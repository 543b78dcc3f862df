"""The state machine as a table: each hole in it is a decision."""

from __future__ import annotations

import pytest

from protocol.states import SPEAKERS, TRANSITIONS, Side, State
from protocol.wire import Type

IN_SESSION_ONLY = set(Type) - {Type.HELLO, Type.WELCOME, Type.ERROR, Type.GOAWAY, Type.BYE}


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("type_", list(Type))
def test_every_pair_of_state_and_type_is_decided(state: State, type_: Type) -> None:
    """[CHAT-60] [CHAT-61]: the whole table, said in another way."""
    then = TRANSITIONS[state].get(type_)
    if state in (State.PREFACE, State.CLOSED):
        assert then is None
    elif type_ is Type.HELLO:
        assert then is (State.LOGIN if state is State.GREETING else None)
    elif type_ is Type.WELCOME:
        assert then is (State.OPEN if state is State.LOGIN else None)
    elif type_ is Type.BYE:
        assert then is (None if state is State.GREETING else State.CLOSED)
    elif type_ in IN_SESSION_ONLY:
        assert then is (State.OPEN if state is State.OPEN else None)
    else:
        assert then is state  # ERROR and GOAWAY: whether one closes is the code's business


def test_every_type_has_a_speaker_and_only_keepalive_has_two() -> None:
    """[CHAT-61]"""
    assert {type_ for type_, sides in SPEAKERS.items() if len(sides) == 2} == {Type.PING, Type.PONG}
    assert all(sides and sides <= set(Side) for sides in SPEAKERS.values())


def test_what_carries_a_sender_is_said_by_the_server_alone() -> None:
    """[CHAT-22]: nobody can send in another's name."""
    for type_ in (Type.DELIVER, Type.SENT, Type.RECEIPT, Type.READ_SYNC, Type.SIGNALLED):
        assert SPEAKERS[type_] == {Side.SERVER}


def test_every_state_but_the_last_can_be_left() -> None:
    """A connection that is silent leaves by time (tick), the others by a message."""
    assert [state for state in State if not TRANSITIONS[state]] == [State.PREFACE, State.CLOSED]
