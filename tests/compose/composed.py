"""`make compose-test`: the image is built, compose.yaml is brought up from nothing, and O08 of the fault list.

Needs root, dockerd (docker.io), docker-compose and debootstrap; what the images of a registry would be is built here.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from protocol.client import Client, Connected
from tests.compose.docker_host import DockerHost
from tests.faults.talk import HOST, Talk, quick
from tests.systemd.machine import missing, run_in_network

ROOT = Path(__file__).parents[2]
PROJECT = "chat"
SERVICES = ("redis", "rabbitmq", "brokerd1", "brokerd2", "chatd1", "chatd2")
PORTS = {"chatd1": 7400, "chatd2": 7401}
UP_S_MAX = 300
LINES = 100
STRANGERS = 500
PROBE = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5)"

pytestmark = pytest.mark.timeout(900)


class Composed:
    """The project on a Docker of our own."""

    def __init__(self, host: DockerHost) -> None:
        self.host = host

    def compose(self, *words: str, check: bool = True, text: str | None = None) -> str:
        files = ("-f", str(ROOT / "compose.yaml"), "-f", str(ROOT / "compose.override.yaml"))
        return self.host.run("docker-compose", "-p", PROJECT, *files, *words, check=check, text=text, s_max=UP_S_MAX)

    def id(self, service: str) -> str:
        return self.compose("ps", "-q", service).strip()

    def inspect(self, service: str, path: str) -> str:
        return self.host.run("docker", "inspect", "-f", "{{" + path + "}}", self.id(service)).strip()

    def wait(self, is_so: Callable[[], bool], what: str, s_max: float = UP_S_MAX) -> float:
        begin_s = time.monotonic()
        while not is_so():
            assert time.monotonic() - begin_s < s_max, f"not within {s_max} s: {what}"
            time.sleep(0.5)
        return time.monotonic() - begin_s

    def wait_healthy(self, *services: str) -> float:
        return self.wait(
            lambda: all(self.inspect(service, ".State.Health.Status") == "healthy" for service in services),
            f"{services} are healthy",
        )

    def password(self, name: str) -> str:
        """Of a new user."""
        word = f"{name}-{os.urandom(6).hex()}"
        self.compose("exec", "-T", "chatd1", "chatctl", "user", "add", name, "--password-stdin", text=word + "\n")
        return word

    def probe(self, network: str, host: str, port: int) -> bool:
        """Whether a container on this network reaches host:port."""
        words = (
            "run",
            "--rm",
            "--network",
            f"{PROJECT}_{network}",
            "chatd:local",
            "python3",
            "-c",
            PROBE,
            host,
            str(port),
        )
        return "reached" in self.host.run("sh", "-c", '"$@" && echo reached', "sh", "docker", *words, check=False)

    def volume(self, name: str) -> Path:
        return Path(self.host.run("docker", "volume", "inspect", "-f", "{{.Mountpoint}}", f"{PROJECT}_{name}").strip())


@pytest.fixture(scope="module")
def chat() -> Iterator[Composed]:
    if lacks := missing():
        pytest.skip(lacks)
    host = DockerHost(Path(os.environ["DOCKER_FOLDER"]))
    host.start(private=False)
    try:
        host.make_images(Path(os.environ["SYSTEMD_ROOT"]))
        host.run("docker", "build", "--network=host", "-q", "-t", "chatd:local", str(ROOT), s_max=900)
    finally:
        host.stop()
    host.start(private=True)
    made = Composed(host)
    try:
        made.compose("down", "-v", "--remove-orphans")
        begin_s = time.monotonic()
        made.compose("up", "-d", "--no-build")
        made.wait_healthy(*SERVICES)
        print(f"\nfrom nothing to healthy: {time.monotonic() - begin_s:.0f} s")
        yield made
        made.compose("down", "-v")
    finally:
        host.stop()


async def talk_while(chat: Composed, act: Callable[[], None], *, lines_during: int = LINES) -> None:
    """Two people on two nodes; `act` happens between and below their lines; all is heard once and in order."""
    names = (f"ann{time.monotonic_ns():x}", f"bob{time.monotonic_ns():x}")
    words = [chat.password(name) for name in names]
    async with (
        Client(HOST, PORTS["chatd1"], names[0], "laptop", password=words[0], backoff=quick()) as ann,
        Client(HOST, PORTS["chatd2"], names[1], "phone", password=words[1], backoff=quick()) as bob,
        asyncio.TaskGroup() as tasks,
    ):
        talk = Talk(ann, bob, names)
        loops = [tasks.create_task(talk.listen()), tasks.create_task(talk.take_receipts())]
        await ann.wait_connected()
        await bob.wait_connected()
        await talk.say(LINES)
        async with asyncio.TaskGroup() as both:
            if lines_during:
                both.create_task(talk.say(lines_during))
            await asyncio.to_thread(act)
        await talk.say(LINES)
        await talk.wait_all_heard()
        print(f"\nlines {len(talk.said)}, lost 0, doubled 0")
        for task in loops:
            task.cancel()


def inside(chat: Composed, act: Callable[[], None] = lambda: None, *, lines_during: int = LINES) -> None:
    run_in_network(chat.host.pid, lambda: talk_while(chat, act, lines_during=lines_during))


def test_o08_everything_comes_up_and_two_people_talk_through_the_published_ports(chat: Composed) -> None:
    inside(chat)
    size = int(chat.host.run("docker", "image", "inspect", "-f", "{{.Size}}", "chatd:local"))
    base = int(chat.host.run("docker", "image", "inspect", "-f", "{{.Size}}", "python:3.11-slim-bookworm"))
    print(f"the image adds {(size - base) / 1e6:.0f} MB to its base")


@pytest.mark.parametrize(
    ("network", "host", "port", "is_reached"),
    [("front", "chatd1", 7400, True), ("front", "redis", 6379, False), ("front", "rabbitmq", 5672, False),
     ("front", "brokerd1", 7400, False), ("back", "redis", 6379, True), ("back", "rabbitmq", 5672, True)],
)  # fmt: skip
def test_a_client_reaches_chatd_and_nothing_behind_it(
    chat: Composed, network: str, host: str, port: int, is_reached: bool
) -> None:
    assert chat.probe(network, host, port) is is_reached


@pytest.mark.parametrize("service", ["chatd1", "brokerd1"])
def test_ours_run_as_nobody_special_and_write_nowhere_else(chat: Composed, service: str) -> None:
    assert chat.compose("exec", "-T", service, "id", "-u").strip() == "10001"
    said = chat.compose("exec", "-T", service, "sh", "-c", "touch /usr/x 2>&1; true")
    assert "Read-only" in said
    capabilities = chat.compose("exec", "-T", service, "sh", "-c", "grep CapEff /proc/1/status")
    assert int(capabilities.split()[1], 16) == 0


@pytest.mark.parametrize("service", ["chatd1", "chatd2", "brokerd1"])
def test_o08_a_docker_stop_ends_in_grace_and_loses_nothing(chat: Composed, service: str) -> None:
    def stop_and_start() -> None:
        container = chat.id(service)
        begin_s = time.monotonic()
        chat.compose("stop", service)
        took_s = time.monotonic() - begin_s
        stopped = json.loads(chat.host.run("docker", "inspect", "-f", "{{json .State}}", container))
        print(f"\n{service} stopped in {took_s:.1f} s")
        assert stopped["ExitCode"] == 0
        assert took_s < 25
        chat.compose("start", service)
        chat.wait_healthy(service)

    # nobody waits for an answer while its own node is away longer than a test
    inside(chat, stop_and_start, lines_during=0 if service == "chatd1" else LINES)


def test_o08_a_chatd_that_is_killed_for_its_memory_comes_back_and_loses_nothing(chat: Composed) -> None:
    async def crowd() -> None:
        """Heads of requests that never end: as many strangers as may be here, with as much as each may say."""
        streams = []
        for _ in range(STRANGERS):
            try:
                streams.append(await asyncio.open_connection(HOST, PORTS["chatd2"] + 80))
                streams[-1][1].write(b"GET /livez HTTP/1.1\r\nx: " + b"y" * 15_000)
            except OSError:
                break
        answers = [asyncio.ensure_future(reader.read(1)) for reader, _ in streams]
        await asyncio.wait(answers, timeout=2)  # long enough to be read
        for answer, (_, writer) in zip(answers, streams, strict=True):
            answer.cancel()
            writer.close()
        await asyncio.gather(*answers, return_exceptions=True)

    def squeeze(container: str) -> None:
        """A limit just above what it can not give back."""
        told = chat.compose("exec", "-T", "chatd2", "cat", "/sys/fs/cgroup/memory/memory.stat")
        own = next(int(line.split()[1]) for line in told.splitlines() if line.startswith("total_rss "))
        for spare in range(4_000_000, 64_000_000, 1_000_000):
            limit = str(own + spare)
            said = chat.host.run("docker", "update", "--memory", limit, "--memory-swap", limit, container, check=False)
            if container in said:
                print(f"\nlimited to {int(limit) / 1e6:.0f} MB, of which {own / 1e6:.0f} MB are its own")
                return
        raise AssertionError("no limit was taken")

    def starve() -> None:
        container = chat.id("chatd2")
        before = chat.inspect("chatd2", ".State.StartedAt")
        squeeze(container)

        def is_new() -> bool:
            run_in_network(chat.host.pid, crowd)
            return (
                chat.inspect("chatd2", ".State.StartedAt") != before
                or chat.inspect("chatd2", ".State.Running") != "true"
            )

        chat.wait(is_new, "it is killed")
        told = ("docker", "events", "--since", "5m", "--until", "0s", "--filter", f"container={container}")
        events = chat.host.run(*told, "--format", "{{.Status}} {{.Actor.Attributes.exitCode}}")
        print([event for event in events.replace("<no value>", "").splitlines() if not event.startswith("exec")])
        chat.host.run("docker", "update", "--memory", "1g", "--memory-swap", "1g", container)
        chat.compose("up", "-d", "--no-build", "chatd2")
        chat.wait_healthy("chatd2")
        assert "oom" in events or "die 137" in events

    inside(chat, starve)


async def leave_waiting(chat: Composed, name: str) -> list[bytes]:
    """Messages for somebody who is away."""
    word, texts = chat.password(name), [b"%d" % number for number in range(LINES)]
    async with Client(HOST, PORTS["chatd2"], name, "phone", password=word) as device:
        await device.wait_connected()
    sender = chat.password(name + "s")
    async with Client(HOST, PORTS["chatd1"], name + "s", "laptop", password=sender) as ann:
        for text in texts:
            await ann.send(name, text)
    count = ("exec", "-T", "redis", "redis-cli", "--raw", "llen", f"u:{{{name}}}:q")
    await asyncio.to_thread(chat.wait, lambda: int(chat.compose(*count) or 0) == LINES, "they are in Redis", 60)
    return [word.encode(), *texts]


async def take(name: str, word: bytes) -> list[bytes]:
    got: list[bytes] = []
    async with (
        Client(HOST, PORTS["chatd2"], name, "phone", password=word.decode(), backoff=quick()) as device,
        asyncio.timeout(90),
    ):
        await device.wait_connected()
        assert isinstance(device.state, Connected)
        while len(got) < LINES:
            message = await anext(device)
            got.append(message.payload)  # type: ignore[union-attr]
    return got


def test_o08_an_append_only_file_with_a_torn_tail_starts_and_one_with_a_flipped_byte_does_not(chat: Composed) -> None:
    word, *texts = run_in_network(chat.host.pid, lambda: leave_waiting(chat, "torn"))
    [file] = chat.volume("redis").glob("appendonlydir/*.incr.aof")
    container = chat.id("redis")
    chat.host.run("docker", "kill", container)
    good = file.read_bytes()

    place = good.index(b"*", len(good) // 3)  # the head of a command in the middle
    file.write_bytes(good[:place] + b"+" + good[place + 1 :])
    chat.compose("start", "redis")
    chat.wait(lambda: "Bad file format" in chat.compose("logs", "redis"), "it says why", 60)
    health = chat.host.run("docker", "inspect", "-f", "{{.State.Health.Status}}", container).strip()
    assert health != "healthy", "not silently short"
    chat.compose("stop", "redis")

    file.write_bytes(good + b"*3\r\n$5\r\nRPU")  # a write that a crash cut, and that nobody was told of
    chat.compose("start", "redis")
    chat.wait_healthy("redis", "chatd1", "chatd2", "brokerd1", "brokerd2")
    assert run_in_network(chat.host.pid, lambda: take("torn", word)) == texts
