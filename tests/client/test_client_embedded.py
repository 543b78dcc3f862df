"""The client against the real server, embedded: through kills nothing is lost, doubled or out of order."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bench.processes import Chatd
from protocol.client import Backoff, Client, FileStore
from protocol.messages import Deliver, Receipt
from protocol.wire import Status

HOST = "127.0.0.1"
COUNT = 400


def users_of(server: Chatd) -> dict[str, str]:
    """ann and bob with their passwords. Started again, because a running server looks at the file now and then only."""
    passwords = {user: server.add_user(user) for user in ("ann", "bob")}
    server.stop()
    server.start()
    return passwords


@pytest.mark.parametrize("transport", ["tcp", "ws"])
async def test_a_message_and_its_receipts_over_the_real_server(embedded_server: Chatd, transport: str) -> None:
    port = embedded_server.tcp_port if transport == "tcp" else embedded_server.http_port
    passwords = users_of(embedded_server)
    async with (
        Client(HOST, port, "ann", "laptop", password=passwords["ann"], transport=transport) as ann,
        Client(HOST, port, "bob", "phone", password=passwords["bob"], transport=transport) as bob,
    ):
        await bob.wait_connected()
        id_ = await ann.send("bob", "héllo".encode(), receipt=True, read_receipt=True)
        message = await anext(bob)
        assert isinstance(message, Deliver)
        assert (message.sender, message.id, message.payload) == ("ann", id_, "héllo".encode())
        bob.ack(message)
        await bob.read("ann", [id_])
        statuses = []
        for _ in range(2):
            receipt = await anext(ann)
            assert isinstance(receipt, Receipt)
            assert receipt.ids == (id_,)
            statuses.append(receipt.status)
        assert sorted(statuses) == [Status.DELIVERED, Status.READ]


async def test_a_server_killed_in_the_middle_loses_doubles_and_misorders_nothing(
    embedded_server: Chatd, tmp_path: Path
) -> None:
    passwords = users_of(embedded_server)

    def client(user: str) -> Client:
        return Client(
            HOST, embedded_server.tcp_port, user, "x", password=passwords[user],
            store=FileStore(tmp_path / f"{user}.journal"), backoff=Backoff(lambda low, high: 0.05),
        )  # fmt: skip

    got: list[bytes] = []
    halfway = asyncio.Event()

    async def listen(bob: Client) -> None:
        async for message in bob:
            if isinstance(message, Deliver):
                got.append(message.payload)
            if len(got) == COUNT // 2:
                halfway.set()
            if len(got) == COUNT:
                return

    async with client("ann") as ann, client("bob") as bob:
        listening = asyncio.ensure_future(listen(bob))
        await bob.wait_connected()
        for number in range(COUNT // 2 + 50):
            ann.post("bob", b"%d" % number)
        await asyncio.wait_for(halfway.wait(), 30)
        embedded_server.kill9()
        for number in range(COUNT // 2 + 50, COUNT):
            ann.post("bob", b"%d" % number)
        await asyncio.to_thread(embedded_server.start)
        await asyncio.wait_for(ann.wait_answered(), 30)
        await asyncio.wait_for(listening, 30)
    assert got == [b"%d" % number for number in range(COUNT)]
