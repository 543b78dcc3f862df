"""What one world is like: what may go wrong in it and how often, how large it is, and what its people do.

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
    leave: float = 0.0
    crash_node: float = 0.0
    drain_node: float = 0.0
    crash_broker: float = 0.0
    freeze_broker: float = 0.0
    part_inbound: float = 0.0
    part_inbox: float = 0.0
    store_outage: float = 0.0
    store_emptied: float = 0.0
    slow_reader: float = 0.0


STEPS = {"store_down_before", "store_down_after", "parcel_lost", "parcel_repeated", "post_refused", "cut_before_write",
         "crash_at_hand", "crash_at_done", "crash_at_post"}  # fmt: skip
STRIKES = tuple(field.name for field in fields(Odds) if field.name not in STEPS)
SELDOM = {"store_emptied": 0.15}  # the rest: in every second world
GENTLE = Odds(cut=1.0, leave=0.5, drain_node=0.3, parcel_repeated=0.1)  # nothing is lost but connections, which both
# ends hear of: here a message must be prompt, long before the PING that would repair a lost hand-over


GENTLE_EVERY = 8  # seeds


@dataclass(frozen=True, slots=True)
class Shape:
    """How large a world is, and what is said in it."""

    nodes: int
    brokers: int
    users: int
    devices: int  # of each user
    late_device: bool  # one more comes in the middle
    count_max: int  # entries in a user's queue
    ttl: float  # ratio of messages with a short time to live
    read: float  # ratio of messages that are said to be READ
    is_gentle: bool


def draw(random: Random, *, is_gentle: bool) -> tuple[Odds, Shape]:
    """One world."""
    drawn: dict[str, float] = {}
    for field in fields(Odds):
        if random.random() < SELDOM.get(field.name, 0.5):
            most = 1.0 if field.name in STRIKES else 0.02 if field.name.startswith("crash") else 0.1
            drawn[field.name] = most * random.random()
    shape = Shape(
        nodes=random.randint(1, 3), brokers=random.randint(1, 2), users=random.randint(2, 3), devices=random.randint(1, 2),
        late_device=random.random() < 0.3, count_max=random.choice((5, 20, 10_000, 10_000)),
        ttl=random.choice((0.0, 0.0, 0.3)), read=random.choice((0.0, 0.3)), is_gentle=is_gentle,
    )  # fmt: skip
    return GENTLE if is_gentle else Odds(**drawn), shape
