"""How full a queue is, as the SQLite sent_queue keeps it in mind, against its file."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from brokerd.links import sqlite_state
from brokerd.links.sqlite import SqliteSentQueue
from brokerd.ports import Ack, Append, Entry
from protocol.wire import Type

GENERATION = b"genera01"
NOW_MS = 1_700_000_000_000


@pytest.mark.parametrize("seed", range(4))
async def test_the_bytes_of_a_queue_are_those_of_its_entries_whatever_of_them_is_remembered(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_state, "SIZES_MAX", 20)  # so that a part of them is forgotten
    chance, cid = random.Random(seed), 0
    for _ in range(4):  # and all of it by a start
        async with SqliteSentQueue(tmp_path / "sent_queue.db") as queue:
            await queue.open("bob", "phone", GENERATION, NOW_MS)
            for _ in range(30):
                some = []
                for _ in range(chance.randrange(6)):
                    cid += 1
                    some.append(Entry(b"ann-phone", cid, int(Type.DELIVER), 0, 0, bytes(chance.randrange(50))))
                [appended] = await queue.append([Append("bob", some)], NOW_MS)
                if chance.random() < 0.1:
                    await queue.bury("bob", [appended.head], 1, NOW_MS)
                if chance.random() < 0.5:
                    acked = chance.randint(max(0, appended.head - 25), appended.head)
                    await queue.acknowledge([Ack("bob", "phone", acked, NOW_MS)], NOW_MS)
                status = await queue.status("bob")
                assert status is not None
                live = [it for it in (await queue.read("bob", status.floor, 1000, 1 << 30)).entries if it.type]
                assert status.bytes == sum(len(it.body) for it in live)
