"""Every number on the client wire, once. Spec: protocol/SPEC.md §3 (frames), §4 (messages), §8 (limits).

Nothing else in the project may write such a number. What relates two numbers is asserted at the bottom.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Final

# --- preface and version (SPEC §2) -------------------------------------------------------------------------------

MAGIC: Final = b"CHTD"
VERSION_MAJOR: Final = 1
VERSION_MINOR: Final = 0
PREFACE: Final = struct.Struct(">4sBBH")  # magic, major, minor, zero
PREFACE_BYTES: Final = PREFACE.size
WEBSOCKET_SUBPROTOCOL: Final = "chatd.1"  # stands for the preface on a WebSocket

# --- the frame (SPEC §3) -----------------------------------------------------------------------------------------

HEAD: Final = struct.Struct(">IBBHQ")  # body bytes, type, flags, zero, ref
HEAD_BYTES: Final = HEAD.size
REF_MAX: Final = 2**53 - 1  # the largest integer that every client's number type holds exactly


class Type(IntEnum):
    """What a frame means. A number is never given a second meaning."""

    HELLO = 1
    WELCOME = 2
    SEND = 3
    ACCEPTED = 4
    DELIVER = 5
    SENT = 6
    RECEIPT = 7
    READ = 8
    READ_SYNC = 9
    SIGNAL = 10
    SIGNALLED = 11
    ACK = 12
    CREDIT = 13
    DRAINED = 14
    GONE = 15
    PING = 16
    PONG = 17
    GOAWAY = 18
    ERROR = 19
    BYE = 20


class Flag(IntFlag):
    """Bits of a frame's flags byte; a bit that a type does not define is sent as 0 and ignored."""

    NONE = 0
    RECEIPT = 0x01  # SEND, DELIVER, SENT: the sender wants to be told DELIVERED, EXPIRED
    READ_RECEIPT = 0x02  # SEND, DELIVER, SENT: the sender would like READ
    IGNORE = 0x80  # any type: a peer that does not know the type skips the frame in silence


class Status(IntEnum):
    """What a RECEIPT says became of a message."""

    DELIVERED = 1
    READ = 2
    EXPIRED = 3
    FAILED = 4


class Processed(IntEnum):
    """In an ERROR: was the request carried out? UNKNOWN means: resend it under its old cid."""

    NO = 0
    YES = 1
    UNKNOWN = 2


class Scheme(IntEnum):
    """How HELLO proves who the user is."""

    TOKEN = 1
    PASSWORD = 2


# --- sizes and counts (SPEC §8) ------------------------------------------------------------------------------------

GREETING_BODY_BYTES_MAX: Final = 4 * 1024  # before WELCOME; a HELLO with a 3 KiB token fits
BODY_BYTES_MAX_DEFAULT: Final = 64 * 1024
BODY_BYTES_HARD_MAX: Final = 1024 * 1024  # no server may negotiate more; a longer claim closes the connection
NAME_BYTES_MAX: Final = 64
SECRET_BYTES_MAX: Final = 3 * 1024
FEATURES_MAX: Final = 32
FEATURE_BYTES_MAX: Final = 64
INFO_PAIRS_MAX: Final = 16
INFO_TEXT_BYTES_MAX: Final = 128
MESSAGE_ID_BYTES: Final = 16
DEVICE_TAG_BYTES: Final = 9
CID_BYTES: Final = MESSAGE_ID_BYTES - DEVICE_TAG_BYTES
GENERATION_BYTES: Final = 8
RECEIPT_IDS_MAX: Final = 256  # ids in one READ or RECEIPT
ACCEPTED_CIDS_MAX: Final = 1024  # cids in one ACCEPTED
UNACCEPTED_MAX: Final = 1024  # SENDs a session may have without an answer; beyond it the server stops reading
UNREAD_MAX_DEFAULT: Final = 10_000  # entries of the sender's own queue without an ACK; beyond it SEND is QUEUE_FULL
CREDIT_MAX: Final = 16 * 1024  # deliveries a session may have without an ACK
CREDIT_DEFAULT: Final = 1024
TTL_S_MAX: Final = 30 * 24 * 3600
DETAIL_BYTES_MAX: Final = 512

# --- times (SPEC §7) -----------------------------------------------------------------------------------------------

LOGIN_S_MAX: Final = 10.0  # from the first byte to WELCOME
KEEPALIVE_S_DEFAULT: Final = 30.0
KEEPALIVE_MISSES: Final = 2  # silent for this many intervals = dead: the published half-open bound

FEATURES: Final[tuple[str, ...]] = ("receipts", "read", "signals", "copies")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one server settles in WELCOME. SPEC §8."""

    body_bytes_max: int = BODY_BYTES_MAX_DEFAULT
    keepalive_s: float = KEEPALIVE_S_DEFAULT
    unaccepted_max: int = UNACCEPTED_MAX
    credit_max: int = CREDIT_MAX
    login_s_max: float = LOGIN_S_MAX
    unread_max: int = UNREAD_MAX_DEFAULT  # entries of its own queue that a sender has not acknowledged


assert HEAD_BYTES == 16
assert PREFACE_BYTES == 8
assert GREETING_BODY_BYTES_MAX > SECRET_BYTES_MAX + 4 * NAME_BYTES_MAX
assert BODY_BYTES_MAX_DEFAULT <= BODY_BYTES_HARD_MAX < 2**32
assert REF_MAX < 2 ** (8 * CID_BYTES), "a cid must fit behind the device tag in a message id"
assert RECEIPT_IDS_MAX * (MESSAGE_ID_BYTES + 2) + 2 * NAME_BYTES_MAX < BODY_BYTES_MAX_DEFAULT
