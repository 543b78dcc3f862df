"""What metrics cost: a scrape of a real embedded chatd, and a batch's step in the histogram. `python -m tests.operate.costs`"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
import timeit
from pathlib import Path

from bench.processes import Chatd
from bench.tokens import Mint
from brokerd.metrics import Sizes
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
                await asyncio.gather(*(one.close() for one in people))
        finally:
            server.stop()
    sizes = Sizes(4096)
    posts = [0] * 20
    runs = 1_000_000

    def step() -> None:
        sizes.of_bits[len(posts).bit_length()] += 1

    empty = min(timeit.repeat(lambda: None, number=runs, repeat=3))
    print(
        f"a batch's step in the histogram: {(min(timeit.repeat(step, number=runs, repeat=3)) - empty) / runs * 1e9:.0f} ns"
    )


def scrape(server: Chatd) -> str:
    before, took = cpu_s(server.pid), []
    for _ in range(SCRAPES):
        began = time.perf_counter()
        told = fetch(server.http_port, "/metrics")
        took.append((time.perf_counter() - began) * 1000)
    cpu_ms = (cpu_s(server.pid) - before) / SCRAPES * 1000
    return f"{len(told.text)} bytes, {cpu_ms:.1f} ms CPU of chatd a scrape, {statistics.median(took):.1f} ms until it is there"


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


if __name__ == "__main__":
    asyncio.run(main())
