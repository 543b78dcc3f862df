"""A process full of clients: `python -m tests.overload.crowd SPEC`. It prints one JSON object a line, and reads one word a
line: the overload is not to stand in the way of those who measure it. Child is the handle of such a process."""

from __future__ import annotations

import asyncio
import json
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import uvloop
from hdrh.histogram import HdrHistogram

from bench.tokens import Mint
from tests.overload.flood import Flood
from tests.overload.peer import Peer, connect, source_of
from tests.overload.watch import until

PING_S: Final = 20.0
LINE_S_MAX: Final = 180.0
Spec = dict[str, Any]


class Child:
    """A crowd as a child process: `say` a word, wait for `line`s. Ended with `async with`."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Child:
        pipe = asyncio.subprocess.PIPE
        program = [sys.executable, "-m", "tests.overload.crowd", json.dumps(self._spec)]
        self._process = await asyncio.create_subprocess_exec(*program, stdin=pipe, stdout=pipe, limit=1 << 20)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    def say(self, word: str) -> None:
        """To the child."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(word.encode() + b"\n")

    async def line(self, s_max: float = LINE_S_MAX) -> dict[str, Any]:
        """What it prints next. Raises TimeoutError; AssertionError when it died."""
        assert self._process is not None
        assert self._process.stdout is not None
        async with asyncio.timeout(s_max):
            line = await self._process.stdout.readline()
        assert line, f"the crowd {self._spec} died"
        told: dict[str, Any] = json.loads(line)
        return told


# --- in the child


def tell(**values: Any) -> None:
    """One line."""
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


async def told() -> str:
    """The next word of the parent; "" at its end."""
    return (await asyncio.to_thread(sys.stdin.readline)).strip()


async def idle(spec: Spec, mint: Mint) -> None:
    """Many sessions that do nothing but live."""
    count, ws, net = spec["count"], bool(spec.get("ws")), spec["net"]
    names = [f"{spec['stem']}{number}" for number in range(count)]
    peers = [Peer(name, mint.token(name), ws=ws) for name in names]
    answers: Counter[str] = Counter()
    pinging = asyncio.create_task(_ping(peers))  # the first must live while the last come
    for at in range(0, count, 25):
        some = [connect(peer, spec["port"], source_of(at + k, net=net)) for k, peer in enumerate(peers[at : at + 25])]
        answers.update(str(answer) for answer in await asyncio.gather(*some))
    tell(answers=answers)
    await told()
    pinging.cancel()
    tell(lost=sum(peer.ended.done() for peer in peers), codes=_codes(peers))
    for peer in peers:
        peer.close()


async def _ping(peers: list[Peer]) -> None:
    """Each once in PING_S, evenly."""
    while True:
        for number, peer in enumerate(peers):
            if peer.answer.done() and not peer.ended.done():
                peer.ping()
            if number % 20 == 0:
                await asyncio.sleep(PING_S * 20 / len(peers))


async def logins(spec: Spec, mint: Mint) -> None:
    """`rate` new sessions a second for `seconds`, each at its time whatever became of the others (an open loop)."""
    total, rate, net = int(spec["rate"] * spec["seconds"]), spec["rate"], spec["net"]
    names = [f"{spec['stem']}{number}" for number in range(total)]
    peers = [Peer(name, mint.token(name)) for name in names]
    histogram, answers = HdrHistogram(1, 600_000_000, 3), Counter[str]()
    tell(ready=True)
    await told()
    begun_s = time.monotonic()

    async def one(number: int) -> None:
        # Counted from HELLO, not from when it was due: this process may not be able to make so many. Few from one address:
        # beyond limits.strangers_per_address_max the oldest of those who have said nothing are cut.
        answer = await connect(peers[number], spec["port"], source_of(number, net=net))
        answers[str(answer)] += 1
        if answer is None:
            histogram.record_value(int((time.monotonic() - peers[number].said_s) * 1e6))

    async with asyncio.TaskGroup() as tasks:
        for number in range(total):
            due_s = begun_s + number / rate
            if (wait_s := due_s - time.monotonic()) > 0:
                await asyncio.sleep(wait_s)
            elif number % 16 == 0:
                await asyncio.sleep(0)
            tasks.create_task(one(number))
        offered_s = time.monotonic() - begun_s
    took_s = time.monotonic() - begun_s
    tell(
        answers=answers,
        took_s=took_s,
        offered_s=offered_s,
        codes=_codes(peers),
        retry_ms=_retries(peers),
        **_ms(histogram),
    )
    await told()
    for peer in peers:
        peer.close()


async def herd(spec: Spec, mint: Mint) -> None:
    """Sessions that lose their node all at once, and come back to another one as a good client does (full jitter)."""
    names = [f"{spec['stem']}{number}" for number in range(spec["count"])]
    tokens = {name: mint.token(name) for name in names}
    peers = [Peer(name, tokens[name]) for name in names]
    answers: Counter[str] = Counter()
    for at in range(0, len(peers), 25):
        some = [connect(p, spec["port"], source_of(at + k, net=spec["net"])) for k, p in enumerate(peers[at : at + 25])]
        answers.update(str(answer) for answer in await asyncio.gather(*some))
    tell(answers=answers)
    histogram, tries = HdrHistogram(1, 600_000_000, 3), Counter[str]()

    async def come_back(number: int, peer: Peer) -> Peer:
        await peer.ended
        lost_s, attempt, after_s = time.monotonic(), 0, 0.0
        while True:
            await asyncio.sleep(after_s + random.uniform(0, min(30.0, 0.5 * 2**attempt)))
            peer = Peer(peer.user, tokens[peer.user])
            answer = await connect(peer, spec["to_port"], source_of(number, net=spec["net"]))
            tries[str(answer)] += 1
            if answer is None:
                histogram.record_value(int((time.monotonic() - lost_s) * 1e6))
                return peer
            attempt += 1
            after_s = (peer.last_error.retry_after_ms if peer.last_error else 0) / 1000

    back = await asyncio.gather(*(come_back(number, peer) for number, peer in enumerate(peers)))
    tell(answers=tries, **_ms(histogram))
    await told()
    tell(lost=sum(peer.ended.done() for peer in back), codes=_codes(back))
    for peer in back:
        peer.close()


async def flood(spec: Spec, mint: Mint) -> None:
    """Senders at full speed for `seconds` (or until each said its `quota`)."""
    crowd = Flood(spec, mint, spec["stem"])
    answers = Counter[str]()
    if not spec.get("late"):
        answers += await crowd.come(crowd.receivers, spec["to_port"], spec["net"])
    answers += await crowd.come(crowd.senders, spec["port"], spec["net"] + 1)
    tell(answers=answers)
    await told()
    crowd.begin()
    begun_s = time.monotonic()
    enough = asyncio.create_task(told()) if spec.get("late") else None
    await until(lambda: _has_said(crowd) or (enough is not None and enough.done()), spec["seconds"])
    took_s = time.monotonic() - begun_s
    for sender in crowd.senders:
        sender.is_sending = False
    tell(took_s=took_s, **crowd.figures())
    if enough is not None:
        await enough
        await told()
        await crowd.come(crowd.receivers, spec["to_port"], spec["net"])
    tell(drained_s=await crowd.end(spec.get("drain_s", 60.0)), **crowd.figures())


def _has_said(crowd: Flood) -> bool:
    return all(it.quota is not None and it.sent >= it.quota and it.is_quiet for it in crowd.senders)


async def deaf(spec: Spec, mint: Mint) -> None:
    """Receivers that read nothing while others talk to them; then they wake up, come back if they were cut, and drain."""
    crowd = Flood(spec, mint, spec["stem"])
    answers = await crowd.come(crowd.receivers, spec["to_port"], spec["net"])
    answers += await crowd.come(crowd.senders, spec["port"], spec["net"] + 1)
    for receiver in crowd.receivers:
        receiver.transport.pause_reading()
    tell(answers=answers)
    await told()
    crowd.begin()
    begun_s = time.monotonic()
    await until(lambda: _has_said(crowd), spec["seconds"])
    tell(took_s=time.monotonic() - begun_s, **crowd.figures())
    await told()  # the parent looks at memory
    sleepers = crowd.receivers
    for receiver in sleepers:
        receiver.transport.resume_reading()
    await asyncio.sleep(1.0)
    codes, cut = _codes(sleepers), sum(receiver.ended.done() for receiver in sleepers)
    for receiver in sleepers:
        receiver.close()
    await crowd.come_again(spec["to_port"], spec["net"])
    tell(drained_s=await crowd.end(spec.get("drain_s", 120.0)), cut=cut, reader_codes=codes, **crowd.figures())


def _codes(peers: list[Peer]) -> Counter[str]:
    codes: Counter[str] = Counter()
    for peer in peers:
        codes.update({str(code): count for code, count in peer.codes.items()})
    return codes


def _retries(peers: list[Peer]) -> list[int]:
    waits = [peer.last_error.retry_after_ms for peer in peers if peer.last_error is not None]
    return [min(waits), max(waits)] if waits else []


def _ms(histogram: HdrHistogram) -> dict[str, float]:
    if not histogram.total_count:
        return {"p50_ms": 0.0, "p99_ms": 0.0, "max_ms": 0.0}
    p50, p99 = (histogram.get_value_at_percentile(at) / 1000 for at in (50, 99))
    return {"p50_ms": p50, "p99_ms": p99, "max_ms": histogram.get_max_value() / 1000}


KINDS: Final[dict[str, Callable[[Spec, Mint], Awaitable[None]]]] = {
    work.__name__: work for work in (idle, logins, herd, flood, deaf)
}


def main() -> int:
    """The child."""
    spec = json.loads(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    mint = SharedMint(Path(spec["mint"]))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(KINDS[spec["kind"]](spec, mint))
    return 0


class SharedMint(Mint):
    """Signs with a key that is there already."""

    def __init__(self, path: Path) -> None:
        import tomllib

        self.path = path
        self._secret = tomllib.loads(path.read_text())["keys"]["bench"]["secret"]


if __name__ == "__main__":
    sys.exit(main())
