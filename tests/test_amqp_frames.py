"""AMQP bytes in and out without a socket. pamqp, which aiormq uses, is the independent reader and writer here."""

from __future__ import annotations

import random
from typing import Any

import pamqp.frame
import pytest
from pamqp import commands as spec
from pamqp.body import ContentBody
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from brokerd.links.amqp_frames import (
    FRAME_BYTES_MAX,
    HEARTBEAT_FRAME,
    ChannelReader,
    ChannelSink,
    ControlReader,
    FrameCutter,
    TornStream,
)
from brokerd.links.amqp_marshal import ack_frame, header_table, plain_content, post_content, publish_method, tag_text

LEAN, OTHER = 3, 4
FRAME_MAX = 131_072


class Heard(ChannelSink):
    """Keeps what a lean channel was told, as tuples."""

    def __init__(self) -> None:
        self.events: list[tuple[object, ...]] = []

    def delivered(self, tag: int, redelivered: bool, body: bytes) -> None:
        self.events.append(("delivered", tag, redelivered, body))

    def acked(self, tag: int, multiple: bool) -> None:
        self.events.append(("acked", tag, multiple))

    def nacked(self, tag: int, multiple: bool) -> None:
        self.events.append(("nacked", tag, multiple))

    def returned(self, queue: str, message_id: bytes, reason: str) -> None:
        self.events.append(("returned", queue, message_id, reason))

    def cancelled(self) -> None:
        self.events.append(("cancelled",))

    def closed(self, reason: str) -> None:
        self.events.append(("closed", reason))


def lean_cutter() -> tuple[FrameCutter, Heard]:
    cutter, heard = FrameCutter(), Heard()
    cutter.readers[LEAN] = ChannelReader(heard)
    return cutter, heard


def wire(frame: Any, channel: int = LEAN) -> bytes:
    return bytes(pamqp.frame.marshal(frame, channel))


def delivery(tag: int, body: bytes, *, redelivered: bool = False, channel: int = LEAN, piece: int = FRAME_MAX) -> bytes:
    properties = spec.Basic.Properties(headers={"a": 1}, delivery_mode=2, message_id="x")
    head = wire(spec.Basic.Deliver("shard-0", tag, redelivered, "", "chat.in.0"), channel)
    header = wire(ContentHeader(0, len(body), properties), channel)
    pieces = [wire(ContentBody(body[at : at + piece]), channel) for at in range(0, len(body), piece)]
    return head + header + b"".join(pieces)


def read_all(data: bytes) -> list[tuple[int, Any]]:
    """Every frame of `data` as pamqp reads it."""
    frames = []
    while data:
        used, channel, frame = pamqp.frame.unmarshal(data)
        frames.append((channel, frame))
        data = data[used:]
    return frames


STREAM = b"".join(
    [
        wire(Heartbeat(), 0),
        delivery(1, b"one"),
        wire(spec.Basic.Ack(7, True)),
        delivery(2, b"in five pieces", redelivered=True, piece=3),
        wire(spec.Queue.DeclareOk("q", 1, 2)),
        delivery(3, b""),
        delivery(9, b"not lean", channel=OTHER),
        wire(spec.Basic.Nack(8, False, True)),
        wire(spec.Basic.Ack(9, False)),
        wire(spec.Connection.Blocked("low on memory"), 0),
    ]
)
HEARD = [
    ("delivered", 1, False, b"one"),
    ("acked", 7, True),
    ("delivered", 2, True, b"in five pieces"),
    ("delivered", 3, False, b""),
    ("nacked", 8, False),
    ("acked", 9, False),
]
PASSED = b"".join(
    [
        wire(Heartbeat(), 0),
        wire(spec.Queue.DeclareOk("q", 1, 2)),
        delivery(9, b"not lean", channel=OTHER),
        wire(spec.Connection.Blocked("low on memory"), 0),
    ]
)


def test_a_stream_cut_at_any_byte_is_read_once_and_whole() -> None:
    for at in range(len(STREAM) + 1):
        cutter, heard = lean_cutter()
        passed = cutter.feed(STREAM[:at]) + cutter.feed(STREAM[at:])
        assert (heard.events, passed) == (HEARD, PASSED), f"cut at {at}"


def test_a_stream_in_single_bytes_is_read_once_and_whole() -> None:
    cutter, heard = lean_cutter()
    passed = b"".join(cutter.feed(STREAM[at : at + 1]) for at in range(len(STREAM)))
    assert (heard.events, passed) == (HEARD, PASSED)


def test_streams_cut_at_random_give_the_same() -> None:
    dice = random.Random(7)
    for _ in range(200):
        cutter, heard = lean_cutter()
        cuts = sorted(dice.sample(range(1, len(STREAM) * 2), 9))
        pieces = [(STREAM * 2)[a:b] for a, b in zip([0, *cuts], [*cuts, len(STREAM) * 2], strict=True)]
        passed = b"".join(map(cutter.feed, pieces))
        assert (heard.events, passed) == (HEARD * 2, PASSED * 2)


def test_two_lean_channels_whose_frames_are_mixed_are_kept_apart() -> None:
    cutter, heard = lean_cutter()
    other = Heard()
    cutter.readers[OTHER] = ChannelReader(other)
    ours = _frames_of(delivery(1, b"12345678", piece=4))
    theirs = _frames_of(delivery(5, b"abcdefgh", channel=OTHER, piece=4))
    cutter.feed(b"".join(b"".join(pair) for pair in zip(ours, theirs, strict=True)))
    assert heard.events == [("delivered", 1, False, b"12345678")]
    assert other.events == [("delivered", 5, False, b"abcdefgh")]


def _frames_of(data: bytes) -> list[bytes]:
    frames = []
    while data:
        used = pamqp.frame.unmarshal(data)[0]
        frames.append(data[:used])
        data = data[used:]
    return frames


@pytest.mark.parametrize("headers", [b"", header_table({"reason": "é", "shard": 3})], ids=["plain", "headers"])
def test_a_return_names_the_queue_and_the_post(headers: bytes) -> None:
    cutter, heard = lean_cutter()
    content = b"".join(post_content(LEAN, 0xAB, b"body" * 10, FRAME_MAX, headers))
    assert cutter.feed(wire(spec.Basic.Return(312, "NO_ROUTE", "", "chat.in.5")) + content) == b""
    assert heard.events == [("returned", "chat.in.5", tag_text(0xAB), "312 NO_ROUTE")]


def test_a_return_of_parcels_has_no_message_id() -> None:
    cutter, heard = lean_cutter()
    content = b"".join(plain_content(LEAN, b"parcels", FRAME_MAX))
    cutter.feed(wire(spec.Basic.Return(312, "NO_ROUTE", "", "chat.node.a:1")) + content + delivery(1, b"after"))
    assert heard.events == [("returned", "chat.node.a:1", b"", "312 NO_ROUTE"), ("delivered", 1, False, b"after")]


def test_a_closed_channel_and_a_cancelled_consumer_are_told_and_passed_on() -> None:
    cutter, heard = lean_cutter()
    data = wire(spec.Basic.Cancel("shard-0", True)) + wire(spec.Channel.Close(404, "NOT_FOUND", 60, 40))
    assert cutter.feed(data) == data
    assert heard.events == [("cancelled",), ("closed", "404 NOT_FOUND")]


def test_an_alarm_is_seen_on_channel_zero_and_passed_on() -> None:
    cutter = FrameCutter()
    seen: list[str] = []
    cutter.readers[0] = ControlReader(seen.append)
    data = wire(Heartbeat(), 0) + wire(spec.Connection.Blocked("disk"), 0) + wire(spec.Connection.Unblocked(), 0)
    assert cutter.feed(data) == data
    assert seen == ["disk", ""]


def test_the_heartbeat_that_is_fed_to_aiormq_is_one() -> None:
    assert wire(Heartbeat(), 0) == HEARTBEAT_FRAME


def test_a_frame_that_does_not_end_where_it_says_is_refused() -> None:
    cutter, _ = lean_cutter()
    with pytest.raises(TornStream):
        cutter.feed(wire(spec.Basic.Ack(1))[:-1] + b"\x00" + HEARTBEAT_FRAME)


def test_a_frame_of_absurd_size_is_refused_at_its_head() -> None:
    cutter, _ = lean_cutter()
    with pytest.raises(TornStream):
        cutter.feed(b"\x03\x00\x03" + (FRAME_BYTES_MAX + 1).to_bytes(4, "big") + b"x")


def test_the_answer_of_a_broker_of_another_version_passes_as_it_is() -> None:
    cutter = FrameCutter()
    assert cutter.feed(b"AMQP\x01\x01\x00\x09") == b"AMQP\x01\x01\x00\x09"


def test_a_post_is_what_pamqp_reads_as_a_mandatory_persistent_publish() -> None:
    parts = [publish_method(LEAN, "chat.in.7"), *post_content(LEAN, 258, b"batch", FRAME_MAX)]
    (_, method), (_, header), (channel, body) = read_all(b"".join(parts))
    assert isinstance(method, spec.Basic.Publish)
    assert (method.exchange, method.routing_key, method.mandatory, method.immediate) == ("", "chat.in.7", True, False)
    assert isinstance(header, ContentHeader)
    assert (header.body_size, header.properties.delivery_mode) == (5, 2)
    assert header.properties.message_id == "0000000000000102"
    assert (channel, body.value) == (LEAN, b"batch")


def test_headers_of_a_dead_letter_are_what_pamqp_reads() -> None:
    headers = header_table({"reason": "not msgpack: é", "shard": 12})
    header = read_all(b"".join(post_content(LEAN, 1, b"b", FRAME_MAX, headers)))[0][1]
    assert header.properties.headers == {"reason": "not msgpack: é", "shard": 12}
    assert (header.properties.delivery_mode, header.properties.message_id) == (2, "0000000000000001")


@pytest.mark.parametrize("size", [0, 1, FRAME_MAX - 9, FRAME_MAX - 8, FRAME_MAX - 7, 2 * FRAME_MAX, 300_001])
@pytest.mark.parametrize("make", ["post", "plain"])
def test_a_body_of_any_size_goes_out_in_frames_within_the_bound_and_comes_in_whole(size: int, make: str) -> None:
    body = random.Random(size).randbytes(size)
    content = post_content(LEAN, 1, body, FRAME_MAX) if make == "post" else plain_content(LEAN, body, FRAME_MAX)
    frames = _frames_of(b"".join(content))
    assert max(map(len, frames)) <= FRAME_MAX
    assert len(frames) == 1 + -(-size // (FRAME_MAX - 8))
    cutter, heard = lean_cutter()
    cutter.feed(wire(spec.Basic.Deliver("t", 5, False, "", "q")) + b"".join(frames))
    assert heard.events == [("delivered", 5, False, body)]


def test_an_ack_is_what_pamqp_reads() -> None:
    (channel, one), (_, many) = read_all(ack_frame(LEAN, 5, False) + ack_frame(LEAN, 2**40, True))
    assert (channel, one.delivery_tag, one.multiple) == (LEAN, 5, False)
    assert (many.delivery_tag, many.multiple) == (2**40, True)


def test_a_queue_name_that_does_not_fit_is_our_own_fault() -> None:
    with pytest.raises(ValueError, match="queue name"):
        publish_method(LEAN, "q" * 256)
