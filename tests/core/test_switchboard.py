"""The switchboard and its lines: slow readers, unanswered messages, and a store that comes and goes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from brokerd.ports import Delivery
from chatd.switchboard import PAUSED_S_MAX
from protocol.envelope import AckPost, EntryPost, TroublePost, unpack_posts
from protocol.errors import Code
from protocol.messages import Accepted, Ack, Send
from protocol.wire import Limits
from tests.core.back_room import until
from tests.core.node_room import SHARDS, NodeRoom, Peer, framed, node_room
from tests.core.peers import deliver, hello
from tests.test_memory_links import turn


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[NodeRoom]:
    async with node_room(tmp_path, Limits(unaccepted_max=2)) as running:
        yield running


async def taken(room: NodeRoom) -> list[Delivery]:
    """The broker's place: what is posted comes into this list."""
    deliveries: list[Delivery] = []
    for shard in range(SHARDS):
        await room.queue.consume(shard, deliveries.append)
    return deliveries


async def test_a_message_is_accepted_when_the_queue_is_done_with_it(room: NodeRoom) -> None:
    deliveries = await taken(room)
    ann = await room.log_in()
    ann.heard()
    ann.say(Send(1, 0, "bob", b"tea?", None), Send(2, 0, "bob", b"now?", None))
    await until(lambda: len(deliveries) == 1)
    posts = unpack_posts(deliveries[0].body)[1]
    assert [(post.to, post.cid) for post in posts if isinstance(post, EntryPost)] == [("bob", 1), ("bob", 2)]
    assert ann.heard() == []
    deliveries[0].done()
    await until(lambda: bool(ann.wire.written))
    assert ann.heard() == [Accepted(2, 0, (1, 2))]


@pytest.mark.pure
async def test_what_is_said_while_there_is_a_pace_leaves_together_at_its_time(
    room: NodeRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliveries = await taken(room)
    ann, bob = await room.log_in(), await room.log_in("bob")
    told: list[tuple[int, bool]] = []
    is_over = False

    class Paced:
        def wait_s(self, now_s: float) -> float:
            return 0.0 if is_over else 0.01

        def took(self, items: int, now_s: float) -> None:
            told.append((items, is_over))

    monkeypatch.setattr(room.board, "_pace", Paced())
    ann.say(Send(1, 0, "cat", b"", None))
    await turn(3)
    bob.say(Send(1, 0, "cat", b"", None))
    await turn(3)
    assert deliveries == []
    is_over = True
    await until(lambda: bool(deliveries))
    assert told == [(2, True)]
    assert [len(unpack_posts(it.body)[1]) for it in deliveries] == [2]


async def test_an_acknowledgement_leaves_by_itself_soon(room: NodeRoom) -> None:
    deliveries = await taken(room)
    ann = await room.log_in()
    room.hand(framed(1, 2))
    ann.say(Ack(1, 0), Ack(2, 0))
    await until(lambda: len(deliveries) == 1)
    opened = await room.real_store.open("ann", "laptop", b"", 0)
    assert unpack_posts(deliveries[0].body)[1] == [AckPost(2, "ann", "laptop", 2, opened.generation)]


async def test_who_has_too_much_unanswered_is_not_read_though_the_socket_has_room_again(room: NodeRoom) -> None:
    deliveries = await taken(room)
    ann = await room.log_in()
    ann.say(Send(1, 0, "bob", b"", None), Send(2, 0, "bob", b"", None))
    assert not ann.wire.is_reading
    ann.line.pause_writing()
    ann.line.resume_writing()
    assert not ann.wire.is_reading
    await until(lambda: len(deliveries) == 1)
    deliveries[0].done()
    await until(lambda: ann.wire.is_reading)


async def test_a_slow_reader_is_not_read_though_its_messages_were_answered(room: NodeRoom) -> None:
    deliveries = await taken(room)
    ann = await room.log_in()
    ann.say(Send(1, 0, "bob", b"", None), Send(2, 0, "bob", b"", None))
    ann.line.pause_writing()
    await until(lambda: len(deliveries) == 1)
    deliveries[0].done()
    await until(lambda: not ann.line.session.is_holding)
    assert not ann.wire.is_reading
    ann.line.resume_writing()
    assert ann.wire.is_reading


async def test_a_slow_reader_is_delivered_what_it_missed_when_it_caught_up(room: NodeRoom) -> None:
    ann = await room.log_in()
    await room.save(1, 2)
    ann.heard()
    ann.line.pause_writing()
    room.hand(framed(1, 2))
    ann.line.resume_writing()
    await until(lambda: bool(ann.wire.written))
    assert ann.heard() == [deliver(1), deliver(2)]


async def test_a_peer_that_takes_nothing_for_too_long_is_closed(room: NodeRoom) -> None:
    ann = await room.log_in()
    ann.line.pause_writing()
    start_s = room.board.now_s()
    room.board.now_s = lambda: start_s + PAUSED_S_MAX - 1
    ann.line.session.conn.next_deadline_s = start_s + 1e6
    room.board.tick()
    assert ann.line.session.is_open
    room.board.now_s = lambda: start_s + PAUSED_S_MAX + 1
    room.board.tick()
    await until(lambda: ann.end is Code.SLOW_READER)


async def test_a_peer_with_too_many_bytes_under_way_is_closed(room: NodeRoom) -> None:
    ann = await room.log_in()
    ann.wire.pending = 2000
    room.hand(framed(1, 1))
    await until(lambda: ann.end is Code.SLOW_READER)


async def test_a_read_that_met_a_store_that_is_down_is_made_again(room: NodeRoom) -> None:
    ann = await room.log_in()
    await room.save(1)
    ann.heard()
    room.store.down = {"read"}
    room.hand(framed(2, 2))
    await until(lambda: "read" in room.store.calls)
    room.board.tick()
    assert ann.heard() == []
    await room.save(2)
    room.store.down = set()

    def is_read() -> bool:
        room.board.tick()
        return bool(ann.wire.written)

    await until(is_read)
    assert ann.heard() == [deliver(1), deliver(2)]


async def test_who_goes_with_something_unacknowledged_leaves_a_note_why(room: NodeRoom) -> None:
    deliveries = await taken(room)
    ann, bob = await room.log_in(), await room.log_in("bob")
    room.hand(framed(1, 1))
    for peer in (ann, bob):
        peer.hang_up()
    await until(lambda: len(deliveries) == 1)
    [note] = unpack_posts(deliveries[0].body)[1]
    assert isinstance(note, TroublePost)
    assert (note.user, note.device, note.reason) == ("ann", "laptop", Code.SILENT)


async def test_no_more_connections_are_taken_than_allowed_nor_while_the_node_drains(room: NodeRoom) -> None:
    peers = [Peer(room, "ann", "laptop") for _ in range(50)]
    assert room.board.enter(peers[0].wire, "", preface=False) is None
    peers[0].hang_up()
    room.board.is_draining = True
    assert room.board.enter(peers[0].wire, "", preface=False) is None
    room.board.is_draining = False
    assert room.board.enter(peers[0].wire, "", preface=False) is not None


async def test_a_login_that_takes_too_long_is_told_so(room: NodeRoom) -> None:
    room.accounts.gate.clear()
    ann = Peer(room, "ann", "laptop")
    ann.say(hello())
    start_s = room.board.now_s()
    room.board.now_s = lambda: start_s + 11
    room.board.tick()
    await until(lambda: ann.end is Code.LOGIN_TIMEOUT)
    room.accounts.gate.set()
    await room.log_in("bob")
    assert await room.seats() == []
