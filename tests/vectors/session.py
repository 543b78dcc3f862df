"""The worked session of SPEC §13: what two ends say to each other, byte for byte, over TCP."""

from __future__ import annotations

from typing import Any, Final

from protocol.codec import decode, encode
from protocol.frames import Frame, FrameReader
from protocol.messages import (
    Accepted,
    Ack,
    Bye,
    Deliver,
    Drained,
    Hello,
    Message,
    Ping,
    Pong,
    Receipt,
    Send,
    Welcome,
)
from protocol.names import device_tag, message_id
from protocol.wire import BODY_BYTES_HARD_MAX, HEAD_BYTES, Flag, Scheme, Status
from tests.vectors.case import OURS, message_to_json

GENERATION: Final = bytes.fromhex("c0ffee0000000001")
TIME_MS: Final = 1_770_000_000_000
ANN_PHONE: Final = device_tag("ann", "phone")
BOB_DESK: Final = device_tag("bob", "desk")
TEA: Final = message_id(BOB_DESK, 7)
YES: Final = message_id(ANN_PHONE, 1)

Step = tuple[str, Message | None, str]

STEPS: Final[tuple[Step, ...]] = (
    ("client", None, "The preface: CHTD, version 1.0."),
    (
        "client",
        Hello(0, 0, 0, ("receipts",), "ann", "phone", Scheme.PASSWORD, "s3cret", b"", 64, {"name": "worked"}),
        "In the same write: ann's phone logs in for the first time (ref 0, no generation).",
    ),
    (
        "server",
        Welcome(1, 0, 0, ("receipts",), "north~3f", "s-1", TIME_MS, ANN_PHONE, 0, GENERATION, 65536, 30000, 1024, 64),
        "Head is 1, the cursor 0: one message waits. Position is 0 now.",
    ),
    ("server", Deliver(1, int(Flag.RECEIPT), "bob", TEA, TIME_MS - 60_000, b"tea?"), "Seq 1, a minute old."),
    ("server", Drained(1, 0), "All that waited at login is delivered."),
    ("client", Ack(1, 0), "Seq 1 is processed. Bob will be told DELIVERED."),
    ("client", Send(1, int(Flag.RECEIPT), "bob", b"yes"), "Ann answers: cid 1, and wants a receipt."),
    ("server", Accepted(1, 0, (1,)), "Cid 1 is durable."),
    (
        "server",
        Receipt(2, 0, "bob", Status.DELIVERED, (YES,), TIME_MS + 40, 0),
        "Seq 2: a device of bob has acknowledged it. The id is the device tag of WELCOME and cid 1.",
    ),
    ("client", Ack(2, 0), "A receipt has a seq, so it is acknowledged too."),
    ("client", Ping(2, 0), "Half a keepalive of silence later."),
    ("server", Pong(2, 0, known=True, time_ms=TIME_MS + 15_000), "The newest seq is 2: nothing was missed."),
    ("client", Bye(0, 0), "Ann leaves; both sides close."),
)


def to_json() -> list[dict[str, Any]]:
    """The session as it stands in protocol/vectors/session.json."""
    out = []
    for speaker, message, meaning in STEPS:
        if message is None:
            out.append({"from": speaker, "hex": OURS.hex(), "meaning": meaning, "preface": True})
        else:
            said = message_to_json(message)
            out.append({"from": speaker, "hex": encode(message).hex(), "meaning": meaning, "says": said})
    return out


def to_markdown() -> str:
    """The session as it stands in SPEC §13: the head cut into its fields, the body in rows of 16 bytes."""
    lines = []
    for number, (speaker, message, meaning) in enumerate(STEPS, 1):
        arrow = "client → server" if speaker == "client" else "server → client"
        name = "preface" if message is None else type(message).__name__.upper()
        lines += [f"**{number}. {arrow}: {name}.** {meaning}", "", "```", *_rows(message), "```", ""]
    return "\n".join(lines).rstrip()


def _rows(message: Message | None) -> list[str]:
    if message is None:
        return ["43 48 54 44  01  00  00 00", "C  H  T  D   major minor zero"]
    data = encode(message)
    head, body = data[:HEAD_BYTES], data[HEAD_BYTES:]
    cuts = (head[:4], head[4:5], head[5:6], head[6:8], head[8:])
    rows = ["  ".join(cut.hex(" ") for cut in cuts)]
    rows[0] += f"    {len(body)} bytes, type {head[4]}, flags {head[5]}, zero, ref {message.ref}"
    rows += [body[at : at + 16].hex(" ") for at in range(0, len(body), 16)]
    if body:
        rows.append("[" + ", ".join(_shown(value) for value in message[2:]) + "]")
    return rows


def _shown(value: object) -> str:
    if isinstance(value, bytes):
        text = value.decode("ascii", "replace")
        return f"h'{value.hex()}'" if not text.isprintable() or not text.isascii() or not text else f"b'{text}'"
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(_shown(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{key}": "{text}"' for key, text in value.items()) + "}"
    if value is None or isinstance(value, bool):
        return {None: "nil", True: "true", False: "false"}[value]
    return str(int(value)) if isinstance(value, int) else str(value)


def said_in(data: bytes) -> list[Message]:
    """The messages in a run of whole frames."""
    frames = FrameReader(BODY_BYTES_HARD_MAX, skippable=False).feed(data)
    return [decode(f.type, f.flags, f.ref, f.body) for f in frames if isinstance(f, Frame)]
