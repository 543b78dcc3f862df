"""Senders that say as much as they can, and receivers that count what comes. Part of a crowd (crowd.py)."""

from __future__ import annotations

import asyncio
import struct
import time
from collections import Counter
from typing import Final

import msgpack

from bench.tokens import Mint
from protocol.codec import decode
from protocol.errors import Code
from protocol.messages import Error, Message, Receipt
from protocol.wire import CID_BYTES, HEAD, Status, Type
from tests.overload.peer import Peer, connect, source_of
from tests.overload.watch import until

CHUNK: Final = 32  # messages in one write
_MARK: Final = struct.Struct(">IQ")  # who said it, under which cid: the first bytes of a payload
_SEND, _ACCEPTED, _DELIVER, _RECEIPT = int(Type.SEND), int(Type.ACCEPTED), int(Type.DELIVER), int(Type.RECEIPT)
PING_S: Final = 2.0
_RETRY_S_MIN: Final = 0.2


class Tally:
    """What one receiver got, over all its sessions. A seq that comes again was not acknowledged: no duplicate."""

    def __init__(self) -> None:
        self.last_seq = 0
        self._last_cids: dict[int, int] = {}
        self._seen: dict[int, set[int]] = {}
        self.count = self.duplicates = self.gaps = self.misordered = 0

    def take(self, seq: int, sender: int, cid: int) -> None:
        """One delivery."""
        if seq <= self.last_seq:
            return
        self.gaps += bool(self.last_seq) and seq != self.last_seq + 1
        self.last_seq = seq
        seen = self._seen.setdefault(sender, set())
        self.duplicates += cid in seen
        seen.add(cid)
        self.misordered += cid < self._last_cids.get(sender, 0)
        self._last_cids[sender] = max(cid, self._last_cids.get(sender, 0))
        self.count += 1

    def has(self, sender: int, cids: set[int]) -> int:
        """How many of these came here."""
        return len(self._seen.get(sender, set()) & cids)


class Receiver(Peer):
    """Acknowledges once a read."""

    def __init__(self, user: str, token: str, tally: Tally, payload_bytes: int) -> None:
        super().__init__(user, token)
        self.tally = tally
        self._payload_bytes = payload_bytes
        self._acked = 0

    def frame(self, type_: int, ref: int, body: bytes) -> None:
        if type_ == _DELIVER:
            self.tally.take(ref, *_MARK.unpack_from(body, len(body) - self._payload_bytes))

    def turn(self) -> None:
        if self.tally.last_seq > self._acked:
            self._acked = self.tally.last_seq
            self.ack(self._acked)


class Sender(Peer):
    """Says as much as the server reads (or `window` at a time). BUSY makes it wait as long as it is told, and resend."""

    def __init__(self, user: str, token: str, number: int, targets: list[str], payload_bytes: int, window: int) -> None:
        super().__init__(user, token)
        self.number = number
        self.is_sending = False
        self.quota: int | None = None  # at most so many, when set
        self.sent = self.accepted = self.refused = 0
        self.failed: set[int] = set()  # cids; a status may be told twice (SPEC CHAT-104)
        self.first_busy_s: float | None = None  # Unix time
        self._cid = self._first_cid = int(time.time() * 1e6)
        self._window = window
        self._open = 0
        self._refused: list[int] = []
        self._not_before_s = 0.0
        self._seq = 0
        self._pad = bytes(payload_bytes - _MARK.size)
        head = msgpack.packb(bytes(payload_bytes))[:-payload_bytes]
        self._before = [b"\x92" + msgpack.packb(to) + head for to in targets]
        self._size = [len(before) + payload_bytes for before in self._before]

    @property
    def is_quiet(self) -> bool:
        """Nothing is to be said again and nothing is without an answer."""
        return not self._refused and self._open <= 0

    def begin(self) -> None:
        """From now on."""
        self.is_sending = True
        self.turn()

    def turn(self) -> None:
        if self.ended.done() or time.monotonic() < self._not_before_s or not self.answer.done():
            return
        while self._refused and self.is_writable:
            again, self._refused = sorted(self._refused)[:CHUNK], sorted(self._refused)[CHUNK:]
            self._write(again)
        while self.is_sending and self.is_writable and self._has_room():
            count = CHUNK if not self._window else min(CHUNK, self._window - self._open)
            if self.quota is not None:
                count = min(count, self.quota - self.sent)
            cids = list(range(self._cid, self._cid + count))
            self._cid += count
            self.sent += count
            self._write(cids)

    def _has_room(self) -> bool:
        if self.quota is not None and self.sent >= self.quota:
            return False
        return not self._window or self._open < self._window

    def _write(self, cids: list[int]) -> None:
        chunks: list[bytes] = []
        for cid in cids:
            target = (cid - self._first_cid) % len(self._before)
            mark = _MARK.pack(self.number, cid)
            chunks += (HEAD.pack(self._size[target], _SEND, 0, 0, cid), self._before[target], mark, self._pad)
        self._open += len(cids)
        self.write(b"".join(chunks))

    def frame(self, type_: int, ref: int, body: bytes) -> None:
        if type_ == _ACCEPTED:
            count = len(msgpack.unpackb(body)[0])
            self.accepted += count
            self._open -= count
        elif type_ == _RECEIPT:
            receipt = decode(type_, 0, ref, body)
            assert isinstance(receipt, Receipt)
            if receipt.status == Status.FAILED:
                self.failed.update(int.from_bytes(id_[-CID_BYTES:]) for id_ in receipt.ids)
            self.ack(ref)

    def take(self, message: Message) -> None:
        super().take(message)
        if isinstance(message, Error) and message.code == Code.QUEUE_FULL:
            self.refused += 1
            self._open -= 1
        elif isinstance(message, Error) and message.ref >= self._first_cid and message.retry_after_ms:
            self.first_busy_s = self.first_busy_s or time.time()
            self._open -= 1
            self._refused.append(message.ref)
            wait_s = max(_RETRY_S_MIN, message.retry_after_ms / 1000)
            if time.monotonic() >= self._not_before_s:
                self._not_before_s = time.monotonic() + wait_s
                asyncio.get_running_loop().call_later(wait_s + 0.01, self.turn)


class Flood:
    """`senders` to `receivers`, spread evenly: to each its own, all to one, or one to all."""

    def __init__(self, spec: dict[str, int], mint: Mint, stem: str) -> None:
        self._spec = spec
        self._bytes = spec.get("bytes", 100)
        receivers, senders = spec["receivers"], spec["senders"]
        names = [f"{stem}r{number}" for number in range(receivers)]
        self.tallies = [Tally() for _ in names]
        self._names, self._mint = names, mint
        self.receivers = [self._receiver(number) for number in range(receivers)]
        self.senders = []
        for number in range(senders):
            to = [names[number % receivers]] if senders >= receivers else names[number::senders]
            user = f"{stem}s{number}"
            sender = Sender(user, mint.token(user), number, to, self._bytes, spec.get("window", 0))
            sender.quota = spec.get("quota")
            self.senders.append(sender)

    def _receiver(self, number: int) -> Receiver:
        name = self._names[number]
        return Receiver(name, self._mint.token(name), self.tallies[number], self._bytes)

    async def come(self, peers: list[Receiver] | list[Sender], port: int, net: int) -> Counter[str]:
        """Log in, some at a time; how that went."""
        answers: Counter[str] = Counter()
        for at in range(0, len(peers), 50):
            some = [
                connect(peer, port, source_of(at + place, net=net)) for place, peer in enumerate(peers[at : at + 50])
            ]
            answers.update(str(answer) for answer in await asyncio.gather(*some))
        return answers

    async def come_again(self, port: int, net: int) -> None:
        """New sessions of all receivers, behind what they had acknowledged."""
        self.receivers = [self._receiver(number) for number in range(len(self._names))]
        await self.come(self.receivers, port, net)

    def begin(self) -> None:
        """All senders."""
        for sender in self.senders:
            sender.begin()

    async def end(self, s_max: float = 60.0) -> float:
        """Say nothing new, wait for all answers and all deliveries; how long that took."""
        begun_s = time.monotonic()
        for sender in self.senders:
            sender.is_sending = False
        pinging = asyncio.create_task(self._ping())
        await until(lambda: self.is_done, s_max)
        pinging.cancel()
        return time.monotonic() - begun_s

    async def _ping(self) -> None:
        """As every client does now and then: a PONG shows what no hand-over brought."""
        while True:
            await asyncio.sleep(PING_S)
            for peer in (*self.receivers, *self.senders):  # what comes back to a sender comes the same way
                if peer.answer.done() and not peer.ended.done():
                    peer.ping()

    @property
    def is_done(self) -> bool:
        """Every message has its answer, and what was accepted its end."""
        return all(sender.is_quiet or sender.ended.done() for sender in self.senders) and self.missing <= 0

    @property
    def missing(self) -> int:
        """Accepted, and neither delivered nor told as failed."""
        ended = sum(tally.count for tally in self.tallies) + sum(len(sender.failed) for sender in self.senders)
        return sum(sender.accepted for sender in self.senders) - ended

    def figures(self) -> dict[str, object]:
        """For the report."""
        codes: Counter[str] = Counter()
        for peer in (*self.senders, *self.receivers):
            codes.update({str(code): count for code, count in peer.codes.items()})
        busy = [sender.first_busy_s for sender in self.senders if sender.first_busy_s]
        return {
            "sent": sum(sender.sent for sender in self.senders),
            "accepted": sum(sender.accepted for sender in self.senders),
            "failed": sum(len(sender.failed) for sender in self.senders),
            "both": sum(tally.has(sender.number, sender.failed) for tally in self.tallies for sender in self.senders),
            "refused": sum(sender.refused for sender in self.senders),
            "delivered": sum(tally.count for tally in self.tallies),
            "missing": self.missing,
            "duplicates": sum(tally.duplicates for tally in self.tallies),
            "misordered": sum(tally.misordered for tally in self.tallies),
            "gaps": sum(tally.gaps for tally in self.tallies),
            "ended": sum(sender.ended.done() for sender in self.senders),
            "first_busy_s": min(busy, default=None),
            "codes": codes,
        }
