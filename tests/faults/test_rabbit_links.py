"""What an operator, an alarm or the network does to our links while RabbitMQ itself lives."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiormq
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bench.rabbit_server import RabbitServer
from brokerd.links.amqp import RabbitLink
from brokerd.links.amqp_link import Wire
from brokerd.links.amqp_marshal import ack_frame
from brokerd.ports import LinkDown, PostRefused
from tests.faults.rabbit_daemon import Daemon, Poster, Taken, delete_queue, rabbit_daemon, until, within
from tests.tcp_proxy import proxied


@pytest.fixture
async def daemon(rabbit_server: RabbitServer) -> AsyncIterator[Daemon]:
    async with rabbit_daemon(rabbit_server.url) as made:
        yield made


def proxied_url(rabbit: RabbitServer, port: int) -> str:
    return rabbit.url.replace(str(rabbit.port), str(port))


class Stuck:
    """A member whose queue has no leader: RabbitMQ does not answer."""

    def __init__(self) -> None:
        self.begun = 0
        self.ended = 0

    async def attach(self, wire: Wire) -> None:
        self.begun += 1
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.ended += 1

    def detach(self) -> None:
        """Nothing is there."""

    def end(self) -> None:
        """Nothing is owed to anybody."""


async def test_a_member_that_cannot_be_set_up_keeps_no_other_one_waiting(daemon: Daemon) -> None:
    stuck, taken = Stuck(), Taken()
    daemon.consuming.join(stuck)
    await until(lambda: stuck.begun == 1)
    await within(daemon.shards.consume(0, taken))
    await within(daemon.inbound.post(0, b"meanwhile"))
    await until(lambda: taken.bodies == [b"meanwhile"])
    assert (stuck.begun, stuck.ended) == (1, 0), "it is still at its first try"
    assert not daemon.consuming.is_ready
    await within(daemon.consuming.close())
    assert stuck.ended == 1, "and it is gone with the link"


async def test_an_alarm_stops_the_posts_in_bounded_time_and_delivery_goes_on(
    rabbit_server: RabbitServer, daemon: Daemon
) -> None:
    poster, taken, stop = Poster(daemon.inbound), Taken(), asyncio.Event()
    await daemon.shards.consume(0, taken)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(poster.post_until(stop))
        await until(lambda: len(taken.bodies) > 100)
        await asyncio.to_thread(rabbit_server.ctl, "set_vm_memory_high_watermark", "absolute", "1MB")
        await until(lambda: daemon.publishing.statistics()["is_blocked"] == 1)
        assert not daemon.inbound.is_ready
        with pytest.raises(LinkDown, match="alarm"):
            daemon.inbound.post(0, b"refused at once")
        assert daemon.inbound.statistics()["unconfirmed"] <= 256
        await asyncio.to_thread(rabbit_server.ctl, "set_vm_memory_high_watermark", "0.4")
        await until(lambda: daemon.inbound.is_ready)
        stop.set()
    await within(asyncio.gather(*poster.posts))
    await until(lambda: len(taken.bodies) >= len(poster.begun))
    assert taken.bodies == poster.begun
    assert daemon.publishing.statistics()["reconnects"] == 0


async def test_f09_a_shard_whose_queue_is_deleted_is_declared_and_consumed_again(
    rabbit_server: RabbitServer, daemon: Daemon
) -> None:
    taken = Taken()
    await daemon.shards.consume(0, taken)
    await within(daemon.inbound.post(0, b"before"))
    await until(lambda: taken.bodies == [b"before"])
    await delete_queue(rabbit_server.url, daemon.topology.shard_queue(0))
    await until(lambda: daemon.shards.statistics()["cancelled"] == 1 and daemon.consuming.is_ready)
    await within(daemon.inbound.post(0, b"after"))
    await until(lambda: taken.bodies == [b"before", b"after"])


async def test_f09_a_post_to_a_deleted_queue_is_refused_and_the_queue_is_declared_again(
    rabbit_server: RabbitServer, daemon: Daemon
) -> None:
    await delete_queue(rabbit_server.url, daemon.topology.shard_queue(1))
    with pytest.raises(PostRefused, match="NO_ROUTE"):
        await within(daemon.inbound.post(1, b"nobody takes it"))
    await within(daemon.publishing.wait_ready())
    await within(daemon.inbound.post(1, b"taken"))
    assert daemon.inbound.statistics()["returned"] == 1


async def test_a_return_refuses_only_its_own_post(rabbit_server: RabbitServer, daemon: Daemon) -> None:
    await delete_queue(rabbit_server.url, daemon.topology.shard_queue(1))
    posts = [daemon.inbound.post(shard, b"x" * 200_000) for shard in (0, 1, 0)]
    results = await within(asyncio.gather(*posts, return_exceptions=True))
    assert [type(result) for result in results] == [type(None), PostRefused, type(None)]


async def test_a_buried_batch_is_in_the_dead_letters_with_its_reason(
    rabbit_server: RabbitServer, daemon: Daemon
) -> None:
    taken = Taken(finishes=False)
    await daemon.shards.consume(1, taken)
    await within(daemon.inbound.post(1, b"\xc1"))
    await until(lambda: len(taken.held) == 1)
    await within(daemon.shards.bury(taken.held[0], "not msgpack"))
    taken.held[0].done()
    async with aiormq.connect(rabbit_server.url) as connection:
        message = await (await connection.channel()).basic_get(daemon.topology.dead)
    assert message.body == b"\xc1"
    headers = message.header.properties.headers
    assert headers is not None
    assert (headers["reason"], headers["shard"]) == ("not msgpack", 1)


async def test_a_cut_link_takes_the_name_of_its_exclusive_queue_again(rabbit_server: RabbitServer) -> None:
    async with proxied(rabbit_server.port) as proxy:
        url = proxied_url(rabbit_server, proxy.port)
        async with rabbit_daemon(rabbit_server.url, consuming_url=url, heartbeat_s=2) as daemon:
            got: list[bytes] = []
            gaps: list[int] = []
            await daemon.inbox.open("n:2", got.append, lambda: gaps.append(1))
            proxy.cut()
            await until(lambda: gaps == [1])
            daemon.nodes.hand("n:2", b"here")
            await until(lambda: got == [b"here"])
            assert daemon.consuming.statistics()["attach_failures"] > 0  # the broker still held the name


async def test_f13_a_half_open_connection_is_given_up_after_two_silent_heartbeats(rabbit_server: RabbitServer) -> None:
    async with proxied(rabbit_server.port) as proxy:
        url = proxied_url(rabbit_server, proxy.port)
        async with rabbit_daemon(url, heartbeat_s=1) as daemon:
            proxy.stall()
            posted = daemon.inbound.post(0, b"into the void")
            await until(lambda: daemon.publishing.statistics()["silences"] == 1)
            assert not posted.done()
            proxy.go_on()
            await within(posted)


async def test_a_channel_that_the_broker_closes_is_opened_again_and_the_others_do_not_notice(
    rabbit_server: RabbitServer,
) -> None:
    async with proxied(rabbit_server.port) as proxy:
        url = proxied_url(rabbit_server, proxy.port)
        async with rabbit_daemon(rabbit_server.url, consuming_url=url) as daemon:
            taken, other = Taken(finishes=False), Taken()
            await daemon.shards.consume(0, taken)
            await daemon.shards.consume(1, other)
            await within(daemon.inbound.post(0, b"twice"))
            await until(lambda: len(taken.held) == 1)
            first_channel = 1
            proxy.inject(ack_frame(first_channel, 999, False))  # what was never delivered
            await until(lambda: len(taken.held) == 2)
            for delivery in taken.held:
                delivery.done()
            await within(daemon.inbound.post(1, b"fence"))
            await until(lambda: other.bodies == [b"fence"])
            statistics = daemon.shards.statistics()
            assert (statistics["channels_closed"], statistics["done_late"]) == (1, 1)
            assert daemon.consuming.statistics()["reconnects"] == 0


async def test_a_queue_that_cannot_be_declared_does_not_stop_the_other_shards_and_heals(
    rabbit_server: RabbitServer, daemon: Daemon
) -> None:
    queue = daemon.topology.shard_queue(7)
    async with aiormq.connect(rabbit_server.url) as connection:
        await (await connection.channel()).queue_declare(queue, durable=True)  # not a quorum queue: 406 for us
    wrong, right = Taken(), Taken()
    async with asyncio.TaskGroup() as tasks:
        consuming = tasks.create_task(daemon.shards.consume(7, wrong))
        await until(lambda: daemon.consuming.statistics()["attach_failures"] > 0)
        consuming_right = tasks.create_task(daemon.shards.consume(0, right))
        await within(daemon.inbound.post(0, b"goes on"))
        await until(lambda: right.bodies == [b"goes on"])
        await within(consuming_right)
        assert not consuming.done()
        await delete_queue(rabbit_server.url, queue)
        await within(consuming)
    assert daemon.consuming.statistics()["reconnects"] == 0


async def test_the_links_speak_tls_and_refuse_a_certificate_that_they_do_not_know(
    rabbit_server: RabbitServer, tmp_path: Path
) -> None:
    tls, cafile = make_certificate(tmp_path)
    async with proxied(rabbit_server.port, tls) as proxy:
        url = f"amqps://guest:guest@localhost:{proxy.port}/?cafile={cafile}"
        async with rabbit_daemon(url) as daemon:
            got = Taken()
            await daemon.shards.consume(0, got)
            bodies = [b"over tls", b"\xce" * 300_000]
            await within(asyncio.gather(*(daemon.inbound.post(0, body) for body in bodies)))
            await until(lambda: got.bodies == bodies)
        link = RabbitLink(f"amqps://guest:guest@localhost:{proxy.port}/", "distrustful")
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(link.run())
            await until(lambda: link.statistics()["connect_failures"] > 0)
            running.cancel()
        assert link.statistics()["connects"] == 0


def make_certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's context with a self-signed certificate for localhost, and the file to trust it by."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - day, now + day)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    certificate = builder.sign(key, hashes.SHA256())
    cafile, keyfile = folder / "cert.pem", folder / "key.pem"
    cafile.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    keyfile.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(cafile, keyfile)
    return tls, cafile
