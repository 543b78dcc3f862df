"""The brake: while a shard is behind, who says much to it is read more slowly, so that what waits there stays short.

ACCEPTED does not wait for brokerd, so nothing else would hold publishers who are faster than it. A node that posts much puts
a stamp (its own clock) on a batch now and then; brokerd gives it back as soon as it takes that batch, and its age is how
far the shard is behind. Of a shard that is behind the node keeps no more than brokerd works off in TARGET_S: so brokerd never
runs dry, and who says little waits no longer than that. A stamp that is lost says nothing, and what was told ages out: then nobody is slowed down. So it is
while brokerd is away. Nothing is refused here. Pure: the switchboard brings the time.
"""

from __future__ import annotations

from typing import Final

from protocol.names import shard_of

# Requests of all sessions of a node without an answer: 50,000 a second need about a thousand. Beyond it who has more than his
# share is not read on, so that who says little does not stand behind those who say all they can. `make overload`, 50 senders
# without a window: a bystander's p50 was 5.5 s.
IN_FLIGHT_MAX: Final = 4096
SHARE_MIN: Final = 16  # requests of one session

STAMP_S: Final = 0.1  # between two stamps for one shard
STAMP_POSTS_MIN: Final = 32  # posts to it since the last one,
STAMP_POSTS_PER_S: Final = 160.0  # and so many a second: below that there is nothing to slow down
BEHIND_S: Final = 0.25  # a shard that is further behind is braked for
TARGET_S: Final = 1.0  # what waits in such a shard is worked off in this time
WINDOW_MIN: Final = 256  # posts that may wait there in any case
RATE_S: Final = 0.25  # at least so long brokerd's rate is measured; it takes batches by the round
RATE_S_MAX: Final = 2.0  # a longer time says nothing of now
TOLD_S: Final = 1.0  # so long what was told counts, or as long as the age itself,
TOLD_S_MAX: Final = 5.0  # up to this
SLOT_S: Final = 0.2
SLOT_SHARE: Final = 4  # messages of one session in a slot to a full shard: up to 20 a second nobody is slowed down
SHARE_MAX: Final = 16  # what was not said in earlier slots is left, up to this
DEBT_MAX: Final = 100  # messages over its share: one read brings more than a slot allows
_MS_MASK: Final = (1 << 31) - 1
_COUNT_MASK: Final = (1 << 32) - 1


class _Shard:
    """How much of what this node posted to a shard waits there, and how much may."""

    __slots__ = (
        "coming", "mark", "mark_s", "posted", "rate", "rate_from", "rate_from_s", "until_s", "window", "worked",
    )  # fmt: skip

    def __init__(self) -> None:
        self.posted = self.worked = 0  # posts, since the start
        self.coming = 0  # said since the last batch, while the brake is on
        self.mark, self.mark_s = 0, 0.0  # `posted` at the last stamp
        self.rate: float | None = None  # posts a second that brokerd works off
        self.rate_from, self.rate_from_s = 0, 0.0
        self.window: float | None = None  # posts that may wait; None: it keeps up
        self.until_s = 0.0

    def measure(self, now_s: float) -> None:
        """brokerd has come as far as `worked`."""
        passed_s = now_s - self.rate_from_s
        if passed_s < RATE_S:
            return
        if passed_s <= RATE_S_MAX:
            rate = (self.worked - self.rate_from) / passed_s
            self.rate = rate if self.rate is None else (self.rate + rate) / 2
        else:
            self.rate = None
        self.rate_from, self.rate_from_s = self.worked, now_s


class Brake:
    """One for a node: which shards are behind and have enough, and what a slot's share of a session is."""

    __slots__ = ("_behind", "_shards", "is_on", "slot", "stamps_back")

    def __init__(self, shards: int) -> None:
        self.is_on = False
        self.slot = 0
        self.stamps_back = 0
        self._shards = [_Shard() for _ in range(shards)]
        self._behind: set[int] = set()

    @property
    def shards_behind(self) -> int:
        """How many shards are braked for."""
        return len(self._behind)

    def wants_stamp(self, number: int, posts: int) -> bool:
        """So many posts go to a shard. Whether their batch may carry a stamp; then ask for it."""
        shard = self._shards[number]
        shard.posted += posts
        shard.coming = 0
        return shard.posted - shard.mark >= STAMP_POSTS_MIN

    def stamp(self, number: int, now_s: float) -> int:
        """The stamp of this batch; 0: none, the last one was a moment ago, or little is said."""
        shard = self._shards[number]
        passed_s = now_s - shard.mark_s
        if passed_s < STAMP_S:
            return 0
        is_much = shard.posted - shard.mark >= STAMP_POSTS_PER_S * passed_s
        shard.mark, shard.mark_s = shard.posted, now_s
        return (_ms(now_s) << 32 | shard.posted & _COUNT_MASK) if is_much else 0

    def told(self, number: int, stamp: int, now_s: float) -> bool:
        """A stamp came back: brokerd took that batch, and all before it. Whether there is room now where was none."""
        self.stamps_back += 1
        age_s = (_ms(now_s) - (stamp >> 32) & _MS_MASK) / 1000
        if not 0 <= number < len(self._shards) or age_s > _MS_MASK / 2000:
            return False
        shard, was_full = self._shards[number], self.is_full(number)
        shard.worked = shard.posted - (shard.posted - stamp & _COUNT_MASK)
        shard.measure(now_s)
        if age_s < BEHIND_S:
            shard.window = None
            self._behind.discard(number)
        else:
            shard.window = max(WINDOW_MIN, TARGET_S * shard.rate) if shard.rate is not None else WINDOW_MIN
            shard.until_s = now_s + min(max(TOLD_S, age_s), TOLD_S_MAX)
            self._behind.add(number)
        self.is_on = bool(self._behind)
        return was_full and not self.is_full(number)

    def next_slot(self, now_s: float) -> None:
        """SLOT_S passed: everybody has a new share, and what was told long ago is forgotten."""
        self.slot += 1
        for number in [number for number in self._behind if self._shards[number].until_s <= now_s]:
            self._shards[number].window = None
            self._behind.discard(number)
        self.is_on = bool(self._behind)

    def is_full(self, number: int) -> bool:
        """Whether as much waits in this shard as may."""
        shard = self._shards[number]
        return shard.window is not None and shard.posted + shard.coming - shard.worked > shard.window

    def take(self, to: str) -> int:
        """A message to `to`, while the brake is on. Its shard."""
        number = shard_of(to, len(self._shards))
        self._shards[number].coming += 1
        return number


def _ms(now_s: float) -> int:
    return int(now_s * 1000) & _MS_MASK


class Share:
    """What one session has said to full shards."""

    __slots__ = ("_brake", "_left", "_shard", "_slot")

    def __init__(self, brake: Brake) -> None:
        self._brake = brake
        self._slot = 0
        self._shard = -1  # the last full one; -1: there was none
        self._left = SHARE_MAX

    def take(self, to: str) -> None:
        """A message to `to`, while the brake is on."""
        shard = self._brake.take(to)
        if self._brake.is_full(shard):
            self._refill()
            self._shard = shard
            self._left = max(-DEBT_MAX, self._left - 1)

    def is_used_up(self) -> bool:
        """Whether this session must wait until there is room, or for another slot."""
        if self._shard < 0:
            return False
        if not self._brake.is_full(self._shard):
            self._shard = -1
            return False
        self._refill()
        return self._left <= 0

    def _refill(self) -> None:
        slots, self._slot = self._brake.slot - self._slot, self._brake.slot
        self._left = min(SHARE_MAX, self._left + slots * SLOT_SHARE)
