"""The vectors that are read as they are: every message, several frames at once, and what is ignored on purpose."""

from __future__ import annotations

from protocol.codec import encode
from protocol.errors import Code
from protocol.messages import (
    Accepted,
    Ack,
    Bye,
    Credit,
    Deliver,
    Drained,
    Error,
    GoAway,
    Gone,
    Hello,
    Message,
    Ping,
    Pong,
    Read,
    ReadSync,
    Receipt,
    Send,
    Sent,
    Signal,
    Signalled,
    Welcome,
)
from protocol.wire import REF_MAX, Flag, Processed, Scheme, Status, Type
from tests.vectors.case import IGNORE, OURS, Case, error, good, message_to_json, packed, raw, refused

GENERATION = bytes.fromhex("0102030405060708")
TAG = bytes.fromhex("a1a2a3a4a5a6a7a8a9")
ID_1 = TAG + (1).to_bytes(7, "big")
ID_2 = TAG + (2).to_bytes(7, "big")
TIME_MS = 1_770_000_000_000

HELLO = Hello(
    0, 0, 0, ("receipts", "read"), "ann", "phone", Scheme.PASSWORD, "s3cret", b"", 64,
    {"name": "golden", "version": "1"},
)  # fmt: skip
RESUME = Hello(41, 0, 0, (), "", "phone", Scheme.TOKEN, "a.b.c", GENERATION, 1024, {})
WELCOME = Welcome(
    41, 0, 0, ("receipts", "read"), "north~3f", "s-1", TIME_MS, TAG, 40, GENERATION, 65536, 30000, 1024, 64
)
SEND = Send(1, 0, "bob", b"tea?")
DELIVER = Deliver(1, 0, "ann", ID_1, TIME_MS, b"tea?")
BOTH_RECEIPTS = int(Flag.RECEIPT | Flag.READ_RECEIPT)


def messages() -> list[Case]:
    """Every message type, and the corners of its fields."""
    to_server: list[tuple[str, Message, str]] = [
        ("send", SEND, "SEND of the four bytes 'tea?' to bob as cid 1, without ttl_s"),
        ("send_with_receipts_and_ttl", Send(2, BOTH_RECEIPTS, "bob", b"tea?", 60), "both receipts are asked for"),
        ("send_empty_payload", Send(3, 0, "bob", b""), "an empty payload is a payload"),
        ("send_largest_cid", Send(REF_MAX, 0, "bob", b"x"), "the largest cid, 2^53-1"),
        ("read", Read(4, 0, "ann", (ID_1, ID_2)), "two messages of ann were read"),
        ("signal", Signal(0, 0, "bob", b"typing"), "an ephemeral message"),
        ("ack", Ack(41, 0), "all up to seq 41 is processed; a body of no bytes"),
        ("credit", Credit(1000, 0), "deliver up to seq 1000"),
        ("ping", Ping(41, 0), "are you there? I stand at 41"),
        ("pong_of_a_client", Pong(41, 0, known=False, time_ms=0), "a client knows no head: known is false"),
    ]
    to_client: list[tuple[str, Message, str]] = [
        ("accepted", Accepted(3, 0, (1, 3, 2)), "three cids are durable, in any order; ref is the largest"),
        ("deliver", DELIVER, "seq 1: 'tea?' from ann"),
        (
            "deliver_with_receipts",
            Deliver(2, BOTH_RECEIPTS, "ann", ID_2, TIME_MS, b"!"),
            "the sender's flags come along",
        ),
        ("sent", Sent(3, 0, "bob", ID_1, TIME_MS, b"tea?"), "a device of this user sent that to bob"),
        ("receipt_delivered", Receipt(4, 0, "bob", Status.DELIVERED, (ID_1, ID_2), TIME_MS, 0), "two were delivered"),
        ("receipt_read", Receipt(5, 0, "bob", Status.READ, (ID_1,), TIME_MS, 0), "one was read"),
        ("receipt_expired", Receipt(6, 0, "bob", Status.EXPIRED, (ID_1,), TIME_MS, Code.TTL_PASSED), "one expired"),
        ("receipt_failed", Receipt(7, 0, "bob", Status.FAILED, (ID_1,), TIME_MS, Code.QUEUE_FULL), "one failed"),
        ("read_sync", ReadSync(8, 0, "ann", (ID_1,), TIME_MS), "another device of this user read ann's message"),
        ("signalled", Signalled(0, 0, "ann", b"typing"), "an ephemeral message from ann"),
        ("drained", Drained(41, 0), "what waited at login, up to seq 41, has been delivered"),
        ("gone", Gone(9, 0, 12, Code.TTL_PASSED), "seqs 9 to 12 are not coming: expired"),
        ("pong", Pong(41, 0, known=True, time_ms=TIME_MS), "the newest seq of the queue is 41"),
        ("go_away", GoAway(17, 0, Code.GOING_AWAY, 500, 5000), "come back after 0.5 to 5 s; cid 17 was accepted"),
        (
            "error_of_a_request",
            Error(5, 0, Code.BUSY, Processed.NO, 250, "later"),
            "cid 5 was not processed; again in 250 ms under a new cid",
        ),
        ("error_with_limit", Error(6, 0, Code.TOO_LARGE, Processed.NO, 0, "", 65536), "cid 6 was over 65536 bytes"),
    ]
    out = [good(f"{name}", "§4", "server", "open", message, meaning) for name, message, meaning in to_server]
    out += [good(f"{name}", "§4", "client", "open", message, meaning) for name, message, meaning in to_client]
    return [*out, *_at_the_edges()]


def _at_the_edges() -> list[Case]:
    refusal = Error(0, 0, Code.BAD_CREDENTIALS, Processed.NO, 0, "no")
    unknown = raw(Type.ERROR, packed(298, 0, 0, "a code of a later version", 0))
    unknown_message = Error(0, 0, 298, 0, 0, "a code of a later version")
    return [
        good("hello_with_password", "§4", "server", "greeting", HELLO, "a first login", "login"),
        good("hello_with_token_resumes", "§4", "server", "greeting", RESUME, "user '' = the token's own", "login"),
        good("welcome", "§4", "client", "login", WELCOME, "the session is open; deliveries go on behind 40"),
        good("bye", "§4", "server", "open", Bye(0, 0), "the client leaves", "closed"),
        good("bye_before_welcome", "§6", "server", "login", Bye(0, 0), "the client leaves early", "closed"),
        good("error_that_closes", "§9", "client", "login", refusal, "the login was refused", "closed"),
        good("go_away_before_welcome", "§6", "client", "login", GoAway(0, 0, 404, 0, 1000), "full stop", "login"),
        Case(
            "ping_of_a_server", "§7", "client", "open", encode(Ping(41, 0)), "the server asks, the client answers",
            [message_to_json(Ping(41, 0))], [message_to_json(Pong(0, 0, known=False, time_ms=0))],
        ),
        Case(
            "error_unknown_2xx", "§9", "client", "open", unknown, "an unknown 2xx closes, like all of its hundred",
            [message_to_json(unknown_message)], after="closed",
        ),
    ]  # fmt: skip


def several_at_once() -> list[Case]:
    """One read, many frames."""
    sends = [Send(cid, 0, "bob", bytes([cid])) for cid in (1, 2, 3)]
    mixed: list[Message] = [Ack(5, 0), Ping(5, 0), Signal(0, 0, "bob", b""), Send(9, 1, "bob", b"x"), Bye(0, 0)]
    mine: list[Message] = [DELIVER, Drained(1, 0), Accepted(1, 0, (1,)), Signalled(0, 0, "ann", b"")]
    behind_bye = encode(Bye(0, 0)) + encode(Send(1, 0, "bob", b"x"))
    return [
        _many("three_sends", "server", list(sends), "three SENDs in one read"),
        _many("five_kinds_and_bye", "server", mixed, "the last frame closes", "closed"),
        _many("four_kinds", "client", mine, "one write of a server"),
        Case(
            "preface_and_hello", "§2", "server", "preface", OURS + encode(HELLO), "the first flight of a TCP client",
            [message_to_json(HELLO)], after="login",
        ),
        Case(
            "welcome_and_deliveries", "§2", "client", "login", encode(WELCOME) + encode(DELIVER) + encode(Drained(1, 0)),
            "the first flight of a server", [message_to_json(m) for m in (WELCOME, DELIVER, Drained(1, 0))],
        ),
        Case(
            "nothing_is_read_behind_bye", "§6", "server", "open", behind_bye, "frames behind BYE are not looked at",
            [message_to_json(Bye(0, 0))], after="closed",
        ),
        Case("no_bytes", "§3", "server", "open", b"", "nothing happens", []),
    ]  # fmt: skip


def _many(name: str, side: str, messages: list[Message], meaning: str, after: str = "open") -> Case:
    data = b"".join(encode(message) for message in messages)
    return Case(name, "§3", side, "open", data, meaning, [message_to_json(m) for m in messages], after=after)


def ignored() -> list[Case]:
    """What a later version adds, and an older reader passes over."""
    send = message_to_json(SEND)
    ack = message_to_json(Ack(1, 0))
    longer = packed("bob", b"tea?", None, "new", 7, [1, [2]], {}, True)
    odd_flags = raw(Type.SEND, packed("bob", b"tea?"), flags=0x54, ref=1)
    later_preface = bytes.fromhex("4348544401091234")
    next_to_it = raw(200, b"\xc1\xc1", flags=IGNORE, ref=5) + encode(Ack(1, 0))
    return [
        Case("longer_array", "§14", "server", "open", raw(Type.SEND, longer, ref=1), "elements behind the known", [send]),
        Case("array_for_empty_body", "§14", "server", "open", raw(Type.ACK, packed(1, "x"), ref=1), "as above", [ack]),
        Case("empty_array_for_empty_body", "§4", "server", "open", raw(Type.ACK, b"\x90", ref=1), "allowed", [ack]),
        Case(
            "unknown_flags", "§3", "server", "open", odd_flags, "bits that SEND does not define are ignored",
            [{**send, "flags": 0x54}],
        ),
        Case("reserved_not_zero", "§3", "server", "open", raw(Type.ACK, ref=1, zero=0xFFFF), "ignored", [ack]),
        Case("unknown_type_with_ignore", "§14", "server", "open", next_to_it, "skipped, its body never parsed", [ack]),
        Case(
            "unknown_type_without_ignore", "§14", "server", "open", raw(200, b"\x90", ref=5) + encode(Ack(1, 0)),
            "refused, the connection goes on", [refused(5, Code.UNSUPPORTED), ack], [error(5, Code.UNSUPPORTED)],
        ),
        Case("unknown_type_to_a_client", "§14", "client", "open", raw(200, b"", flags=IGNORE), "skipped", []),
        Case("later_minor_in_preface", "§14", "server", "preface", later_preface, "only the major counts", [], after="greeting"),
    ]  # fmt: skip


def loose_msgpack() -> list[Case]:
    """msgpack has no canonical form: every spelling of a value is read."""
    read = message_to_json(SEND)
    forms = {
        "str8_bin16": bytes.fromhex("92d903626f62c500047465613f"),
        "str32_bin32": bytes.fromhex("92db00000003626f62c6000000047465613f"),
        "array16": bytes.fromhex("dc0002a3626f62c4047465613f"),
        "array32": bytes.fromhex("dd00000002a3626f62c4047465613f"),
        "nil_ttl": bytes.fromhex("93a3626f62c4047465613fc0"),
    }
    out = [
        Case(f"form_{n}", "§4.1", "server", "open", raw(3, b, ref=1), "the same SEND", [read]) for n, b in forms.items()
    ]
    ttl = bytes.fromhex("93a3626f62c4047465613f")
    wide = {"uint64": "cf000000000000003c", "int64": "d3000000000000003c", "int8": "d03c", "uint16": "cd003c"}
    expected = message_to_json(Send(1, 0, "bob", b"tea?", 60))
    return out + [
        Case(f"ttl_as_{n}", "§4.1", "server", "open", raw(3, ttl + bytes.fromhex(h), ref=1), "ttl_s 60", [expected])
        for n, h in wide.items()
    ]


def cases() -> list[Case]:
    """All of them."""
    return [*messages(), *several_at_once(), *ignored(), *loose_msgpack()]
