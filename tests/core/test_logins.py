"""Logging in and out: what the register holds, who is replaced, and what a store that is down costs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from brokerd.ports import Seat
from chatd.logins import BUSY_RETRY_MS, REPLACING_RATE
from chatd.ports import LoginRefused
from protocol.envelope import DevicesParcel, EvictParcel, ParcelKind
from protocol.errors import Code
from protocol.messages import Drained, Error, Ping, Pong, Welcome
from tests.core.back_room import until
from tests.core.node_room import NodeRoom, Peer, node_room
from tests.core.peers import deliver, hello


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[NodeRoom]:
    async with node_room(tmp_path) as running:
        yield running


def came(room: NodeRoom, user: str = "ann", device: str = "laptop") -> Peer:
    """A peer that said HELLO."""
    peer = Peer(room, user, device)
    peer.say(hello(user, device))
    return peer


async def test_a_login_opens_the_queue_takes_the_seat_and_delivers_what_waits(room: NodeRoom) -> None:
    await room.real_store.create_user("ann", b"g" * 8, 0)
    await room.save(1, 2)
    ann = came(room)
    await until(lambda: ann.is_in and len(ann.wire.written) >= 3)
    welcome, *rest = ann.heard()
    assert isinstance(welcome, Welcome)
    assert (welcome.ref, welcome.cursor, welcome.node) == (2, 0, "n1")
    assert rest == [deliver(1), deliver(2), Drained(2, 0)]
    assert await room.seats() == [ann.line.seat]


async def test_a_login_that_is_refused_hears_the_code_and_leaves_nothing_behind(room: NodeRoom) -> None:
    room.accounts.refused["ann"] = LoginRefused(Code.BUSY, "for the log", 70)
    ann = came(room)
    await until(lambda: ann.wire.closed is not None)
    [error] = ann.heard()
    assert isinstance(error, Error)
    assert (error.code, error.retry_after_ms) == (Code.BUSY, 70)
    assert "log" not in error.detail
    assert len(room.board.roster) == 0
    assert room.board.counts.logins_refused == 1


@pytest.mark.parametrize("call", ["claim", "seats", "open"])
async def test_while_a_part_of_the_store_is_down_a_login_is_told_to_come_back(room: NodeRoom, call: str) -> None:
    part = room.store if call == "open" else room.register
    part.down = {call}
    ann = came(room)
    await until(lambda: ann.end is Code.STORE_DOWN)
    assert len(room.board.roster) == 0
    part.down = set()
    await room.log_in()


async def test_a_second_login_of_a_device_replaces_the_first_and_keeps_its_own_seat(room: NodeRoom) -> None:
    first = await room.log_in()
    second = await room.log_in()
    await until(lambda: first.end is Code.REPLACED)
    first.hang_up()
    await room.log_in("bob")  # behind whatever the first one left to do
    assert await room.seats() == [second.line.seat]
    assert list(room.board.roster.of("ann")) == [second.line]
    assert room.board.counts.replaced == 1


async def test_a_device_that_was_on_another_node_is_evicted_there(room: NodeRoom) -> None:
    await room.real_register.claim("ann", Seat("laptop", "n2", "77.2"))
    await room.log_in()
    await until(lambda: bool(room.elsewhere))
    assert room.elsewhere == [EvictParcel(ParcelKind.EVICT, "ann", "laptop", "77", int(Code.REPLACED))]


async def test_a_login_that_was_given_up_sends_the_session_that_it_replaced_back_and_not_away(room: NodeRoom) -> None:
    await room.real_register.claim("ann", Seat("laptop", "n2", "77.2"))
    claimed = room.store.held["open"] = asyncio.Event()
    ann = came(room)
    await until(lambda: "open" in room.store.calls)
    ann.hang_up()
    claimed.set()
    await until(lambda: bool(room.elsewhere))
    assert room.elsewhere == [EvictParcel(ParcelKind.EVICT, "ann", "laptop", "77", int(Code.INTERNAL))]


async def test_a_new_device_is_told_to_the_others_here_and_on_other_nodes(room: NodeRoom) -> None:
    await room.real_store.open("ann", "desk", b"g" * 8, room.board.now_ms())
    await room.real_register.claim("ann", Seat("desk", "n2", "1.1"))
    laptop = await room.log_in()
    await room.log_in("ann", "phone")
    assert laptop.line.session.devices == 3
    await until(lambda: len(room.elsewhere) == 2)
    assert room.elsewhere == [DevicesParcel(ParcelKind.DEVICES, "ann", count) for count in (2, 3)]


async def test_a_new_device_that_is_told_before_our_own_login_is_answered_is_not_forgotten(room: NodeRoom) -> None:
    answered = room.store.held["open"] = asyncio.Event()
    laptop = came(room)
    await until(lambda: "open" in room.store.calls)
    room.hand(DevicesParcel(ParcelKind.DEVICES, "ann", 2))
    answered.set()
    await until(lambda: laptop.is_in)
    assert laptop.line.session.devices == 2


async def test_a_new_device_of_which_nobody_told_us_is_learnt_of_at_the_next_ping(room: NodeRoom) -> None:
    laptop = await room.log_in()
    await room.real_register.claim("ann", Seat("desk", "n2", "1.1"))
    assert laptop.line.session.devices == 1
    laptop.say(Ping(0, 0))
    await until(lambda: laptop.line.session.devices == 2)


async def test_those_who_leave_one_after_the_other_are_each_seen_off_once(room: NodeRoom) -> None:
    lines = [await room.log_in(f"user{number}") for number in range(50)]
    for turns, line in enumerate(lines):
        line.hang_up()
        for _ in range(turns % 11):
            await asyncio.sleep(0)

    async def is_empty() -> bool:
        return not any([await room.real_register.seats([f"user{number}"]) != [[]] for number in range(50)])

    await until(is_empty)


async def test_who_leaves_gives_the_seat_back(room: NodeRoom) -> None:
    ann = await room.log_in()
    ann.hang_up()

    async def is_empty() -> bool:
        return await room.seats() == []

    await until(is_empty)
    assert len(room.board.roster) == 0
    assert room.board.lines == set()


async def test_a_claim_whose_answer_was_lost_leaves_no_seat_behind(room: NodeRoom) -> None:
    ann = await room.log_in()
    known = ann.line.seat
    room.register.lost_answers.add("claim")
    room.postroom.lost_some()
    await until(lambda: not room.register.lost_answers)
    assert await room.seats() != [known]
    assert ann.line.seat == known
    ann.hang_up()

    async def is_empty() -> bool:
        return await room.seats() == []

    await until(is_empty)


@pytest.mark.parametrize("when", ["while it is proven", "while it is claimed"])
async def test_who_hangs_up_in_the_middle_of_a_login_leaves_no_seat(room: NodeRoom, when: str) -> None:
    answered = room.store.held["open"] = asyncio.Event()
    if when == "while it is proven":
        room.accounts.gate.clear()
    ann = came(room)
    if when == "while it is claimed":
        await until(lambda: "open" in room.store.calls)
        assert len(await room.seats()) == 1
    ann.hang_up()
    room.accounts.gate.set()
    answered.set()
    await room.log_in("bob")

    async def is_empty() -> bool:
        return await room.seats() == []

    await until(is_empty)
    assert [line.session.user for line in room.board.roster] == ["bob"]


# --- PING ---------------------------------------------------------------------------------------------------------


async def test_a_ping_is_answered_with_the_newest_seq_and_what_is_missing_follows(room: NodeRoom) -> None:
    ann = await room.log_in()
    await room.save(1)
    ann.heard()
    ann.say(Ping(0, 0))
    await until(lambda: len(ann.wire.written) == 2)
    pong, message = ann.heard()
    assert isinstance(pong, Pong)
    assert (pong.ref, pong.known) == (1, True)
    assert message == deliver(1)


@pytest.mark.parametrize("part", ["store", "register"])
async def test_a_ping_is_answered_while_the_store_is_down(room: NodeRoom, part: str) -> None:
    ann = await room.log_in()
    ann.heard()
    getattr(room, part).down = {"heads", "seats"}
    ann.say(Ping(0, 0))
    await until(lambda: bool(ann.wire.written))
    [pong] = ann.heard()
    assert isinstance(pong, Pong)
    assert not pong.known


async def test_a_seat_that_the_register_lost_is_put_back_at_the_next_ping(room: NodeRoom) -> None:
    ann = await room.log_in()
    assert ann.line.seat is not None
    await room.real_register.release("ann", ann.line.seat)
    ann.say(Ping(0, 0))

    async def is_back() -> bool:
        return await room.seats() == [ann.line.seat]

    await until(is_back)


async def test_a_session_takes_its_seat_back_from_an_older_one_that_was_away_and_came_back(room: NodeRoom) -> None:
    ann = await room.log_in()
    older = Seat("laptop", "n2", f"77.{ann.line.login_ms - 1}.2")
    await room.real_register.renew_lease("n2", 60_000)
    await room.real_register.claim("ann", older)
    ann.say(Ping(0, 0))
    await until(lambda: bool(room.elsewhere))
    assert room.elsewhere[0] == EvictParcel(ParcelKind.EVICT, "ann", "laptop", "77", int(Code.REPLACED))

    async def is_back() -> bool:
        return await room.seats() == [ann.line.seat]

    await until(is_back)
    assert not ann.line.is_gone()


async def test_a_session_whose_seat_went_to_another_node_learns_it_at_the_next_ping(room: NodeRoom) -> None:
    ann = await room.log_in()
    newer = Seat("laptop", "n2", "5.1")
    await room.real_register.claim("ann", newer)
    ann.say(Ping(0, 0))
    await until(lambda: ann.end is Code.REPLACED)
    ann.hang_up()
    await room.log_in("bob")
    assert await room.seats() == [newer]


async def test_a_queue_that_was_made_anew_under_a_session_ends_it(room: NodeRoom) -> None:
    ann = await room.log_in()
    assert ann.line.seat is not None
    await room.real_register.release("ann", ann.line.seat)
    await room.real_store.delete_user("ann")
    ann.say(Ping(0, 0))
    await until(lambda: ann.end is Code.STORE_DOWN)


# --- credentials --------------------------------------------------------------------------------------------------


async def test_a_token_that_runs_out_and_an_account_that_is_closed_end_their_sessions(room: NodeRoom) -> None:
    bob = await room.log_in("bob")
    room.accounts.expires_s = 1000.0
    ann = await room.log_in()
    room.board.logins.check_credentials(1000.0)
    assert ann.line.session.is_open
    room.accounts.shut.add("bob")
    room.board.logins.check_credentials(1001.0)
    await until(lambda: ann.end is Code.TOKEN_EXPIRED)
    await until(lambda: bob.end is Code.REVOKED)


async def test_a_device_name_in_two_places_is_slowed_down_and_nobody_else_is(room: NodeRoom) -> None:
    for _ in range(int(REPLACING_RATE.burst) + 1):
        standing = await room.log_in()
    late = came(room)
    await until(lambda: late.wire.closed is not None)
    [error] = late.heard()
    assert isinstance(error, Error)
    assert error.code == Code.RATE_LIMITED
    assert 0 < error.retry_after_ms <= REPLACING_RATE.refill_s * 1000
    assert standing.is_in
    await room.log_in("ann", "tablet")


async def test_when_too_many_logins_wait_the_next_is_busy_at_once(
    room: NodeRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chatd.logins.LOGINS_WAITING_MAX", 1)
    room.accounts.gate.clear()
    first, second = came(room), came(room, "bob")
    await until(lambda: second.wire.closed is not None)
    [error] = second.heard()
    assert isinstance(error, Error)
    assert error.code == Code.BUSY
    assert error.retry_after_ms >= BUSY_RETRY_MS
    room.accounts.gate.set()
    await until(lambda: first.is_in)
    await room.log_in("bob")


async def test_who_hung_up_before_his_turn_is_not_logged_in(room: NodeRoom) -> None:
    room.board.logins._turns = asyncio.Semaphore(0)
    ann = came(room)
    await asyncio.sleep(0)
    ann.hang_up()
    room.accounts.refused["ann"] = LoginRefused(Code.BUSY, "nobody asks", 1)
    room.board.logins._turns.release()
    await room.log_in("bob")
    assert room.board.counts.logins_refused == 0
