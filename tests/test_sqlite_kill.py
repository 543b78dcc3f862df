"""kill -9 in the middle of appends: what the SQLite sent_queue confirmed is there, in order, without gaps."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

from brokerd.links.sqlite import SqliteSentQueue

ROUNDS = 10
CONFIRMED_BEFORE_KILL = 12  # entries that a child confirmed before it is killed

CHILD = """
import asyncio, sys
from brokerd.links.sqlite import SqliteSentQueue
from brokerd.ports import Append, Entry

async def lane(queue, user, first):
    cid = first
    while True:
        entries = [Entry(b"origin", cid + k, 5, 0, 0, b"%s %d" % (user.encode(), cid + k)) for k in range(3)]
        [appended] = await queue.append([Append(user, entries)], 1)
        sys.stdout.write("".join(f"{user} {seq} {cid + k}\\n" for k, seq in enumerate(appended.results)))
        sys.stdout.flush()
        cid += 3

async def main():
    async with SqliteSentQueue(sys.argv[1], count_max=10**9) as queue:
        for user in ("bob", "cid", "dan"):
            await queue.open(user, "phone", b"genera01", 1)
        starts = await queue.heads(["bob", "cid", "dan"])
        await asyncio.gather(*(lane(queue, user, start + 1) for user, start in zip(("bob", "cid", "dan"), starts)))

asyncio.run(main())
"""


def run_and_kill(path: Path) -> list[tuple[str, int, int]]:
    """What a child confirmed before kill -9 took it in the middle of its work: (user, seq, cid)."""
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    lines = [child.stdout.readline() for _ in range(CONFIRMED_BEFORE_KILL)]
    os.kill(child.pid, signal.SIGKILL)
    lines += child.stdout.read().split("\n")[:-1]  # the last may be cut short: it was not said
    child.wait()
    child.stdout.close()
    return [(user, int(seq), int(cid)) for user, seq, cid in (line.split() for line in lines)]


async def test_after_kill_9_all_that_was_confirmed_is_there_in_order_without_gaps(tmp_path: Path) -> None:
    path = tmp_path / "sent_queue.db"
    for _ in range(ROUNDS):
        confirmed = await asyncio.to_thread(run_and_kill, path)
        assert len(confirmed) >= CONFIRMED_BEFORE_KILL
        async with SqliteSentQueue(path) as queue:
            for user in ("bob", "cid", "dan"):
                page = await queue.read(user, 0, 1 << 40, 1 << 40)
                assert len(page.entries) == page.head
                assert [entry.body for entry in page.entries] == [
                    b"%s %d" % (user.encode(), number) for number in range(1, page.head + 1)
                ]
            assert all(seq == cid for _, seq, cid in confirmed)
            last = {user: seq for user, seq, _ in confirmed}
            heads = await queue.heads(list(last))
            assert all(head >= seq for head, seq in zip(heads, last.values(), strict=True))
