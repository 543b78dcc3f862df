"""What may go wrong in one world, and how often: drawn from the seed, so that some worlds know few kinds of faults.

A fault that every world has hides the bugs that another one repairs; with each kind absent from about half of the
worlds, every pair of kinds is met alone sooner or later.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from random import Random


@dataclass(frozen=True, slots=True)
class Odds:
    """Ratios (0..1) of single steps, and weights of what strikes from outside."""

    store_down_before: float = 0.0
    store_down_after: float = 0.0
    parcel_lost: float = 0.0
    parcel_repeated: float = 0.0
    post_refused: float = 0.0
    cut_before_write: float = 0.0
    crash_at_hand: float = 0.0
    crash_at_done: float = 0.0
    crash_at_post: float = 0.0
    cut: float = 0.0
    crash_node: float = 0.0
    crash_broker: float = 0.0
    freeze_broker: float = 0.0
    part_inbound: float = 0.0
    part_inbox: float = 0.0
    store_outage: float = 0.0
    slow_reader: float = 0.0


STEPS = {"store_down_before", "store_down_after", "parcel_lost", "parcel_repeated", "post_refused", "cut_before_write",
         "crash_at_hand", "crash_at_done", "crash_at_post"}  # fmt: skip
STRIKES = tuple(field.name for field in fields(Odds) if field.name not in STEPS)
# A batch that is refused (a nack, a queue that is missing) while a later one of the same session is taken: a resend of the
# refused cid is then a repeat, and lost. Until that has an answer, worlds do not know this fault.
OPEN_QUESTIONS = {"post_refused"}
GENTLE = {"cut", "parcel_repeated"}  # under these alone a message must be prompt


def draw(random: Random) -> Odds:
    """The odds of one world; every tenth is gentle."""
    if random.random() < 0.1:
        return Odds(cut=1.0, parcel_repeated=0.1)
    drawn: dict[str, float] = {}
    for field in fields(Odds):
        if random.random() < 0.5 and field.name not in OPEN_QUESTIONS:
            most = 1.0 if field.name in STRIKES else 0.02 if field.name.startswith("crash") else 0.1
            drawn[field.name] = most * random.random()
    return Odds(**drawn)


def is_gentle(odds: Odds) -> bool:
    """Whether nothing is lost but connections, and both ends learn of that."""
    return all(not getattr(odds, field.name) or field.name in GENTLE for field in fields(Odds))
