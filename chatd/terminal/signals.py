"""The typing convention: a SIGNAL whose payload is the msgpack map {"typing": true} or {"typing": false}.

It is the clients' agreement, not the protocol's: the server never opens a payload. See docs/client.md. Pure.
"""

from __future__ import annotations

from typing import Final

import msgpack

TYPING_EVERY_S: Final = 3.0  # while somebody types, it is said again no sooner than this
TYPING_SHOWN_S: Final = 7.0  # and believed for so long
PAYLOAD_BYTES_MAX: Final = 1024

assert TYPING_SHOWN_S > 2 * TYPING_EVERY_S, "one lost signal must not make it flicker"


def pack_typing(is_typing: bool) -> bytes:
    """The payload."""
    return bytes(msgpack.packb({"typing": is_typing}))


def typing_of(payload: bytes) -> bool | None:
    """What a payload says about typing; None for one that says nothing, or is not ours to understand."""
    if len(payload) > PAYLOAD_BYTES_MAX:
        return None
    try:
        said = msgpack.unpackb(payload, max_ext_len=0)
    except (ValueError, msgpack.UnpackException, RecursionError):
        return None
    typing = said.get("typing") if isinstance(said, dict) else None
    return typing if isinstance(typing, bool) else None
