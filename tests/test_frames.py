"""FrameReader: bytes cut anywhere in, whole frames out. The golden vectors do most; here is what they cannot say."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import Code
from protocol.frames import Frame, FrameFault, FrameReader, Oversize, pack_frame
from protocol.wire import BODY_BYTES_HARD_MAX, HEAD, HEAD_BYTES, REF_MAX

frames = st.builds(
    Frame, st.integers(0, 255), st.integers(0, 255), st.integers(0, REF_MAX), st.binary(max_size=80)
)  # fmt: skip


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """The data in pieces, cut at these places."""
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


@settings(max_examples=200, deadline=None)
@given(st.lists(frames, max_size=8), st.lists(st.integers(0, 10_000), max_size=12))
def test_whatever_the_cuts_the_same_frames_come_out_in_order(sent: list[Frame], places: list[int]) -> None:
    """[CHAT-15]: frames over the reader's limit of 64 come out as Oversize, whatever the cut."""
    reader = FrameReader(64, skippable=True)
    data = b"".join(pack_frame(*frame) for frame in sent)
    got = [frame for piece in cut(data, places) for frame in reader.feed(piece)]
    assert got == [f if len(f.body) <= 64 else Oversize(f.type, f.flags, f.ref, len(f.body)) for f in sent]


def test_a_head_is_laid_out_as_the_specification_draws_it() -> None:
    """[CHAT-10] [CHAT-16]: length, type, flags, two zero bytes, ref, big-endian."""
    assert pack_frame(3, 1, 0x0102030405, b"ab").hex() == "000000020301000000000001020304056162"


def test_nothing_is_kept_of_a_body_that_is_skipped() -> None:
    """[CHAT-11] [CHAT-13]: a skipped megabyte leaves no byte in the reader, and the frame behind it is read."""
    reader = FrameReader(64, skippable=True)
    assert reader.feed(HEAD.pack(BODY_BYTES_HARD_MAX, 3, 0, 0, 7)) == [Oversize(3, 0, 7, BODY_BYTES_HARD_MAX)]
    for _ in range(16):
        assert reader.feed(bytes(BODY_BYTES_HARD_MAX // 16)) == []
        assert len(reader._kept) == 0
    assert reader.feed(pack_frame(12, 0, 1, b"")) == [Frame(12, 0, 1, b"")]


def test_a_claim_is_refused_when_its_head_is_there_and_not_before() -> None:
    """[CHAT-11] [CHAT-12]: the 16th byte of the head brings the fault."""
    reader = FrameReader(4096, skippable=False)
    head = HEAD.pack(4097, 1, 0, 0, 0)
    assert reader.feed(head[:-1]) == []
    with pytest.raises(FrameFault) as fault:
        reader.feed(head[-1:])
    assert fault.value.code is Code.FRAME_TOO_LARGE


def test_frames_before_a_fault_come_with_it() -> None:
    """[CHAT-15]: the fault of a read does not swallow the whole frames in front of it."""
    reader = FrameReader(64, skippable=True)
    with pytest.raises(FrameFault) as fault:
        reader.feed(pack_frame(12, 0, 1, b"") + HEAD.pack(0, 12, 0, 0, REF_MAX + 1))
    assert fault.value.code is Code.FRAME_MALFORMED
    assert fault.value.before == [Frame(12, 0, 1, b"")]


@pytest.mark.parametrize("ref", [0, 1, REF_MAX])
def test_every_ref_up_to_2_53_minus_1_is_read(ref: int) -> None:
    """[CHAT-14]"""
    assert FrameReader(0, skippable=False).feed(pack_frame(12, 0, ref, b"")) == [Frame(12, 0, ref, b"")]


def test_no_more_is_kept_than_one_unfinished_frame() -> None:
    """[CHAT-11]: what is whole leaves at once."""
    reader = FrameReader(64, skippable=True)
    frame = pack_frame(3, 0, 1, bytes(64))
    for _ in range(100):
        reader.feed(frame + frame[:20])
        reader.feed(frame[20:])
        assert len(reader._kept) <= HEAD_BYTES + 64
