"""The ports of support: what happened to a message (traces), and the batches that nobody could work off (dead letters).

Adapters live in brokerd/links; tests/contracts holds each of them to what is written here. LinkDown as in brokerd.ports.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum, IntEnum
from typing import Final, NamedTuple, Protocol

# --- traces --------------------------------------------------------------------------------------------------------

HOPS_MAX: Final = 48  # of one message; what comes later is left out


class HopKind(IntEnum):
    """What happened, in the order in which it happens when several have one time. Numbers are stored: never reused."""

    TAKEN = 1  # by a node, from a session (detail)
    CONFIRMED = 2  # durable: its sender was told ACCEPTED
    REFUSED = 3  # its sender was told code
    SAVED = 4  # as seq, in the queue of user
    REPEAT = 5  # was saved before: the first result stands
    BOUNCED = 6  # not saved, because of code; its sender is told FAILED
    HANDED = 7  # to a node (detail), for device
    WRITTEN = 8  # to the connection of device
    ACKED = 9  # by device
    RECEIPT = 10  # DELIVERED was posted to its sender
    TROUBLE = 11  # the session of device ended, with code, before it acknowledged
    EXPIRED = 12  # its time was over
    DEAD = 13  # its batch went to the dead letters; detail says why
    REQUEUED = 14  # an operator put its batch back to the shard
    DROPPED = 15  # an operator threw its batch away


class Hop(NamedTuple):
    """One thing that happened to message `id` at a time of the wall clock of `by`, a node or a broker."""

    id: bytes
    at_ms: int
    kind: int
    by: str
    user: str = ""  # the receiver, where it is known
    device: str = ""
    seq: int = 0
    code: int = 0
    detail: str = ""


class Traces(Protocol):
    """Hops by message id, bounded: the newest `messages_max` messages, each for `keep_s` after its last hop, with at
    most HOPS_MAX hops. Not durable: a crash may lose the last ones. Raises LinkDown."""

    async def add(self, hops: Sequence[Hop]) -> None:
        """Keep them; one round trip. A repeat of a call whose answer was lost may keep a hop twice."""

    async def find(self, id_: bytes) -> list[Hop]:
        """The hops of one message as they happened, each once; empty when nothing is known."""


def in_order(hops: Sequence[Hop]) -> list[Hop]:
    """As `Traces.find` gives them."""
    return sorted(dict.fromkeys(hops), key=lambda hop: (hop.at_ms, hop.kind))


# --- what the sent_queue remembers of a message ---------------------------------------------------------------------


class Standing(Enum):
    """What a receiver's queue answered to a message, as far as its dedupe still knows."""

    NEVER = "never"  # it never came there, or so long ago that it is forgotten
    TAKEN = "taken"  # it was saved, whatever became of it
    REFUSED = "refused"  # the queue was full


class Memory(Protocol):
    """The dedupe of the sent_queues, to be read. Raises LinkDown."""

    async def standing(self, user: str, id_: bytes, now_ms: int) -> Standing:
        """What the queue of `user` answered to message `id_`."""


# --- dead letters --------------------------------------------------------------------------------------------------

NO_SHARD: Final = -1  # nobody knows where the batch came from


class DeadLetter(NamedTuple):
    """A batch of `shard` (NO_SHARD: not known), why nobody could work it off, and since when it lies here (0: not known)."""

    shard: int
    reason: str
    at_ms: int
    body: bytes


class Verdict(Enum):
    """What is to be done with a dead letter."""

    KEEP = "keep"
    REQUEUE = "requeue"  # back to its shard, durable; then it is gone from here
    DROP = "drop"


class Walked(NamedTuple):
    """How many letters were shown, and whether there are more than one walk shows."""

    shown: int
    has_more: bool


class DeadLetters(Protocol):
    """The batches that were buried, by all brokers. A daemon may bury more at the same time. Raises LinkDown."""

    async def walk(self, decide: Callable[[DeadLetter], Verdict | DeadLetter]) -> Walked:
        """Show each letter, oldest first, and do with it what `decide` says; a letter: REQUEUE that one in its place.

        A crash in the middle of a REQUEUE may leave the letter in both places: its messages are told apart as repeats.
        Only one walk may run at a time; a second one waits, or sees nothing of what the first one sees.
        """
