"""What being watched costs: a scrape of a real embedded chatd, a look of chatctl top at it, and steps on the hot path.
`python -m tests.operate.costs`"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
import timeit
from collections.abc import Callable
from pathlib import Path

from bench.processes import Chatd
from bench.tokens import Mint
from brokerd.metrics import Sizes
from chatd.ctl.live import ask
from chatd.switchboard import Counts
from protocol.client import Client
from tests.operate.scraping import fetch

SESSIONS = 500
SCRAPES = 50


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        mint = Mint(Path(folder))
        server = Chatd(Path(folder), env={"CHATD_LIMITS_STRANGERS_PER_ADDRESS_MAX": "1000"})
        server.start()
        try:
            for sessions in (0, SESSIONS):
                people = [
                    Client("127.0.0.1", server.tcp_port, f"u{n}", "d", token=mint.token(f"u{n}"))
                    for n in range(sessions)
                ]
                for one in people:
                    await one.__aenter__()
                await asyncio.gather(*(one.wait_connected() for one in people))
                print(f"{sessions} sessions: {await asyncio.to_thread(scrape, server)}")
                print(f"{sessions} sessions: {await asyncio.to_thread(look, server)}")
                await asyncio.gather(*(one.close() for one in people))
        finally:
            server.stop()
    steps()


def steps() -> None:
    sizes, counts = Sizes(4096), Counts()
    posts, read, chunks = [0] * 20, b"x" * 116, [b"x" * 116]

    def step() -> None:
        sizes.of_bits[len(posts).bit_length()] += 1

    def bytes_in() -> None:
        counts.bytes_in += len(read)

    def bytes_out() -> None:
        counts.bytes_out += len(chunks[0]) if len(chunks) == 1 else sum(map(len, chunks))

    print(f"a batch's step in the histogram: {cost_ns(step)} ns")
    print(f"counting the bytes of a read: {cost_ns(bytes_in)} ns, of a write: {cost_ns(bytes_out)} ns")


def cost_ns(step: Callable[[], None]) -> int:
    runs = 1_000_000
    empty = min(timeit.repeat(lambda: None, number=runs, repeat=3))
    return round((min(timeit.repeat(step, number=runs, repeat=3)) - empty) / runs * 1e9)


def scrape(server: Chatd) -> str:
    before, took = cpu_s(server.pid), []
    for _ in range(SCRAPES):
        began = time.perf_counter()
        told = fetch(server.http_port, "/metrics")
        took.append((time.perf_counter() - began) * 1000)
    cpu_ms = (cpu_s(server.pid) - before) / SCRAPES * 1000
    return f"{len(told.text)} bytes, {cpu_ms:.1f} ms CPU of chatd a scrape, {statistics.median(took):.1f} ms until it is there"


def look(server: Chatd) -> str:
    before, took = cpu_s(server.pid), []
    for _ in range(SCRAPES):
        began = time.perf_counter()
        told = ask(server.data_dir / "chatd.sock", "top", rows=10)
        took.append((time.perf_counter() - began) * 1000)
    cpu_ms = (cpu_s(server.pid) - before) / SCRAPES * 1000
    return f"a look of top: {cpu_ms:.1f} ms CPU of chatd, {statistics.median(took):.1f} ms until it is there, {told['sessions']} seen"


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


if __name__ == "__main__":
    asyncio.run(main())
