"""Names that are none, and bodies that break a rule of the specification (SPEC §4.1, §5), each by what is wrong with it."""

from __future__ import annotations

from typing import Final

import msgpack

HELLO_FIELDS: Final = [0, [], "eve", "raw", 1, "t", b"", 0, {}]

BAD_NAMES: Final = [
    "", " ", "two words", "a:b", "#", "a#", "*", "a.*", "{x}", "a{b}c", "nul\0", "\0", "line\nfeed", "line\r\n",
    "\x1b[31mred", "tab\t", "del\x7f", "c1\x9b31m", "Upper", "-dash", ".dot", "_under", "zoë", "ｆｕｌｌ", "a\u200bb",
    "\u202eevil", "a\u2028b", "ﬁ", "a/b", "a\\b", '"', "a=b MESSAGE=x", "a" * 65,
]  # fmt: skip

BAD_BODIES: Final = {
    "nothing": b"",
    "not msgpack": b"\xc1",
    "cut": msgpack.packb(["bob", b"hi"])[:-1],
    "bytes behind it": msgpack.packb(["bob", b"hi"]) + b"\0",
    "a map": msgpack.packb({"to": "bob"}),
    "too few fields": msgpack.packb(["bob"]),
    "str where bin belongs": msgpack.packb(["bob", "hi"]),
    "bin where str belongs": msgpack.packb([b"bob", b"hi"]),
    "a float": msgpack.packb(["bob", b"hi", 60.0]),
    "not a number": msgpack.packb(["bob", b"hi", float("nan")]),
    "a bool": msgpack.packb(["bob", b"hi", True]),
    "negative": msgpack.packb(["bob", b"hi", -1]),
    "over 2^53": msgpack.packb(["bob", b"hi", 2**53]),
    "uint64 max": msgpack.packb(["bob", b"hi", 2**64 - 1]),
    "text that is not utf-8": b"\x92\xa2\xff\xfe\xc4\x00",
    "a surrogate": b"\x92\xa3\xed\xa0\x80\xc4\x00",
    "an ext": b"\x93\xa3bob\xc4\x00\xd4\x05\x00",
    "a timestamp with bad ns": b"\x93\xa3bob\xc4\x00\xd7\xff" + b"\xff" * 8,
    "nine deep": b"\x94\xa3bob\xc4\x00\xc0" + b"\x91" * 8 + b"\xc0",
    "sixty thousand deep": b"\x94\xa3bob\xc4\x00\xc0" + b"\x91" * 60_000,
    "a duplicate key": b"\x94\xa3bob\xc4\x00\xc0\x82\xa1a\x01\xa1a\x02",
    "an array of 2^31": b"\xdd\x80\x00\x00\x00",
    "a map of 2^32-1": b"\x91\xdf\xff\xff\xff\xff",
    "a bin of 2^32-1": b"\x92\xa3bob\xc6\xff\xff\xff\xff",
    "an ext of 2^32-1": b"\x92\xa3bob\xc9\xff\xff\xff\xff\x01",
    "64 KiB of empty maps": b"\xdd\x00\x00\xff\x00" + b"\x80" * 0xFF00,
}

BAD_HELLOS: Final = {
    "a duplicate key": msgpack.packb([*HELLO_FIELDS[:-1], 0])[:-1] + b"\x82\xa1a\xa1b\xa1a\xa1c",
    "an int key": msgpack.packb([*HELLO_FIELDS[:-1], {1: "a"}]),
    "deep info": msgpack.packb([*HELLO_FIELDS[:-1], 0])[:-1] + b"\x81\xa1a" + b"\x91" * 3000,
    "bytes behind it": msgpack.packb(HELLO_FIELDS) + b"\0",
    "a user of 257 bytes": msgpack.packb([0, [], "a" * 257, *HELLO_FIELDS[3:]]),
    "a secret of 3,073 bytes": msgpack.packb([*HELLO_FIELDS[:5], "x" * 3073, b"", 0, {}]),
    "a generation of 7 bytes": msgpack.packb([*HELLO_FIELDS[:6], b"1234567", 0, {}]),
    "33 features": msgpack.packb([0, ["f"] * 33, *HELLO_FIELDS[2:]]),
    "nothing": b"",
}
