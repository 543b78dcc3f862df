"""Bodies: every message comes back as it went, and nothing that is not strict msgpack comes through."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import messages as m
from protocol.codec import TYPE_OF, Malformed, decode, encode_body
from protocol.wire import DEVICE_TAG_BYTES, REF_MAX, Type

uint = st.integers(0, REF_MAX)
text = st.text(max_size=40)
payload = st.binary(max_size=200)
id16 = st.binary(min_size=16, max_size=16)
ids = st.lists(id16, min_size=1, max_size=20).map(tuple)
features = st.lists(st.text(max_size=12), max_size=5).map(tuple)
generation = st.one_of(st.just(b""), st.binary(min_size=8, max_size=8))
info = st.dictionaries(st.text(max_size=20), st.text(max_size=20), max_size=5)
FIELDS: dict[type, tuple[st.SearchStrategy[Any], ...]] = {
    m.Hello: (uint, features, text, text, uint, text, generation, uint, info),
    m.Welcome: (
        uint, features, text, text, uint, st.binary(min_size=DEVICE_TAG_BYTES, max_size=DEVICE_TAG_BYTES), uint,
        st.binary(min_size=8, max_size=8), uint, uint, uint, uint,
    ),
    m.Send: (text, payload, st.one_of(st.none(), uint)),
    m.Accepted: (st.lists(uint, max_size=20).map(tuple),),
    m.Deliver: (text, id16, uint, payload),
    m.Sent: (text, id16, uint, payload),
    m.Receipt: (text, uint, ids, uint, uint),
    m.Read: (text, ids),
    m.ReadSync: (text, ids, uint),
    m.Signal: (text, payload),
    m.Signalled: (text, payload),
    m.Ack: (), m.Credit: (), m.Drained: (), m.Ping: (), m.Bye: (),
    m.Gone: (uint, uint),
    m.Pong: (st.booleans(), uint),
    m.GoAway: (uint, uint, uint),
    m.Error: (uint, uint, uint, text, uint),
}  # fmt: skip
any_message = st.one_of(*(st.builds(kind, uint, st.integers(0, 255), *fields) for kind, fields in FIELDS.items()))
any_value = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(), st.binary()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=12,
)


def test_every_type_has_its_fields_in_this_test() -> None:
    """A new message type is added here too."""
    assert set(FIELDS) == set(TYPE_OF)


@settings(max_examples=600, deadline=None)
@given(any_message)
def test_every_message_comes_back_as_it_went(message: m.Message) -> None:
    """SPEC §4, for fields of any allowed value."""
    assert decode(TYPE_OF[type(message)], message.flags, message.ref, encode_body(message)) == message


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(list(Type)), st.lists(any_value, max_size=12))
def test_an_array_of_anything_is_a_message_or_malformed(type_: Type, elements: list[Any]) -> None:
    """[CHAT-38] [CHAT-39]: never another exception."""
    with suppress(Malformed):
        decode(type_, 0, 1, msgpack.packb(elements))


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(list(Type)), st.binary(max_size=64))
def test_any_bytes_are_a_message_or_malformed(type_: Type, body: bytes) -> None:
    """[CHAT-37] [CHAT-39]: never another exception."""
    with suppress(Malformed):
        decode(type_, 0, 1, body)


@settings(max_examples=200, deadline=None)
@given(any_message, st.data())
def test_a_body_cut_short_is_malformed(message: m.Message, data: st.DataObject) -> None:
    """[CHAT-30] [CHAT-37]"""
    body = encode_body(message)
    if body:
        cut = data.draw(st.integers(1, len(body) - 1))
        with pytest.raises(Malformed):
            decode(TYPE_OF[type(message)], 0, 1, body[:cut])


@settings(max_examples=200, deadline=None)
@given(
    any_message,
    st.lists(st.one_of(st.none(), uint, text, payload, st.booleans(), st.lists(uint, max_size=3)), max_size=4),
)
def test_elements_behind_the_known_ones_are_ignored(message: m.Message, later: list[Any]) -> None:
    """[CHAT-141], for every type."""
    fields = list(message[2:])
    if type(message) is not m.Send or len(fields) == 3:
        body = msgpack.packb([*fields, *later])
        assert decode(TYPE_OF[type(message)], message.flags, message.ref, body) == message


@pytest.mark.parametrize(("size", "passes"), [(64, True), (65, False)])
def test_limits_on_text_count_bytes(size: int, passes: bool) -> None:
    """[CHAT-33]: 'é' is two of them."""
    feature = "é" * (size // 2) + "x" * (size % 2)
    body = encode_body(m.Hello(0, 0, 0, (feature,), "ann", "phone", 2, "s", b"", 1, {}))
    if passes:
        assert decode(Type.HELLO, 0, 0, body).features == (feature,)  # type: ignore[union-attr]
    else:
        with pytest.raises(Malformed, match="64 bytes"):
            decode(Type.HELLO, 0, 0, body)


def test_a_secret_is_not_in_the_text_of_a_fault() -> None:
    """A log line of a malformed HELLO does not carry the password."""
    body = msgpack.packb([0, [], "ann", "phone", 2, "hunter2", b"", "many", {}])
    with pytest.raises(Malformed) as fault:
        decode(Type.HELLO, 0, 0, body)
    assert "hunter2" not in str(fault.value)
