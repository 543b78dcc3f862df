"""The feed under anything that may happen, in any order, from a seed: every seq once, in order, and none is missing."""

from __future__ import annotations

from random import Random

import pytest

from brokerd.ports import Page
from chatd.effects import ReadQueue
from protocol.messages import Drained
from tests.core.feed_rig import Rig
from tests.core.peers import deliver, frames, page


class World:
    """A queue that grows, a way that loses and repeats, a store that answers late, and a peer that reads as it likes."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.head = self.random.randrange(20)
        self.acked = self.random.randrange(self.head + 1)
        self.rig = Rig(self.acked, self.head, self.random.randrange(1, 12))
        self.written: list[int] = []
        self.drained = 0
        self.read: tuple[ReadQueue, Page | None] | None = None
        self.on_way: list[tuple[int, int]] = []

    def step(self) -> None:
        moves = (
            self.grow,
            self.arrive,
            self.lose,
            self.look,
            self.answer,
            self.fail,
            self.take,
            self.pause,
            self.nudge,
        )
        self.random.choice(moves)()
        self.collect()

    def grow(self) -> None:
        first, self.head = self.head + 1, self.head + self.random.randrange(1, 4)
        self.on_way.append((first, self.head))

    def arrive(self) -> None:
        if self.on_way:
            first, last = self.on_way.pop(0)
            for _ in range(self.random.choice((1, 1, 1, 2))):
                self.rig.feed.push(first, last, frames(first, last))

    def lose(self) -> None:
        if self.on_way and self.random.random() < 0.3:
            self.on_way.pop(0)

    def look(self) -> None:
        """The store looks at the queue now; what it saw arrives later."""
        if self.read is not None and self.read[1] is None:
            ask = self.read[0]
            last = min(self.head, ask.after + min(ask.entries_max, self.random.randrange(1, 5)))
            self.read = ask, page(ask.after + 1, last, self.head)

    def answer(self) -> None:
        self.look()
        if self.read is not None:
            (_, seen), self.read = self.read, None
            assert seen is not None
            assert self.rig.feed.page(seen)

    def fail(self) -> None:
        if self.read is not None and self.random.random() < 0.2:
            self.read = None
            self.rig.feed.retry()

    def take(self) -> None:
        if self.written and self.acked < self.written[-1]:
            self.acked = self.random.randrange(self.acked + 1, self.written[-1] + 1)
            assert self.rig.feed.ack(self.acked)

    def pause(self) -> None:
        self.rig.feed.set_writable(not self.rig.feed.is_writable)

    def nudge(self) -> None:
        if self.random.random() < 0.3:
            self.rig.feed.reaches(self.head)
        if self.random.random() < 0.1:
            self.rig.feed.doubt()

    def collect(self) -> None:
        for message in self.rig.written():
            if isinstance(message, Drained):
                self.drained += 1
            else:
                assert message == deliver(message.ref)
                self.written.append(message.ref)
        asked = self.rig.reads()
        assert len(asked) <= (self.read is None), "one read at a time"
        if asked:
            assert isinstance(asked[0], ReadQueue)
            self.read = asked[0], None

    def settle(self) -> None:
        """The peer reads, the store answers, and one last PING says how far the queue reaches."""
        self.on_way.clear()
        self.rig.feed.set_writable(True)
        self.collect()
        self.rig.feed.reaches(self.head)
        self.collect()
        while self.read is not None or self.acked < (self.written or [self.acked])[-1]:
            self.answer()
            self.collect()
            self.take()
            self.collect()


@pytest.mark.parametrize("seed", range(150))
def test_whatever_happens_each_seq_is_written_once_in_order_and_none_is_missing(seed: int) -> None:
    world = World(seed)
    begin = world.acked
    for _ in range(200):
        world.step()
    world.settle()
    assert world.written == list(range(begin + 1, world.head + 1))
    assert world.drained == 1
    assert world.rig.feed.is_live
