"""What a session wants done: values, performed by switchboard.py. A session is tested by comparing them with ==."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from chatd.brake import Brake
from protocol.envelope import EntryPost, SignalPost
from protocol.errors import Code
from protocol.messages import Hello


class Login(NamedTuple):
    """Prove who it is, claim the register entry, open the queue; then call logged_in or login_refused."""

    hello: Hello


class PostEntry(NamedTuple):
    """Post to a shard, then tell accepted or refused with this cid. `copy` goes to the sender's own shard."""

    cid: int
    post: EntryPost
    copy: EntryPost | None


class PostBurst(NamedTuple):
    """For each of these: PostEntry(post.cid, post, None)."""

    posts: list[EntryPost]


class PostSignal(NamedTuple):
    """Post without an answer."""

    post: SignalPost


class Acknowledge(NamedTuple):
    """The device processed all up to seq."""

    seq: int


class ReadQueue(NamedTuple):
    """Read the sent_queue behind `after`, then call page or read_failed."""

    after: int
    entries_max: int


class AskHead(NamedTuple):
    """Find the newest seq and the register entry, then call head_told."""


class HoldReading(NamedTuple):
    """Read no more from the peer until ResumeReading."""


class ResumeReading(NamedTuple):
    """Read on."""


class Close(NamedTuple):
    """Write what is queued, then close the transport."""

    code: Code | None
    detail: str


Effect = (
    Login | PostEntry | PostBurst | PostSignal | Acknowledge | ReadQueue | AskHead | HoldReading | ResumeReading | Close
)  # fmt: skip


class Gate:
    """Whether posts are taken now. One for all sessions of a node; the postbox moves it, and the node says why the store is
    full ("" = it is not)."""

    __slots__ = ("brake", "in_flight", "is_open", "refused", "store_full")

    def __init__(self, shards: int = 1) -> None:
        self.brake = Brake(shards)
        self.in_flight = 0  # requests of all sessions without an answer
        self.refused: Counter[Code] = Counter()  # of all sessions, for metrics
        self.is_open = True
        self.store_full = ""

    def refusing(self, code: Code) -> Code:
        """The same code, counted."""
        self.refused[code] += 1
        return code
