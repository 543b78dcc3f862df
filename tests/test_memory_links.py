"""What only the links of one process alone promise: their bounds, the answer after `done`, the dead-letter file."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from brokerd.links.dead_letters import append_dead_letter, read_dead_letters
from brokerd.links.memory import MemoryNodes, MemoryQueue, MemoryRegister
from brokerd.ports import Delivery, LinkDown, Seat
from brokerd.support_ports import DeadLetter


async def turn(count: int = 1) -> None:
    """Let the loop run what is ready; whoever was scheduled before has then been called."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_post_is_answered_only_after_done() -> None:
    queue = MemoryQueue()
    taken: list[Delivery] = []
    await queue.consume(0, taken.append)
    posted = queue.post(0, b"x")
    await turn(3)
    assert len(taken) == 1
    assert not posted.done()
    taken[0].done()
    assert posted.done()


async def test_a_second_done_counts_nothing_twice() -> None:
    queue = MemoryQueue()
    taken: list[Delivery] = []
    await queue.consume(0, taken.append)
    queue.post(0, b"x")
    await turn()
    taken[0].done()
    taken[0].done()
    assert queue.statistics() == {"waiting": 0, "waiting_bytes": 0}


async def test_done_of_a_consumer_that_left_answers_nobody() -> None:
    queue = MemoryQueue()
    leaving, taken = queue.rival(), list[Delivery]()
    await leaving.consume(0, taken.append)
    posted = queue.post(0, b"x")
    await turn()
    leaving.close()
    taken[0].done()
    assert not posted.done()
    assert queue.statistics() == {"waiting": 1, "waiting_bytes": 1}


@pytest.mark.parametrize("queue", [MemoryQueue(batches_max=2), MemoryQueue(bytes_max=20)], ids=["batches", "bytes"])
async def test_at_its_bound_the_queue_takes_no_post_until_one_is_done(queue: MemoryQueue) -> None:
    taken: list[Delivery] = []
    await queue.consume(0, taken.append)
    queue.post(0, b"x" * 10)
    queue.post(0, b"x" * 10)
    assert not queue.is_ready
    with pytest.raises(LinkDown):
        queue.post(0, b"x")
    await turn()
    taken[0].done()
    assert queue.is_ready
    queue.post(0, b"x")


async def test_a_flooded_inbox_drops_and_tells_its_node_of_the_gap() -> None:
    nodes = MemoryNodes(batches_max=2)
    batches: list[bytes] = []
    gaps: list[bool] = []
    await nodes.open("n~1", batches.append, lambda: gaps.append(True))
    for body in (b"1", b"2", b"3"):
        nodes.hand("n~1", body)
    await turn()
    assert batches == [b"1", b"2"]
    assert gaps == [True]
    nodes.hand("n~1", b"4")
    await turn()
    assert batches == [b"1", b"2", b"4"]


async def test_an_inbox_is_exclusive() -> None:
    nodes = MemoryNodes()
    await nodes.open("n~1", lambda batch: None, lambda: None)
    with pytest.raises(LinkDown):
        await nodes.open("n~1", lambda batch: None, lambda: None)


async def test_dead_letters_are_kept_in_a_file_and_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "dead-letters"
    queue = MemoryQueue(dead_letters_path=path)
    await queue.bury(Delivery(3, b"\xc1junk", False, lambda: None), "not msgpack")
    await queue.bury(Delivery(4, b"", False, lambda: None), "empty")
    kept = [(letter.shard, letter.reason, letter.body) for letter in read_dead_letters(path)]
    assert kept == [(3, "not msgpack", b"\xc1junk"), (4, "empty", b"")]
    assert [letter.shard for letter in queue.dead_letters] == [3, 4]


async def test_a_dead_letter_that_cannot_be_written_fails_its_future(tmp_path: Path) -> None:
    queue = MemoryQueue(dead_letters_path=tmp_path / "no such folder" / "dead-letters")
    with pytest.raises(LinkDown):
        await queue.bury(Delivery(0, b"x", False, lambda: None), "why")


def test_a_full_dead_letter_file_is_moved_aside_and_a_cut_record_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "dead-letters"
    for number in range(3):
        append_dead_letter(path, DeadLetter(number, "why", 0, b"x" * 40), bytes_max=60)
    path.write_bytes(path.read_bytes()[:-1])
    assert [letter.shard for letter in read_dead_letters(path)] == []
    assert [letter.shard for letter in read_dead_letters(tmp_path / "dead-letters.1")] == [0, 1]


async def test_a_seat_is_seen_while_its_lease_lives() -> None:
    now_s = [100.0]
    register = MemoryRegister(clock_s=lambda: now_s[0])
    seat = Seat("phone", "n~1", "s1")
    await register.claim("ann", seat)
    assert register.seats_now("ann") == []
    await register.renew_lease("n~1", 1000)
    assert register.seats_now("ann") == [seat]
    now_s[0] += 1.1
    assert register.seats_now("ann") == []
