"""The vectors that are refused: prefaces, heads, turns and bodies that break a rule, each with its code."""

from __future__ import annotations

from protocol.codec import encode
from protocol.errors import Code
from protocol.messages import Accepted, Ack, Hello, Ping, Send
from protocol.wire import BODY_BYTES_HARD_MAX, GREETING_BODY_BYTES_MAX, REF_MAX, Type
from tests.vectors.case import IGNORE, OURS, Case, closes, error, message_to_json, packed, raw, refused
from tests.vectors.valid import DELIVER, HELLO, ID_1, SEND, WELCOME

ACK = encode(Ack(1, 0))
SMALL = {"body_bytes_max": 64}


def prefaces() -> list[Case]:
    """The server answers with its own eight bytes, then closes."""
    rows = [
        ("preface_http", b"GET / HT", Code.BAD_PREFACE, "a browser"),
        ("preface_tls", bytes.fromhex("16030100c8010000"), Code.BAD_PREFACE, "a TLS ClientHello on the plain port"),
        ("preface_first_byte", b"\x00", Code.BAD_PREFACE, "one wrong byte is enough"),
        ("preface_fourth_byte", b"CHTX", Code.BAD_PREFACE, "so is the fourth"),
        ("preface_lower_case", b"chtd\x01\x00\x00\x00", Code.BAD_PREFACE, "case counts"),
        ("preface_major_0", bytes.fromhex("4348544400000000"), Code.VERSION_UNSUPPORTED, "major 0"),
        ("preface_major_2", bytes.fromhex("4348544402000000") + encode(HELLO), Code.VERSION_UNSUPPORTED, "major 2"),
    ]
    ours: list[dict[str, object]] = [{"preface": OURS.hex()}]
    out = [
        Case(name, "§2", "server", "preface", data, meaning, [{"closing": int(code)}], ours, "closed")
        for name, data, code, meaning in rows
    ]
    theirs = bytes.fromhex("4348544402000000")
    return [
        *out,
        Case("preface_cut_short", "§2", "server", "preface", OURS[:7], "the rest is awaited", [], after="preface"),
        closes("server_speaks_major_2", "§2", "login", theirs, Code.VERSION_UNSUPPORTED, "the server's own", side="client"),
        closes("server_knows_no_such_bytes", "§2", "login", OURS, Code.BAD_PREFACE, "our bytes were garbled", side="client"),
    ]  # fmt: skip


def heads() -> list[Case]:
    """Lengths and refs."""
    over = raw(Type.SEND, packed("bob", b"x" * 100), ref=7)
    skipped = [refused(7, Code.TOO_LARGE), message_to_json(Ack(1, 0))]
    too_large = [error(7, Code.TOO_LARGE, 64)]
    one_more = GREETING_BODY_BYTES_MAX + 1
    return [
        Case("oversize_is_skipped", "§3", "server", "open", over + ACK, "named, skipped, goes on", skipped, too_large, limits=SMALL),
        Case(
            "oversize_unknown_with_ignore", "§3", "server", "open", raw(200, b"x" * 100, flags=IGNORE) + ACK,
            "skipped in silence", [message_to_json(Ack(1, 0))], limits=SMALL,
        ),
        Case(
            "oversize_claim_of_1_mib", "§3", "server", "open", raw(3, ref=7, claim=BODY_BYTES_HARD_MAX), "may be skipped",
            skipped[:1], [error(7, Code.TOO_LARGE, 65536)],
        ),
        closes("claim_over_1_mib", "§3", "open", raw(3, claim=BODY_BYTES_HARD_MAX + 1), Code.FRAME_TOO_LARGE, "never skipped"),
        closes("claim_of_4_gib", "§3", "open", raw(3, claim=2**32 - 1), Code.FRAME_TOO_LARGE, "nothing is allocated"),
        closes("claim_of_4_gib_in_hello", "§3", "greeting", raw(1, claim=2**32 - 1), Code.FRAME_TOO_LARGE, "as above"),
        closes("hello_over_4096", "§3", "greeting", raw(1, claim=one_more), Code.FRAME_TOO_LARGE, "before WELCOME"),
        closes("claim_to_a_client", "§3", "open", raw(5, claim=BODY_BYTES_HARD_MAX + 1), Code.FRAME_TOO_LARGE, "as above", side="client"),
        closes("ref_over_2_53", "§3", "open", raw(3, packed("bob", b""), ref=REF_MAX + 1), Code.FRAME_MALFORMED, "ref 2^53"),
        closes("ref_2_64", "§3", "open", raw(12, ref=2**64 - 1), Code.FRAME_MALFORMED, "ref 2^64-1"),
        closes(
            "frames_before_a_fault_count", "§3", "open", ACK + raw(12, ref=2**60), Code.FRAME_MALFORMED,
            "whatever the cut of the stream, the ACK is read", before=[message_to_json(Ack(1, 0))],
        ),
        Case("cut_in_head", "§3", "server", "open", encode(SEND)[:15], "the rest is awaited", []),
        Case("cut_in_body", "§3", "server", "open", encode(SEND)[:-1], "the rest is awaited", []),
    ]  # fmt: skip


def turns() -> list[Case]:
    """The right words at the wrong time, or from the wrong side."""
    login, turn = Code.LOGIN_REQUIRED, Code.OUT_OF_TURN
    early = encode(HELLO) + encode(SEND)
    return [
        closes("send_before_hello", "§6", "greeting", encode(SEND), login, "HELLO comes first"),
        closes("ping_before_hello", "§6", "greeting", encode(Ping(0, 0)), login, "as above"),
        closes(
            "send_behind_hello", "§6", "greeting", early, login, "WELCOME is awaited", before=[message_to_json(HELLO)]
        ),
        closes("second_hello_in_login", "§6", "login", encode(HELLO), login, "one HELLO a connection"),
        closes("second_hello_in_session", "§6", "open", encode(HELLO), turn, "as above"),
        closes(
            "unknown_before_login", "§6", "greeting", raw(200, flags=IGNORE), login, "IGNORE counts in a session only"
        ),
        closes("welcome_by_client", "§6", "open", encode(WELCOME), turn, "a client may not say that"),
        closes("accepted_by_client", "§6", "open", encode(Accepted(1, 0, (1,))), turn, "as above"),
        closes("deliver_by_client", "§6", "open", encode(DELIVER), turn, "nobody can send in another's name"),
        closes("error_by_client", "§6", "open", raw(19, packed(100, 0, 0, "", 0)), turn, "a client only closes"),
        closes("deliver_before_welcome", "§6", "login", encode(DELIVER), login, "by the server", side="client"),
        closes("send_by_server", "§6", "open", encode(SEND), turn, "a server may not say that", side="client"),
        closes("second_welcome", "§6", "open", encode(WELCOME), turn, "one WELCOME a connection", side="client"),
    ]


def _bad(name: str, type_: int, body: bytes, meaning: str, *, spec: str = "§4.1", side: str = "server") -> Case:
    state = "greeting" if type_ == Type.HELLO else "login" if type_ == Type.WELCOME else "open"
    return closes(name, spec, state, raw(type_, body, ref=1), Code.BODY_MALFORMED, meaning, side=side)


def _send(name: str, body_hex: str, meaning: str) -> Case:
    return _bad(f"send_{name}", Type.SEND, bytes.fromhex(body_hex), meaning)


def bodies() -> list[Case]:
    """SEND bodies that are not strict msgpack, or not what SEND asks for. 92 a3626f62 c401 78 is a good one."""
    bob, x = "a3626f62", "c40178"
    return [
        _send("empty_body", "", "a SEND has a body"),
        _send("not_msgpack", "c1", "c1 is never used"),
        _send("cut_array", "92" + bob, "the second element is missing"),
        _send("trailing_bytes", "92" + bob + x + "00", "one value a body"),
        _send("two_arrays", "92" + bob + x + "90", "as above"),
        _send("a_map_for_an_array", "82a2746f" + bob + "a162" + x, "the body is an array"),
        _send("an_integer", "05", "as above"),
        _send("too_short", "91" + bob, "two elements at least"),
        _send("to_is_bin", "92c403626f62" + x, "to is a str"),
        _send("to_is_nil", "92c0" + x, "as above"),
        _send("payload_is_str", "92" + bob + "a178", "payload is a bin"),
        _send("ttl_is_bool", "93" + bob + x + "c3", "true is not 1"),
        _send("ttl_is_float", "93" + bob + x + "cb404e000000000000", "60.0 is not 60"),
        _send("ttl_is_nan", "93" + bob + x + "cb7ff8000000000000", "NaN"),
        _send("ttl_is_negative", "93" + bob + x + "ff", "-1"),
        _send("ttl_is_2_53", "93" + bob + x + "cf0020000000000000", "over 2^53-1"),
        _send("ttl_is_2_64", "93" + bob + x + "cfffffffffffffffff", "2^64-1"),
        _send("ttl_is_str", "93" + bob + x + "a23630", "'60'"),
        _send("utf8_cut", "92a2c3" + x, "a str that is cut within a character and runs into the next"),
        _send("utf8_ff", "92a2fffe" + x, "ff fe is not UTF-8"),
        _send("utf8_surrogate", "92a3eda080" + x, "U+D800 may not be encoded"),
        _send("utf8_overlong", "92a2c0af" + x, "an overlong slash"),
        _send("ext", "93" + bob + x + "d40100", "ext types are not used"),
        _send("ext_empty", "94" + bob + x + "c0c70001", "also none of no bytes, also where elements are ignored"),
        _send("timestamp", "94" + bob + x + "c0d6ff00000000", "nor the timestamp"),
        _send("array32_claim", "ddffffffff", "four thousand million elements; nothing is allocated"),
        _send("map32_claim", "92dfffffffff" + x, "the same of pairs"),
        _send("str32_claim", "92dbffffffff", "the same of bytes"),
        _send("bin32_claim", "92" + bob + "c6ffffffff", "the same of bytes"),
        _send("ext32_claim", "92c9ffffffff01", "the same of bytes"),
        _send("33_elements", "dc0021" + bob + x + "c0" * 31, "an array of more than 32 elements"),
        _send("map_in_the_tail", "94" + bob + x + "c081a16101", "maps are in HELLO only"),
        _send("deep", "94" + bob + x + "c0" + "91" * 8 + "c0", "nested 9 deep; 8 is the most"),
        _send("very_deep", "94" + bob + x + "c0" + "91" * 2000 + "c0", "nested 2001 deep"),
    ]


def other_bodies() -> list[Case]:
    """The same for the other messages, where a rule is their own."""
    hello = list(HELLO[2:])
    id_ = bytes(ID_1)

    def hello_with(place: int, value: object) -> bytes:
        return packed(*hello[:place], value, *hello[place + 1 :])

    head = packed(*hello[:8])[1:]  # behind the array byte, before info
    twice = b"\x99" + head + bytes.fromhex("82a161a178a161a179")
    bare = b"\x99" + head
    out = [
        _bad("hello_short", 1, packed(*hello[:8]), "nine elements"),
        _bad("hello_key_twice", 1, twice, "info holds the key 'a' twice"),
        _bad("hello_key_is_int", 1, bare + bytes.fromhex("8101a178"), "the keys of info are str"),
        _bad("hello_key_is_bin", 1, bare + bytes.fromhex("81c40161a178"), "as above"),
        _bad("hello_key_is_array", 1, bare + bytes.fromhex("8190a178"), "as above"),
        _bad("hello_info_value_is_int", 1, bare + bytes.fromhex("81a16101"), "the values of info are str"),
        _bad("hello_info_17_pairs", 1, hello_with(8, {f"k{n}": "" for n in range(17)}), "16 pairs at most"),
        _bad("hello_info_is_array", 1, hello_with(8, []), "info is a map"),
        _bad("hello_33_features", 1, hello_with(1, ["f"] * 33), "32 features at most"),
        _bad("hello_feature_is_int", 1, hello_with(1, [1]), "features are str"),
        _bad("hello_feature_of_65_bytes", 1, hello_with(1, ["é" * 32 + "x"]), "33 characters, 65 bytes: bytes count"),
        _bad("hello_user_is_nil", 1, hello_with(2, None), "user is a str; the empty one for a token's own"),
        _bad("hello_scheme_is_bool", 1, hello_with(4, True), "true is not 1"),
        _bad("hello_secret_too_long", 1, hello_with(5, "x" * 3073), "3072 bytes at most"),
        _bad("hello_generation_of_7", 1, hello_with(6, b"1234567"), "8 bytes or none"),
        _bad("read_no_ids", 8, packed("ann", []), "one id at least"),
        _bad("read_257_ids", 8, packed("ann", [id_] * 257), "256 ids at most"),
        _bad("read_id_of_15", 8, packed("ann", [id_[:15]]), "an id is 16 bytes"),
        _bad("read_id_is_str", 8, packed("ann", ["0123456789abcdef"]), "an id is a bin"),
        _bad("signal_payload_is_str", 10, packed("bob", "typing"), "payload is a bin"),
        _bad("ack_body_is_not_an_array", 12, b"\x01", "no bytes, or an array"),
        _bad("pong_known_is_int", 17, packed(1, 0), "1 is not true"),
    ]
    return [*out, *_to_a_client(id_)]


def _to_a_client(id_: bytes) -> list[Case]:
    rows = [
        ("accepted_cid_is_str", 4, packed(["1"]), "cids are integers"),
        ("accepted_not_an_array", 4, packed(1), "as above"),
        ("accepted_1025_cids", 4, packed(list(range(1025))), "1024 cids at most"),
        ("deliver_short", 5, packed("ann", id_, 1), "four elements"),
        ("deliver_payload_is_str", 5, packed("ann", id_, 1, "x"), "payload is a bin"),
        ("deliver_trailing_bytes", 5, packed("ann", id_, 1, b"x") + b"\x00", "one value a body"),
        ("deliver_ext", 5, b"\x94\xd4\x01\x00" + packed(id_, 1, b"x")[1:], "ext types are not used"),
        ("deliver_time_is_float", 5, packed("ann", id_, 1.5, b"x"), "time_ms is an integer"),
        ("deliver_bin32_claim", 5, packed("ann", id_, 1, b"")[:-2] + bytes.fromhex("c6ffffffff"), "nothing allocated"),
        ("welcome_short", 2, packed(*WELCOME[2:13]), "twelve elements"),
        ("receipt_status_is_str", 7, packed("bob", "READ", [id_], 1, 0), "status is an integer"),
        ("gone_last_missing", 15, packed(), "two elements"),
        ("error_code_is_str", 19, packed("BUSY", 0, 0, "", 0), "codes are numbers"),
    ]
    return [_bad(name, type_, body, meaning, side="client") for name, type_, body, meaning in rows]


def just_within() -> list[Case]:
    """The largest that passes, beside the smallest that does not."""
    bob, x = bytes.fromhex("a3626f62"), bytes.fromhex("c40178")
    read = message_to_json(Send(1, 0, "bob", b"x"))
    deep = b"\x94" + bob + x + b"\xc0" + b"\x91" * 6 + b"\x90"
    wide = b"\xdc\x00\x20" + bob + x + b"\xc0" * 30
    full = Hello(*HELLO[:4], "a" * 64, "b" * 64, 1, "x" * 3072, b"12345678", 2**53 - 1, {})
    fits = raw(Type.SEND, packed("bob", b"x" * (64 - 7)), ref=1)
    return [
        Case("nested_8_deep", "§4.1", "server", "open", raw(3, deep, ref=1), "8 is the most", [read]),
        Case("array_of_32", "§4.1", "server", "open", raw(3, wide, ref=1), "32 is the most", [read]),
        Case(
            "hello_full", "§8", "server", "greeting", encode(full), "names of 64, a secret of 3072 bytes",
            [message_to_json(full)], after="login",
        ),
        Case(
            "body_of_the_limit", "§3", "server", "open", fits, "64 of 64 bytes",
            [message_to_json(Send(1, 0, "bob", b"x" * 57))], limits=SMALL,
        ),
    ]  # fmt: skip


def cases() -> list[Case]:
    """All of them."""
    return [*prefaces(), *heads(), *turns(), *bodies(), *other_bodies(), *just_within()]
