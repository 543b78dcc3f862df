"""The client against a well-behaved server: what an application sees."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from protocol.client import Client, ClientClosed, Closed, Connected, Connecting, Incomings, OutgoingFull, Refused
from protocol.errors import Code
from protocol.messages import Accepted, Ack, Bye, Deliver, Gone, Read, ReadSync, Receipt, Send, Sent, Signalled
from protocol.names import device_tag, message_id
from protocol.wire import Status
from tests.client.small_server import SmallServer

MakeClient = Callable[..., Client]


async def take(client: Client, count: int) -> list[Incomings]:
    async with asyncio.timeout(10):
        return [await anext(client) for _ in range(count)]


@pytest.mark.parametrize("transport", ["tcp", "ws"])
async def test_a_message_goes_over_and_its_receipt_comes_back(make_client: MakeClient, transport: str) -> None:
    async with make_client(transport=transport) as ann, make_client("bob", "phone", transport=transport) as bob:
        id_ = await ann.send("bob", b"hello", receipt=True)
        async for message in bob:
            assert isinstance(message, Deliver)
            assert (message.ref, message.sender, message.id, message.payload) == (1, "ann", id_, b"hello")
            break
        bob.ack(message)
        (receipt,) = await take(ann, 1)
    assert isinstance(receipt, Receipt)
    assert (receipt.peer, receipt.status, receipt.ids) == ("bob", Status.DELIVERED, (id_,))


async def test_the_id_of_a_message_is_the_devices_tag_and_the_cid(make_client: MakeClient, server: SmallServer) -> None:
    async with make_client() as ann:
        id_ = await ann.send("bob", b"hello")
        assert ann.is_own(id_)
    (send,) = server.of(Send)
    assert id_ == message_id(device_tag("ann", "laptop"), send.ref)


async def test_what_is_posted_in_one_turn_leaves_in_one_write_and_in_order(
    make_client: MakeClient, server: SmallServer
) -> None:
    async with make_client() as ann:
        await ann.wait_connected()
        reads: list[int] = []
        session = server.live[0]
        original = session.receive
        session.receive = lambda data: (reads.append(len(data)), original(data))[1]  # type: ignore[method-assign]
        futures = [ann.post("bob", b"%d" % index) for index in range(50)]
        await asyncio.gather(*futures)
    assert server.payloads("bob") == [b"%d" % index for index in range(50)]
    assert len(reads) <= 3, "the sends in one read, then ACK or BYE"


async def test_what_is_posted_before_the_server_is_there_leaves_when_it_comes(
    make_client: MakeClient, server: SmallServer
) -> None:
    await server.stop_tcp()
    async with make_client() as ann:
        future = ann.post("bob", b"early")
        assert not future.done()
        await server.start_tcp(server.tcp_port)
        await asyncio.wait_for(future, 10)
    assert server.payloads("bob") == [b"early"]


async def test_a_refused_message_raises_with_its_code(make_client: MakeClient) -> None:
    async with make_client() as ann:
        with pytest.raises(Refused, match="NO_SUCH_USER") as caught:
            await ann.send("nobody", b"hello")
        assert caught.value.code == Code.NO_SUCH_USER
        assert await ann.send("bob", b"the next one goes") is not None


async def test_a_bad_name_and_an_oversize_payload_never_reach_the_server(
    make_client: MakeClient, server: SmallServer
) -> None:
    async with make_client() as ann:
        await ann.wait_connected()
        with pytest.raises(Refused, match="BAD_RECEIVER"):
            await ann.send("Bob the Builder", b"")
        with pytest.raises(Refused, match="TOO_LARGE") as caught:
            await ann.send("bob", bytes(65536))
        assert caught.value.limit == 65536
        await ann.send("bob", bytes(65536 - 5 - 3 - 2))
    assert len(server.of(Send)) == 1


async def test_messages_are_acknowledged_when_the_next_is_asked_for_and_in_one_ack_a_turn(
    make_client: MakeClient, server: SmallServer
) -> None:
    for index in range(5):
        server.deliver("ann", b"%d" % index)
    async with make_client() as ann:
        await ann.wait_drained()
        got = await take(ann, 4)
        await server.until(lambda: server.of(Ack))
        assert [ack.ref for ack in server.of(Ack)] == [3], "the fourth is still in hand"
        assert [message.ref for message in got] == [1, 2, 3, 4]
    await server.until(lambda: server.of(Bye))
    assert [ack.ref for ack in server.of(Ack)] == [3, 4], "to leave without an exception says that it is processed"


async def test_a_message_whose_loop_body_failed_comes_again(make_client: MakeClient, server: SmallServer) -> None:
    server.deliver("ann", b"poison")

    async def fail_on_it() -> None:
        async with make_client() as ann:
            async for _ in ann:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail_on_it()
    async with make_client() as ann:
        (message,) = await take(ann, 1)
    assert isinstance(message, Deliver)
    assert message.payload == b"poison"


async def test_explicit_acks_are_cumulative_and_nothing_is_acknowledged_without_them(
    make_client: MakeClient, server: SmallServer
) -> None:
    for index in range(4):
        server.deliver("ann", b"%d" % index)
    async with make_client(auto_ack=False) as ann:
        messages = await take(ann, 4)
        assert server.of(Ack) == []
        ann.ack(messages[2])
        ann.ack(messages[1])
        await server.until(lambda: server.of(Ack))
    assert [ack.ref for ack in server.of(Ack)] == [3, 4], "the rest is processed when the block is left"


async def test_no_more_than_the_credit_waits_here(make_client: MakeClient, server: SmallServer) -> None:
    for index in range(20):
        server.deliver("ann", b"%d" % index)
    async with make_client(credit=4) as ann:
        await ann.wait_connected()
        assert server.live[0].sent == 4
        got = await take(ann, 20)
    assert [message.ref for message in got] == list(range(1, 21))


async def test_send_waits_and_post_raises_when_too_much_is_unanswered(
    make_client: MakeClient, server: SmallServer
) -> None:
    server.trouble.silent_accepts = True
    async with make_client(unanswered_max=2) as ann:
        first, second = ann.post("bob", b"1"), ann.post("bob", b"2")
        with pytest.raises(OutgoingFull):
            ann.post("bob", b"3")
        third = asyncio.ensure_future(ann.send("bob", b"3"))
        await server.until(lambda: len(server.of(Send)) == 2)
        assert not third.done()
        server.trouble.silent_accepts = False
        cids = tuple(send.ref for send in server.of(Send))
        server.live[0].say(Accepted(max(cids), 0, cids))
        await asyncio.gather(first, second, third)
        await ann.wait_answered()
    assert server.payloads("bob") == [b"1", b"2", b"3"]


async def test_read_tells_the_sender_and_the_other_devices(make_client: MakeClient, server: SmallServer) -> None:
    async with make_client() as ann, make_client("bob", "phone") as phone, make_client("bob", "tablet") as tablet:
        for client in (phone, tablet):
            await client.wait_connected()
        id_ = await ann.send("bob", b"hello", read_receipt=True)
        await take(phone, 1)
        await phone.read("ann", [id_])
        (receipt,) = await take(ann, 1)
        _, sync = await take(tablet, 2)
    assert isinstance(receipt, Receipt)
    assert (receipt.status, receipt.ids) == (Status.READ, (id_,))
    assert isinstance(sync, ReadSync)
    assert (sync.peer, sync.ids) == ("ann", (id_,))


async def test_more_ids_than_one_frame_takes_go_in_several(make_client: MakeClient, server: SmallServer) -> None:
    async with make_client() as ann:
        await ann.read("bob", [index.to_bytes(16, "big") for index in range(600)])
    assert [len(read.ids) for read in server.of(Read)] == [256, 256, 88]


async def test_my_other_device_sees_what_i_send_and_this_one_does_not_but_moves_past_it(
    make_client: MakeClient, server: SmallServer
) -> None:
    async with make_client() as laptop, make_client("ann", "phone") as phone:
        for client in (laptop, phone):
            await client.wait_connected()
        id_ = await laptop.send("bob", b"from the laptop")
        (sent,) = await take(phone, 1)
        await server.until(lambda: server.queue("ann").cursors["laptop"] == 1)
        server.deliver("ann", b"next")
        (message,) = await take(laptop, 1)
    assert isinstance(sent, Sent)
    assert (sent.to, sent.id) == ("bob", id_)
    assert isinstance(message, Deliver), "and no SENT before it"


async def test_own_copies_are_shown_when_asked_for(make_client: MakeClient) -> None:
    async with make_client(own_copies=True) as laptop, make_client("ann", "phone") as phone:
        for client in (laptop, phone):
            await client.wait_connected()
        id_ = await laptop.send("bob", b"hello")
        (sent,) = await take(laptop, 1)
    assert isinstance(sent, Sent)
    assert laptop.is_own(id_)


async def test_a_signal_arrives_and_is_dropped_when_this_side_is_offline(make_client: MakeClient) -> None:
    async with make_client() as ann, make_client("bob", "phone") as bob:
        assert ann.signal("bob", b"typing") is False
        await ann.wait_connected()
        await bob.wait_connected()
        assert ann.signal("bob", b"typing") is True
        (signal,) = await take(bob, 1)
    assert isinstance(signal, Signalled)
    assert (signal.sender, signal.payload) == ("ann", b"typing")


async def test_gone_is_shown_and_passed(make_client: MakeClient, server: SmallServer) -> None:
    async with make_client() as ann:
        await ann.wait_connected()
        server.live[0].say(Gone(1, 0, 3, int(Code.REMOVED)))
        server.live[0].say(Deliver(4, 0, "bob", bytes(16), 1, b"after"))
        gone, after = await take(ann, 2)
    assert (gone.ref, after.ref) == (1, 4)


async def test_a_client_that_only_sends_is_not_stopped_by_what_it_never_takes(
    make_client: MakeClient, server: SmallServer
) -> None:
    for index in range(50):
        server.deliver("ann", b"%d" % index)
    async with make_client(credit=2) as ann:
        for index in range(20):
            await ann.send("bob", b"%d" % index)
    assert len(server.payloads("bob")) == 20


async def test_the_states_are_told_in_order(make_client: MakeClient) -> None:
    states: list[object] = []
    async with make_client(on_state=states.append) as ann:
        await ann.wait_connected()
    assert [type(state) for state in states] == [Connecting, Connected, Closed]
    assert states[-1] == Closed(None, "closed by this side")


async def test_the_loop_ends_quietly_when_the_client_is_closed(make_client: MakeClient) -> None:
    async with make_client() as ann:

        async def listen() -> list[Incomings]:
            return [message async for message in ann]

        listening = asyncio.ensure_future(listen())
        await ann.wait_connected()
        await ann.close()
        assert await listening == []


async def test_bad_credentials_end_the_client_with_their_code(make_client: MakeClient, server: SmallServer) -> None:
    async with make_client(password="wrong") as ann:
        for waiting in (ann.send("bob", b"x"), ann.wait_connected(), ann.wait_drained(), anext(ann)):
            with pytest.raises(ClientClosed, match="BAD_CREDENTIALS") as caught:
                await waiting
            assert caught.value.code == Code.BAD_CREDENTIALS
        with pytest.raises(ClientClosed):
            ann.post("bob", b"x")
    assert server.connections == 1


async def test_a_token_that_is_a_function_is_asked_for_at_each_login(
    make_client: MakeClient, server: SmallServer
) -> None:
    tokens = iter(["first", "second"])
    async with make_client(password=None, token=lambda: next(tokens)) as ann:
        await ann.wait_connected()
        server.live[0].drop()
        await server.until(lambda: len(server.sessions) == 2)


@pytest.mark.parametrize(
    "options",
    [{"password": None}, {"token": "and a password"}, {"transport": "udp"}, {"user": "Ann"}, {"user": ""},
     {"device": "a b"}, {"credit": 0}, {"credit": 1 << 20}],
)  # fmt: skip
async def test_what_can_never_work_is_refused_at_once(make_client: MakeClient, options: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        make_client(**options)


async def test_two_loops_over_one_client_are_a_mistake_that_is_told(make_client: MakeClient) -> None:
    async with make_client() as ann:
        first = asyncio.ensure_future(anext(ann))
        await ann.wait_connected()
        with pytest.raises(RuntimeError, match="two loops"):
            await anext(ann)
        first.cancel()
