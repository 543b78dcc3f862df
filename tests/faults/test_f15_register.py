"""F15: two chatd of one name, register entries that are torn or point to the dead, two logins of one device at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager

import pytest

from bench.cluster import Cluster
from bench.processes import Chatd
from bench.tokens import Mint
from protocol.client import Client, Closed, Connected
from protocol.errors import Code
from protocol.messages import Accepted, Deliver, Error, Send, Welcome
from tests.faults.frozen import lease_over
from tests.faults.raw_client import RawClient, connected, session
from tests.faults.talk import HOST, quick

ROUNDS = 12
TORN = ["", "chatd1:1", " ", "chatd1:1 ", " 1.1", "a b c", b"\xff\xfe \xfd"]

pytestmark = pytest.mark.timeout(150)


@pytest.fixture
def mint(cluster: Cluster) -> Mint:
    return Mint(cluster.nodes[0].data_dir)  # one folder for all nodes


@contextmanager
def twin_of(node: Chatd) -> Iterator[Chatd]:
    """Another process of the same name, on ports of its own."""
    env = {key: value for key, value in node.env.items() if not key.endswith("_PORT")}
    twin = Chatd(node.data_dir / "twin", node.env["CHATD_NODE"], {**env, "CHATD_DATA_DIR": str(node.data_dir)})
    twin.start()
    try:
        twin.wait_serving()
        yield twin
    finally:
        twin.kill9()


async def test_f15_two_nodes_of_one_name_do_not_take_each_other_for_themselves(cluster: Cluster, mint: Mint) -> None:
    node = cluster.nodes[0]
    with twin_of(node) as twin:
        async with (
            session(node.tcp_port, "f15ann", mint.token("f15ann")) as ann,
            session(twin.tcp_port, "f15bob", mint.token("f15bob")) as bob,
        ):
            await talk(ann, "f15bob", bob, 1)
            await talk(bob, "f15ann", ann, 1)
        async with session(node.tcp_port, "f15ann", mint.token("f15ann")) as ann:
            assert [(await ann.next(Deliver)).ref] == [1], "it was not acknowledged"
            twin.kill9()
            await talk(ann, "f15ann", ann, 2)  # its own seat and its lease are not the twin's


async def talk(sender: RawClient, to: str, receiver: RawClient, cid: int) -> None:
    """One message, which comes."""
    await sender.send(Send(cid, 0, to, b"%d" % cid))
    if sender is not receiver:
        assert await sender.next(Accepted) == Accepted(cid, 0, (cid,))
    assert (await receiver.next(Deliver)).payload == b"%d" % cid


@pytest.mark.parametrize("torn", TORN)
async def test_f15_a_torn_register_entry_delays_its_device_and_buries_nothing(
    cluster: Cluster, mint: Mint, torn: str | bytes
) -> None:
    node, number = cluster.nodes[0], TORN.index(torn)
    cat, dan = f"f15cat{number}", f"f15dan{number}"
    async with (
        session(node.tcp_port, cat, mint.token(cat)) as receiver,
        session(node.tcp_port, dan, mint.token(dan)) as sender,
    ):
        cluster.redis.command("HSET", f"u:{{{cat}}}:r", "raw", torn)
        await sender.send(Send(1, 0, cat, b"1"))
        await sender.next(Accepted)
        heard: list[Deliver] = []
        async with asyncio.timeout(20):
            while not heard:  # PING finds it, and puts the entry right
                heard = [message for message in await receiver.still_works() if isinstance(message, Deliver)]
        assert [message.payload for message in heard] == [b"1"]
        await talk(sender, cat, receiver, 2)


async def test_f15_what_was_handed_to_a_dead_node_is_delivered_where_its_user_logs_in_next(cluster: Cluster) -> None:
    first, second = cluster.nodes
    words = {name: await asyncio.to_thread(first.add_user, name) for name in ("dora", "emil")}
    async with Client(HOST, second.tcp_port, "emil", "phone", password=words["emil"], backoff=quick()) as emil:
        await emil.wait_connected()
        second.kill9()  # its register entry stays
        async with Client(HOST, first.tcp_port, "dora", "phone", password=words["dora"], backoff=quick()) as dora:
            ids = [await dora.send("emil", b"%d" % number) for number in range(3)]
    async with Client(HOST, first.tcp_port, "emil", "phone", password=words["emil"], backoff=quick()) as emil:
        async with asyncio.timeout(20):
            got = [await anext(emil) for _ in range(3)]
        assert [message.id for message in got if isinstance(message, Deliver)] == ids
    await lease_over(cluster.redis, second)


async def test_f15_a_device_that_logs_in_on_another_node_ends_its_older_session_for_good(cluster: Cluster) -> None:
    first, second = cluster.nodes
    word = await asyncio.to_thread(first.add_user, "carol")
    states: asyncio.Queue[object] = asyncio.Queue()
    async with Client(
        HOST, first.tcp_port, "carol", "phone", password=word, backoff=quick(), on_state=states.put_nowait
    ) as older:
        await older.wait_connected()
        async with Client(HOST, second.tcp_port, "carol", "phone", password=word, backoff=quick()) as newer:
            await newer.wait_connected()
            async with asyncio.timeout(10):
                while not isinstance(state := await states.get(), Closed):
                    pass
            assert state.code == Code.REPLACED
            assert isinstance(newer.state, Connected)


async def test_f15_of_logins_of_one_device_at_once_exactly_one_stays(cluster: Cluster, mint: Mint) -> None:
    for number in range(ROUNDS):
        eve = f"f15eve{number}"
        token = mint.token(eve)
        async with AsyncExitStack() as stack:
            racers = [
                await stack.enter_async_context(connected(node.tcp_port)) for node in (*cluster.nodes, *cluster.nodes)
            ]
            answers = await asyncio.gather(*(racer.hello(eve, token) for racer in racers), return_exceptions=True)
            fates = [
                asyncio.create_task(fate(racer))
                for racer, answer in zip(racers, answers, strict=True)
                if isinstance(answer, Welcome)
            ]
            losers = sum(isinstance(answer, Error) for answer in answers)
            # INTERNAL: whom a login replaced that was itself replaced by then; it is to come back, and is told so
            assert await ended(fates, len(racers) - 1 - losers) <= {Code.REPLACED, Code.INTERNAL}
            assert cluster.redis.command("HLEN", f"u:{{{eve}}}:r").strip() == b":1"
            for task in fates:
                task.cancel()
            await asyncio.gather(*fates, return_exceptions=True)


async def fate(client: RawClient) -> int:
    """The code with which it ends."""
    while True:
        try:
            return (await client.next(Error)).code
        except TimeoutError:
            continue


async def ended(fates: list[asyncio.Task[int]], count: int) -> set[int]:
    """The codes of the first so many that end."""
    running, done = set(fates), set[asyncio.Task[int]]()
    async with asyncio.timeout(20):
        while len(done) < count:
            some, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            done |= some
    return {task.result() for task in done}
