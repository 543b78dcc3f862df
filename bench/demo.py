"""`make demo`: a conversation as two people would have it, on the embedded server and then on a cluster.

Romeo has a phone; Juliet has a phone and a tablet, which is away at first and comes back in the middle. Each side answers
when it has heard the other to the end. In the middle of it the server is killed with -9 (in the cluster a chatd, and later
a brokerd) and started again. At the end every device must have every line once, in order.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import uvloop
from tqdm import tqdm

from bench.cluster import Cluster
from bench.play import SPEAKERS, Speech, fetch, speeches
from bench.processes import Chatd, Daemon
from protocol.client import Client
from protocol.messages import Deliver, Sent

ROMEO, JULIET = SPEAKERS
OTHER: Final = {ROMEO: JULIET, JULIET: ROMEO}
WAIT_S_MAX: Final = 60.0
Say = Callable[[str], None]


@dataclass(slots=True)
class Device:
    """What one device heard: the lines of each side by id, in the order in which they came."""

    name: str
    client: Client
    heard: dict[str, list[tuple[bytes, str]]] = field(default_factory=lambda: {ROMEO: [], JULIET: []})
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def listen(self, user: str, on_line: Callable[[str, str], None] | None = None) -> None:
        """Take what comes until the client is closed."""
        async for message in self.client:
            if isinstance(message, Deliver | Sent):
                speaker = message.sender if isinstance(message, Deliver) else user
                text = message.payload.decode()
                self.heard[speaker].append((message.id, text))
                if on_line is not None:
                    on_line(speaker, text)
                self.news.set()

    async def wait_heard(self, speaker: str, count: int) -> None:
        """Until so many lines of this speaker have come."""
        async with asyncio.timeout(WAIT_S_MAX):
            while len(self.heard[speaker]) < count:
                self.news.clear()
                await self.news.wait()


@dataclass(slots=True)
class Verdict:
    """What the devices' books say."""

    lost: int = 0
    duplicates: int = 0
    misordered: int = 0

    def check(self, said: list[tuple[bytes, str]], heard: list[tuple[bytes, str]]) -> None:
        """Compare what was said with what a device heard of it: ids and text."""
        ids = [id_ for id_, _ in heard]
        once = list(dict.fromkeys(ids))
        self.duplicates += len(ids) - len(once)
        self.lost += len(set(said) - set(heard))
        expected = [id_ for id_, _ in said if id_ in set(once)]
        self.misordered += sum(a != b for a, b in zip(expected, once, strict=False))

    def __str__(self) -> str:
        return f"lost {self.lost}, duplicates {self.duplicates}, misordered {self.misordered}"


async def converse(play: list[Speech], server: Chatd, killed: list[tuple[int, Daemon]], say: Say, bar: tqdm) -> Verdict:
    """Have the conversation; `killed` are the numbers of speeches before which a process is killed and started again."""
    words = {user: server.add_user(user) for user in SPEAKERS}

    def client(user: str, device: str) -> Client:
        return Client("127.0.0.1", server.tcp_port, user, device, password=words[user], own_copies=True)

    said: dict[str, list[tuple[bytes, str]]] = {ROMEO: [], JULIET: []}
    async with Client("127.0.0.1", server.tcp_port, JULIET, "tablet", password=words[JULIET]) as tablet_once:
        await tablet_once.wait_drained()
    say("* Juliet's tablet was here, and left.")
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        phones = {
            user: Device(f"{user}'s phone", await stack.enter_async_context(client(user, "phone"))) for user in SPEAKERS
        }

        def line(speaker: str, text: str) -> None:
            say(f"{speaker:>6}: {text}")

        listening = [
            tasks.create_task(phones[ROMEO].listen(ROMEO)),
            tasks.create_task(phones[JULIET].listen(JULIET, line)),
        ]
        tablet: Device | None = None
        for number, speech in enumerate(play):
            for before, daemon in killed:
                if number == before:
                    say(f"* {daemon.log_path.stem} is killed with -9, and started again.")
                    daemon.kill9()
                    tasks.create_task(daemon.restart())
            if number == len(play) * 2 // 3:
                tablet = Device("juliet's tablet", await stack.enter_async_context(client(JULIET, "tablet")))
                listening.append(tasks.create_task(tablet.listen(JULIET)))
                say("* Juliet's tablet is back.")
            await _speak(speech, phones, said)
            bar.update(len(speech.lines))
        assert tablet is not None
        for device in (phones[JULIET], tablet):
            for user in SPEAKERS:
                await device.wait_heard(user, len(said[user]))
        say(f"* The play is over. Juliet's tablet heard {sum(map(len, tablet.heard.values()))} lines.")
        verdict = Verdict()
        verdict.check(said[JULIET], phones[ROMEO].heard[JULIET])
        for device in (phones[JULIET], tablet):
            for user in SPEAKERS:
                verdict.check(said[user], device.heard[user])
        for task in listening:
            task.cancel()
    return verdict


async def _speak(speech: Speech, phones: dict[str, Device], said: dict[str, list[tuple[bytes, str]]]) -> None:
    """Say it, and wait until the other side has heard the last line of it."""
    speaker, client = speech.speaker, phones[speech.speaker].client
    other = OTHER[speaker]
    answers = []
    for text in speech.lines:
        await client.wait_room()
        answers.append(client.post(other, text.encode()))
    async with asyncio.timeout(WAIT_S_MAX):
        ids = await asyncio.gather(*answers)
    said[speaker] += zip(ids, speech.lines, strict=True)
    await phones[other].wait_heard(speaker, len(said[speaker]))


def run(mode: str, play: list[Speech], folder: Path, say: Say) -> Verdict:
    """One mode, from its servers to its verdict."""
    total = sum(len(speech.lines) for speech in play)
    bar = tqdm(total=total, unit=" lines", desc=mode, disable=not sys.stderr.isatty())
    with bar, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        middle = len(play) // 2
        if mode == "embedded":
            server = Chatd(folder / mode)
            server.start()
            try:
                return runner.run(converse(play, server, [(middle, server)], say, bar))
            finally:
                server.stop()
        with Cluster(folder / mode, lease_s=3) as cluster:
            node = cluster.nodes[0]
            killed: list[tuple[int, Daemon]] = [
                (middle, node),
                (middle + len(play) // 8, cluster.brokers[0]),
            ]
            return runner.run(converse(play, node, killed, say, bar))


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser("demo", description=__doc__)
    parser.add_argument("--quiet", action="store_true", help="print what happens, not what is said")
    parser.add_argument("--lines", type=int, default=0, help="only so many lines of the play (default: all)")
    parser.add_argument("--mode", choices=("embedded", "cluster"), action="append", help="default: both")
    options = parser.parse_args()
    play = _first(speeches(fetch(Path(".data") / "demo")), options.lines)
    folder = Path(tempfile.mkdtemp(prefix="chatd-demo-"))

    def say(text: str) -> None:
        if text.startswith("*") or not options.quiet:
            tqdm.write(text, file=sys.stdout)

    total = Verdict()
    try:
        for mode in options.mode or ("embedded", "cluster"):
            say(f"* {mode}: {sum(len(speech.lines) for speech in play)} lines in {len(play)} speeches.")
            verdict = run(mode, play, folder, say)
            say(f"* {mode}: {verdict}")
            total = Verdict(*(a + b for a, b in zip(_numbers(total), _numbers(verdict), strict=True)))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(total)
    return 0 if not any(_numbers(total)) else 1


def _numbers(verdict: Verdict) -> tuple[int, int, int]:
    return verdict.lost, verdict.duplicates, verdict.misordered


def _first(play: list[Speech], lines: int) -> list[Speech]:
    if not lines:
        return play
    count, kept = 0, []
    for speech in play:
        kept.append(speech)
        count += len(speech.lines)
        if count >= lines:
            break
    return kept


if __name__ == "__main__":
    sys.exit(main())
