"""What the core's tests share: an open connection, what it would write, and the frames and pages that it is fed with."""

from __future__ import annotations

from brokerd.ports import Page, Stored
from protocol.codec import decode, encode, encode_body
from protocol.connection import ServerConnection
from protocol.frames import Frame, FrameReader
from protocol.messages import Deliver, Hello, Message, Welcome
from protocol.names import device_tag
from protocol.wire import BODY_BYTES_HARD_MAX, CREDIT_DEFAULT, FEATURES, GENERATION_BYTES, Limits, Scheme, Type

GENERATION = b"g" * GENERATION_BYTES
NOW_S = 100.0
NOW_MS = 1_700_000_000_000


def hello(
    user: str = "ann", device: str = "laptop", *, ref: int = 0, generation: bytes = b"", credit: int = CREDIT_DEFAULT
) -> Hello:
    """A login."""
    return Hello(ref, 0, 0, FEATURES, user, device, int(Scheme.PASSWORD), "secret", generation, credit, {})


def open_connection(limits: Limits | None = None) -> ServerConnection:
    """A connection behind its WELCOME, which was taken out already."""
    conn = ServerConnection(limits or Limits(), now_s=NOW_S, preface=False)
    conn.receive(encode(hello()), NOW_S)
    tag = device_tag("ann", "laptop")
    conn.welcome(Welcome(0, 0, 0, (), "n", "s", NOW_MS, tag, 0, GENERATION, 65536, 30_000, 1024, 1024), NOW_S)
    conn.bytes_to_send()
    return conn


def messages_of(chunks: list[bytes] | bytes) -> list[Message]:
    """What a client reads out of these bytes."""
    data = chunks if isinstance(chunks, bytes) else b"".join(chunks)
    reader = FrameReader(BODY_BYTES_HARD_MAX, skippable=False)
    out = []
    for frame in reader.feed(data):
        assert isinstance(frame, Frame)
        out.append(decode(frame.type, frame.flags, frame.ref, frame.body))
    return out


def deliver(seq: int) -> Deliver:
    """The message that stands at `seq` in the tests' queue."""
    return Deliver(seq, 0, "bob", b"%016d" % seq, NOW_MS, b"payload %d" % seq)


def frames(first: int, last: int) -> bytes:
    """What brokerd hands over for seqs first..last."""
    return b"".join(encode(deliver(seq)) for seq in range(first, last + 1))


def stored(seq: int) -> Stored:
    """The same message, as it is read back."""
    return Stored(int(Type.DELIVER), 0, 0, encode_body(deliver(seq)))


def page(first: int, last: int, head: int) -> Page:
    """Entries first..last of a queue that reaches up to `head`."""
    return Page(first, [stored(seq) for seq in range(first, last + 1)], head)
