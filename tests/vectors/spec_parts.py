"""The parts of SPEC.md that are printed from the code, so that they cannot say something else.

They stand between `<!-- printed: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from protocol import wire
from protocol.errors import ERRORS, Code
from protocol.states import SPEAKERS, TRANSITIONS, Side, State
from protocol.wire import Flag, Processed, Scheme, Status, Type
from tests.vectors import session

_PART: Final = re.compile(r"(<!-- printed: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def _types() -> str:
    rows = ["| number | type | said by |", "|---|---|---|"]
    for type_ in Type:
        said = "either" if len(SPEAKERS[type_]) == 2 else next(iter(SPEAKERS[type_])).value
        rows.append(f"| {int(type_)} | {type_.name} | {said} |")
    return "\n".join(rows)


def _states() -> str:
    states = [state for state in State if TRANSITIONS[state]]
    rows = ["| type | " + " | ".join(f"in {state.value}" for state in states) + " |"]
    rows.append("|---" * (len(states) + 1) + "|")
    for type_ in Type:
        cells = [_cell(state, type_) for state in states]
        rows.append(f"| {type_.name} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _cell(state: State, type_: Type) -> str:
    then = TRANSITIONS[state].get(type_)
    if then is None:
        return "–"
    who = "/".join(side.value[0] for side in Side if side in SPEAKERS[type_])
    return who if then is state else f"{who} → {then.value}"


def _errors() -> str:
    rows = ["| code | name | meaning | closes | come back with the same words |", "|---|---|---|---|---|"]
    for code in Code:
        row = ERRORS[code]
        rows.append(
            f"| {int(code)} | {code.name} | {row.english} | {'yes' if row.closes else 'no'} |"
            f" {'yes' if row.retry else 'no'} |"
        )
    return "\n".join(rows)


_LIMITS: Final[tuple[tuple[str, str], ...]] = (
    ("GREETING_BODY_BYTES_MAX", "body bytes of a frame before WELCOME"),
    ("BODY_BYTES_MAX_DEFAULT", "body bytes of a frame in a session, unless WELCOME.body_bytes_max says otherwise"),
    ("BODY_BYTES_HARD_MAX", "body bytes that WELCOME may allow, and that a server skips"),
    ("REF_MAX", "ref, and every integer in a body (2^53-1)"),
    ("NAME_BYTES_MAX", "bytes of a user or device name"),
    ("SECRET_BYTES_MAX", "bytes of HELLO.secret"),
    ("FEATURES_MAX", "features in HELLO or WELCOME"),
    ("FEATURE_BYTES_MAX", "bytes of a feature's name"),
    ("INFO_PAIRS_MAX", "pairs in HELLO.info"),
    ("INFO_TEXT_BYTES_MAX", "bytes of a key or a value in HELLO.info"),
    ("MESSAGE_ID_BYTES", "bytes of a message id, exactly"),
    ("DEVICE_TAG_BYTES", "bytes of a device tag, exactly"),
    ("CID_BYTES", "bytes of the cid in a message id, exactly"),
    ("GENERATION_BYTES", "bytes of a generation, exactly (or none)"),
    ("RECEIPT_IDS_MAX", "ids in one READ, READ_SYNC or RECEIPT"),
    ("ACCEPTED_CIDS_MAX", "cids in one ACCEPTED"),
    ("UNACCEPTED_MAX", "SENDs and READs without an answer, unless WELCOME.unaccepted_max says otherwise"),
    ("CREDIT_MAX", "deliveries without an ACK, unless the server settles less"),
    ("TTL_S_MAX", "seconds in SEND.ttl_s (30 days)"),
    ("DETAIL_BYTES_MAX", "bytes of ERROR.detail"),
    ("LOGIN_S_MAX", "seconds from the first byte to WELCOME"),
    ("KEEPALIVE_S_DEFAULT", "seconds of a keepalive interval, unless WELCOME.keepalive_ms says otherwise"),
    ("KEEPALIVE_MISSES", "keepalive intervals of silence after which a peer is dead"),
)


def _limits() -> str:
    rows = ["| name | value | what it bounds |", "|---|---|---|"]
    rows += [f"| {name} | {_number(getattr(wire, name))} | {what} |" for name, what in _LIMITS]
    return "\n".join(rows)


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


def _constants() -> str:
    out = []
    for kind in (Flag, Status, Processed, Scheme):
        members = [(m.name, int(m)) for m in kind if int(m) or kind is Processed]
        shown = [f"{name} = 0x{value:02x}" if kind is Flag else f"{name} = {value}" for name, value in members]
        out.append(f"- `{kind.__name__.lower()}`: {', '.join(shown)}")
    return "\n".join(out)


PARTS: Final[dict[str, Callable[[], str]]] = {
    "types": _types,
    "states": _states,
    "errors": _errors,
    "limits": _limits,
    "constants": _constants,
    "session": session.to_markdown,
}


def printed(spec: str) -> str:
    """The text of SPEC.md with every printed part made new."""
    return _PART.sub(lambda part: f"{part[1]}{PARTS[part[2]]()}\n{part[4]}", spec)


def parts_in(spec: str) -> list[str]:
    """The names of the printed parts that the text has."""
    return [part[2] for part in _PART.finditer(spec)]
