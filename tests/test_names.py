"""Names and ids: what may stand in them, and that they never change."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.names import device_tag, is_name, keyed_message_id, message_id, shard_of
from protocol.wire import DEVICE_TAG_BYTES, MESSAGE_ID_BYTES, REF_MAX

GOOD = ["a", "0", "ann", "ann.b_c@example.org", "a+b-c", "a" * 64, "9lives"]
BAD = [
    "", "a" * 65, "Ann", "ann b", " ann", "ann\n", "ann\0", "a:b", "a#", "a*", "{a}", "a/b", "a\\b", "é", "_a", ".a", "@a",
    "-a", "+a", "ａ", "a\u200b", "a%00", "a\r\nb", "a\x1b[0m", "a'b", 'a"b', "a$b", "a,b", "a;b", "a~b",
]  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_these_are_names(name: str) -> None:
    """[CHAT-50]"""
    assert is_name(name)


@pytest.mark.parametrize("name", BAD)
def test_these_are_no_names(name: str) -> None:
    """[CHAT-50]: nothing that means something to Redis, a routing key, a path, a terminal or a log line."""
    assert not is_name(name)


@pytest.mark.parametrize("value", [None, b"ann", 1, True, ["ann"], ("ann",)])
def test_only_a_str_is_a_name(value: object) -> None:
    """[CHAT-50]"""
    assert not is_name(value)


@given(st.text())
def test_whatever_passes_is_of_the_alphabet(text: str) -> None:
    """[CHAT-50]"""
    if is_name(text):
        assert 1 <= len(text.encode()) <= 64
        assert set(text) <= set("abcdefghijklmnopqrstuvwxyz0123456789._@+-")


def test_a_message_id_is_the_device_tag_and_the_cid() -> None:
    """[CHAT-53]: 9 bytes and 7, big-endian, so that a client can compute it."""
    tag = bytes(range(DEVICE_TAG_BYTES))
    assert message_id(tag, 0x01020304050607).hex() == "00010203040506070801020304050607"
    assert len(message_id(tag, REF_MAX)) == MESSAGE_ID_BYTES


def test_tags_and_ids_are_the_same_for_ever() -> None:
    """[CHAT-54]: they stand in stores; these values may never change."""
    assert device_tag("ann", "phone").hex() == "7e51b36e512536ade8"
    assert keyed_message_id("ann", "order-1").hex() == "73a88d53e8f0db375ce4a3cfadffaec9"
    assert shard_of("ann", 16) == 3


def test_a_tag_does_not_confuse_where_the_user_ends() -> None:
    """[CHAT-54]: user and device are told apart, as are ids of keys and of cids."""
    assert device_tag("ann", "b") != device_tag("an", "nb")
    assert keyed_message_id("ann", "b") != keyed_message_id("an", "nb")


@given(st.from_regex(r"[a-z0-9]{1,10}", fullmatch=True), st.integers(1, 64))
def test_a_shard_is_within_its_count(user: str, shards: int) -> None:
    """0..shards-1, and the same at every call."""
    assert 0 <= shard_of(user, shards) < shards
    assert shard_of(user, shards) == shard_of(user, shards)
