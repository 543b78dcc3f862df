"""The client against broken networks and a server in trouble: nothing lost, nothing twice, nothing out of order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from protocol.client import Backoff, Client, ClientClosed, Closed, Incomings, Reconnecting, Refused
from protocol.errors import Code
from protocol.messages import Ack, Bye, Deliver, GoAway, Hello, Ping, Send
from protocol.wire import PREFACE_BYTES, Processed
from tests.client.manual_clock import ManualClock
from tests.client.small_server import SmallServer

MakeClient = Callable[..., Client]
TEXTS = [b"%d" % index for index in range(12)]


async def take(client: Client, count: int) -> list[Incomings]:
    async with asyncio.timeout(10):
        return [await anext(client) for _ in range(count)]


@pytest.mark.parametrize("cut_after_bytes", [*range(1, 40, 3), 60, 100, 150, 151, 152, 180, 200, 220, 240, 300, 400])
async def test_a_connection_cut_at_any_byte_loses_and_repeats_nothing(
    make_client: MakeClient, server: SmallServer, cut_after_bytes: int
) -> None:
    server.trouble.cut_after_bytes = cut_after_bytes
    async with make_client() as ann:
        ids = await asyncio.gather(*[ann.post("bob", text) for text in TEXTS])
    assert server.payloads("bob") == TEXTS
    assert [entry.id for entry in server.queue("bob").entries if isinstance(entry, Deliver)] == ids


async def test_a_lost_accepted_is_answered_for_the_same_cid_in_the_next_session(
    make_client: MakeClient, server: SmallServer
) -> None:
    server.trouble.lose_accepted = 3
    async with make_client() as ann:
        await asyncio.gather(*[ann.post("bob", text) for text in TEXTS])
    assert server.payloads("bob") == TEXTS
    assert len(server.sessions) == 4
    assert len(server.of(Send)) == 4 * len(TEXTS)


async def test_a_delivery_that_comes_twice_is_seen_once(make_client: MakeClient, server: SmallServer) -> None:
    server.trouble.repeat_deliveries = True
    for text in TEXTS:
        server.deliver("ann", text)
    async with make_client() as ann:
        got = await take(ann, len(TEXTS))
    assert [message.ref for message in got] == list(range(1, len(TEXTS) + 1))


async def test_a_gap_makes_the_client_come_again_and_ask_from_its_position(
    make_client: MakeClient, server: SmallServer
) -> None:
    for text in TEXTS:
        server.deliver("ann", text)
    server.trouble.leave_out = {5}
    async with make_client() as ann:
        got = await take(ann, len(TEXTS))
    assert [message.ref for message in got] == list(range(1, len(TEXTS) + 1))
    assert len(server.sessions) == 2


async def test_a_message_in_hand_during_a_reconnect_is_not_given_again(
    make_client: MakeClient, server: SmallServer
) -> None:
    for text in TEXTS[:4]:
        server.deliver("ann", text)
    async with make_client() as ann:
        got = await take(ann, 2)
        server.live[0].drop()
        await server.until(lambda: len(server.sessions) == 2)
        got += await take(ann, 2)
        assert [message.ref for message in got] == [1, 2, 3, 4]
        await ann.wait_connected()
    hellos = [message for message in server.heard if isinstance(message, Hello)]
    assert hellos[1].ref <= 2
    await server.until(lambda: server.queue("ann").cursors["laptop"] == 4)


async def test_a_new_generation_starts_the_queue_anew(make_client: MakeClient, server: SmallServer) -> None:
    for text in TEXTS[:3]:
        server.deliver("ann", text)
    async with make_client() as ann:
        await take(ann, 3)
        queue = server.queue("ann")
        queue.generation, queue.entries, queue.cursors = b"gen-0002", [], {}
        server.deliver("ann", b"first of the new queue")
        server.live[0].drop()
        (message,) = await take(ann, 1)
        assert isinstance(message, Deliver)
        assert (message.ref, message.payload) == (1, b"first of the new queue")
        server.deliver("ann", b"second")
        await take(ann, 1)
        await server.until(lambda: queue.cursors.get("laptop") == 1)


@pytest.mark.parametrize("code", [Code.REPLACED, Code.REVOKED, Code.TOKEN_EXPIRED])
async def test_a_final_code_ends_the_client_and_it_does_not_come_back(
    make_client: MakeClient, server: SmallServer, clock: ManualClock, code: Code
) -> None:
    async with make_client() as ann:
        await ann.wait_connected()
        server.trouble.silent_accepts = True
        waiting = ann.post("bob", b"never answered")
        server.live[0].fail(code)
        with pytest.raises(ClientClosed, match=code.name):
            await anext(ann)
        with pytest.raises(ClientClosed):
            await waiting
        assert isinstance(ann.state, Closed)
        assert ann.state.code == code
    assert clock.slept == []
    assert server.connections == 1


async def test_two_clients_with_one_device_do_not_throw_each_other_out_for_ever(
    make_client: MakeClient, server: SmallServer
) -> None:
    async with make_client() as old:
        await old.wait_connected()
        async with make_client() as new:
            with pytest.raises(ClientClosed, match="REPLACED"):
                await anext(old)
            await new.send("bob", b"the newest wins")
    assert server.connections == 2


async def test_a_client_comes_back_once_when_a_login_that_it_gave_up_may_have_replaced_it(
    make_client: MakeClient, server: SmallServer
) -> None:
    server.trouble.unheard_logins = 1
    async with make_client() as ann:
        await ann.wait_connected()
        server.live[0].fail(Code.REPLACED)
        await server.until(lambda: len(server.sessions) == 2)
        await ann.wait_connected()
        server.live[0].fail(Code.REPLACED)
        with pytest.raises(ClientClosed, match="REPLACED"):
            await anext(ann)


async def test_a_code_that_may_return_waits_at_least_its_retry_after(
    make_client: MakeClient, server: SmallServer, clock: ManualClock
) -> None:
    states: list[object] = []
    async with make_client(on_state=states.append) as ann:
        await ann.wait_connected()
        server.live[0].fail(Code.STORE_DOWN, retry_after_ms=4000)
        await server.until(lambda: len(server.sessions) == 2)
        await ann.wait_connected()
    (waiting,) = [state for state in states if isinstance(state, Reconnecting)]
    assert 4.0 <= waiting.wait_s <= 4.5
    assert waiting.code == Code.STORE_DOWN
    assert clock.slept == [waiting.wait_s]


async def test_a_login_that_is_refused_for_now_is_tried_again(
    make_client: MakeClient, server: SmallServer, clock: ManualClock
) -> None:
    server.trouble.refuse_login.extend([Code.BUSY, Code.SERVER_FULL])
    async with make_client() as ann:
        await ann.wait_connected()
    assert len(clock.slept) == 2
    assert all(wait_s >= 0.7 for wait_s in clock.slept)


async def test_a_server_that_is_away_is_asked_with_growing_waits(
    make_client: MakeClient, server: SmallServer, clock: ManualClock
) -> None:
    await server.stop_tcp()
    tried = asyncio.Event()
    clock.on_sleep = lambda: tried.set() if len(clock.slept) >= 12 else None
    async with make_client():
        await asyncio.wait_for(tried.wait(), 10)
        await server.start_tcp(server.tcp_port)
    tops = [min(30.0, 0.5 * 2**index) for index in range(12)]
    assert all(wait_s <= top for wait_s, top in zip(clock.slept, tops, strict=False))
    assert max(clock.slept) > 8


async def test_goaway_sends_nothing_new_and_comes_back_within_its_window(
    make_client: MakeClient, server: SmallServer, clock: ManualClock
) -> None:
    async with make_client() as ann:
        await ann.send("bob", b"before")
        server.live[0].say(GoAway(0, 0, int(Code.GOING_AWAY), 2000, 6000))
        server.deliver("ann", b"behind the GOAWAY")
        (behind,) = await take(ann, 1)
        future = ann.post("bob", b"after")
        ann.ack(behind)
        await server.until(lambda: server.of(Ack))  # written behind what was posted, if that had been written
        assert server.payloads("bob") == [b"before"]
        server.live[0].drop()
        await future
    assert len(clock.slept) == 1
    assert 2.0 <= clock.slept[0] <= 6.0
    assert server.payloads("bob") == [b"before", b"after"]


async def test_after_goaway_the_client_leaves_at_its_own_time_when_the_server_does_not_close(
    make_client: MakeClient, server: SmallServer, clock: ManualClock
) -> None:
    async with make_client() as ann:
        await ann.send("bob", b"before")
        server.live[0].say(GoAway(0, 0, int(Code.GOING_AWAY), 2000, 2000))
        await clock.until_timer(2.0)
        clock.advance(2.0)
        await server.until(lambda: len(server.sessions) == 2)
        await ann.wait_connected()
    assert clock.slept == [0.0]
    assert len(server.of(Bye)) == 2


async def test_a_server_that_breaks_its_promises_each_time_is_asked_with_growing_waits(
    make_client: MakeClient, server: SmallServer, clock: ManualClock
) -> None:
    tops: list[float] = []
    for text in TEXTS:
        server.deliver("ann", text)
    async with make_client() as ann:
        ann._link._backoff = Backoff(lambda low, high: tops.append(high) or 0.0)  # type: ignore[func-returns-value]
        for count in range(1, 5):
            server.trouble.leave_out = {1}
            await server.until(lambda count=count: len(server.sessions) == count)
        await take(ann, len(TEXTS))
    assert tops[:3] == [0.5, 1.0, 2.0]


async def test_busy_is_tried_again_under_its_cid_after_its_time_and_the_order_stays(
    make_client: MakeClient, server: SmallServer, clock: ManualClock
) -> None:
    server.trouble.refuse.extend([(Code.BUSY, Processed.NO, 1500)] * 3)
    async with make_client() as ann:
        futures = [ann.post("bob", text) for text in TEXTS[:3]]
        await ann.wait_connected()
        await server.until(lambda: len(server.of(Send)) == 3)
        await clock.until_timer(1.5)
        futures.append(ann.post("bob", TEXTS[3]))
        await asyncio.sleep(0)
        assert len(server.of(Send)) == 3, "nothing leaves while the server is busy"
        clock.advance(1.5)
        await asyncio.gather(*futures)
    cids = [send.ref for send in server.of(Send)]
    assert cids == cids[:3] * 2 + [cids[2] + 1]
    assert server.payloads("bob") == TEXTS[:4]


async def test_when_nobody_knows_what_became_of_a_message_it_goes_again_under_its_old_cid(
    make_client: MakeClient, server: SmallServer
) -> None:
    server.trouble.refuse.append((Code.BUSY, Processed.UNKNOWN, 0))
    async with make_client() as ann:
        await ann.send("bob", b"perhaps")
    first, second = server.of(Send)
    assert first.ref == second.ref
    assert len(server.sessions) == 2


async def test_a_message_that_an_earlier_session_may_have_taken_keeps_its_cid_when_a_later_one_refuses_it(
    make_client: MakeClient, server: SmallServer, clock: ManualClock
) -> None:
    server.trouble.refuse.extend([(Code.BUSY, Processed.UNKNOWN, 0), (Code.BUSY, Processed.NO, 1500)])
    async with make_client() as ann:
        sent = ann.post("bob", b"perhaps")
        await clock.until_timer(1.5)
        clock.advance(1.5)
        await sent
    assert len({send.ref for send in server.of(Send)}) == 1
    assert len(server.sessions) == 2, "a refusal that is surely one is no reason to reconnect"


async def test_a_queue_that_is_full_is_the_applications_business(make_client: MakeClient, server: SmallServer) -> None:
    server.trouble.refuse.append((Code.QUEUE_FULL, Processed.NO, 9000))
    async with make_client() as ann:
        with pytest.raises(Refused, match="QUEUE_FULL") as caught:
            await ann.send("bob", b"x")
    assert caught.value.retry_after_ms == 9000


async def test_a_silent_server_is_pinged_and_then_left(
    make_client: MakeClient, server: SmallServer, clock: ManualClock
) -> None:
    server.deliver("ann", b"x")
    left_s: list[float] = []
    pings: list[bytes] = []
    async with make_client() as ann:
        (message,) = await take(ann, 1)
        ann.ack(message)
        await server.until(lambda: server.of(Ack))
        server.live[0].receive = lambda data: pings.append(data)  # type: ignore[method-assign]
        clock.on_sleep = lambda: left_s.append(clock.now - 1000)
        while not left_s:
            clock.advance(7.5)
            await asyncio.sleep(0)
        clock.on_sleep = None
    assert 60 <= left_s[0] <= 75, "two keepalive intervals of 30 s"
    assert pings


async def test_a_pong_carries_the_news_of_a_hole_and_the_client_comes_again(
    make_client: MakeClient, server: SmallServer, clock: ManualClock
) -> None:
    server.trouble.leave_out = {1}
    server.deliver("ann", b"lost on the way")
    async with make_client() as ann:
        await ann.wait_connected()
        for count in (1, 2):
            while len(server.of(Ping)) < count:
                clock.advance(7.5)
                await asyncio.sleep(0)
        (message,) = await take(ann, 1)
    assert message.ref == 1
    assert len(server.sessions) == 2


async def test_a_server_of_another_major_version_is_not_asked_again(clock: ManualClock) -> None:
    class OtherVersion(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            transport.write(b"CHTD\x07\x00\x00\x00"[:PREFACE_BYTES])
            transport.close()

    other = await asyncio.get_running_loop().create_server(OtherVersion, "127.0.0.1", 0)
    async with (
        other,
        Client("127.0.0.1", other.sockets[0].getsockname()[1], "ann", "x", password="s", clock=clock) as ann,
    ):
        with pytest.raises(ClientClosed, match="VERSION_UNSUPPORTED"):
            await ann.wait_connected()
    assert clock.slept == []


async def test_a_store_that_fails_closes_the_client_and_says_why(make_client: MakeClient) -> None:
    from protocol.client import MemoryStore

    class FullDisk(MemoryStore):
        def save(self, change: object) -> None:
            raise OSError(28, "No space left on device")

    async with make_client(store=FullDisk()) as ann:
        with pytest.raises(ClientClosed, match="No space left"):
            await ann.send("bob", b"x")
