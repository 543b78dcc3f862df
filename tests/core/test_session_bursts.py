"""A burst takes a shorter way through a session than a single message. It must come out the same."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from chatd.effects import Acknowledge, Effect, PostBurst, PostEntry
from protocol.codec import encode
from protocol.errors import Code
from protocol.frames import pack_frame
from protocol.messages import Ack, Message, Read, Send
from protocol.wire import TTL_S_MAX, Processed, Type
from tests.core.peers import NOW_MS, NOW_S
from tests.core.session_rig import Rig, opened_rig

RECEIVERS = st.sampled_from(("bob", "cat", "ann", "Not A Name"))
CIDS = st.integers(1, 12)
SENDS = st.builds(
    Send,
    CIDS,
    st.sampled_from((0, 1, 3)),
    RECEIVERS,
    st.binary(max_size=3),
    st.sampled_from((None, None, None, 5, TTL_S_MAX + 1)),
)
READS = st.builds(Read, CIDS, st.just(0), RECEIVERS, st.just((bytes(16),)))
SAID = st.lists(st.one_of(SENDS, SENDS, SENDS, READS), min_size=2, max_size=14)  # fmt: skip


def prepared(devices: int, refused: set[int], is_full: bool, is_open: bool) -> Rig:
    """A session that said 1 to 3 to bob, and was refused some of them."""
    rig = opened_rig(devices=devices)
    for cid in (1, 2, 3):
        rig.say(Send(cid, 0, "bob", b"", None))
    for cid in refused:
        rig.session.refused(cid, Code.BUSY, Processed.NO, 1000, NOW_S)
    if is_full:
        rig.session.full.note("bob", NOW_S)
    rig.gate.is_open = is_open
    rig.heard()
    return rig


def outcome(rig: Rig, breaths: list[list[Message]]) -> tuple[list[Effect], list[Message], int, int]:
    effects = [effect for breath in breaths for effect in rig.say(*breath)]
    posted = [effect for effect in effects if isinstance(effect, PostEntry)]
    return [*posted], rig.heard(), rig.session.unaccepted, rig.gate.in_flight


@settings(max_examples=400, deadline=None)
@given(SAID, st.sampled_from((1, 1, 1, 2)), st.sets(st.integers(1, 3), max_size=1), st.booleans(), st.booleans())
def test_what_is_said_in_one_breath_is_answered_as_if_it_had_been_said_message_by_message(
    said: list[Message], devices: int, refused: set[int], is_full: bool, is_open: bool
) -> None:
    state = (devices, refused, is_full, is_open)
    at_once, one_by_one = prepared(*state), prepared(*state)
    assert outcome(at_once, [said]) == outcome(one_by_one, [[message] for message in said])


def test_what_is_decided_between_two_parts_of_a_burst_stays_between_them() -> None:
    rig = opened_rig()
    rig.session.push(1, 1, pack_frame(Type.RECEIPT, 0, 1, b""))
    said = Send(4, 0, "bob", b"", None), Send(5, 0, "bob", b"", None), Ack(1, 0), Send(6, 0, "bob", b"", None)
    rig.session.receive(b"".join(map(encode, said)), NOW_S, NOW_MS)
    first, burst, ack, last = rig.session.take_effects()
    assert isinstance(first, PostEntry)
    assert isinstance(burst, PostBurst)
    assert isinstance(last, PostBurst)
    assert ([it.cid for it in burst.posts], ack, [it.cid for it in last.posts]) == ([5], Acknowledge(1), [6])


def test_a_burst_to_one_receiver_is_chained_and_counted() -> None:
    rig = opened_rig()
    effects = rig.say(*(Send(cid, 0, "bob", b"", None) for cid in (4, 5, 7)))
    assert [(it.cid, it.post.cid, it.post.prev) for it in effects if isinstance(it, PostEntry)] == [
        (4, 4, 0), (5, 5, 4), (7, 7, 5),
    ]  # fmt: skip
    assert (rig.session.unaccepted, rig.session.last_cid) == (3, 7)
