"""What the tests of a SentQueue share: entries to put in, and short words for what they ask."""

from __future__ import annotations

from collections.abc import Sequence

from brokerd.ports import Ack, Append, Appended, Entry, Owed, SentQueue
from protocol.wire import GENERATION_BYTES, Type

NOW = 1_700_000_000_000
DAY = 24 * 3600 * 1000
GEN = b"1" * GENERATION_BYTES
ANN = b"ann's tag"
CAT = b"cat's tag"
GONE = 417  # any error code


def letter(
    cid: int, body: bytes = b"hello", *,
    origin: bytes = ANN, type: int = Type.DELIVER, flags: int = 0, expires_ms: int = 0, prev: int = 0,
) -> Entry:  # fmt: skip
    return Entry(origin, cid, int(type), int(flags), expires_ms, body, prev)


def letters(first: int, last: int, **more: int) -> list[Entry]:
    return [letter(cid, b"letter %d" % cid, **more) for cid in range(first, last + 1)]


async def save(queue: SentQueue, entries: Sequence[Entry], user: str = "bob", now_ms: int = NOW) -> Appended:
    [answer] = await queue.append([Append(user, entries)], now_ms)
    return answer


async def results(queue: SentQueue, entries: Sequence[Entry], user: str = "bob", now_ms: int = NOW) -> list[int]:
    return list((await save(queue, entries, user, now_ms)).results)


async def ack(queue: SentQueue, device: str, seq: int, settled: int = 0, user: str = "bob") -> list[Owed]:
    [answer] = await queue.acknowledge([Ack(user, device, seq, settled)], NOW)
    return list(answer.owed)


async def bodies(queue: SentQueue, after: int = 0, user: str = "bob") -> list[bytes]:
    return [entry.body for entry in (await queue.read(user, after, 10_000, 10**9)).entries]


async def floor(queue: SentQueue, user: str = "bob") -> int:
    status = await queue.status(user)
    assert status is not None
    return status.floor
