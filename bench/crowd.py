"""The crowd of one scenario: senders, each with a receiver of one or more devices. It joins, is drained, and is judged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from bench.book import Book
from bench.pace import wait_until
from bench.plan import Scenario
from bench.transports import Door, Transport, connect

DRAIN_S_MAX: Final = 20.0  # without any delivery: then what was accepted and has not come is lost
LOGINS_AT_ONCE: Final = 50
ERRORS_TOLD_MAX: Final = 10


class Party(Protocol):
    """One connection; `ready` is done when it is logged in."""

    ready: asyncio.Future[None]
    errors: list[str]

    def close(self) -> None:
        """The end."""


class Sends(Party, Protocol):
    """See bench.swarm.Sender."""

    is_sending: bool
    sent: int
    accepted: int

    def begin(self) -> None:
        """Fill the window, and keep it full."""

    def send_at(self, meant_s: float) -> None:
        """One message that should have left at `meant_s` (latency)."""


class Receives(Party, Protocol):
    """See bench.swarm.Receiver."""

    delivered: int
    duplicates: int
    misordered: int
    reads: int


class MakesPairs(Protocol):
    """Makes a sender and the devices of its receiver. With a book their latencies are noted in it."""

    def __call__(self, names: str, number: int, plan: Scenario, book: Book | None) -> tuple[Sends, Sequence[Receives]]:
        """Pair `number` of users whose names begin with `names`."""


@dataclass(frozen=True, slots=True)
class Target:
    """Servers to load: `doors` of the chatd (senders at the first, receivers at the last), the pids whose CPU counts,
    what they count themselves, and RabbitMQ's address where there is one."""

    doors: Sequence[Door]
    pids: dict[str, int]
    counters: Callable[[], dict[str, float]]
    token: Callable[[str], str]
    rabbit_url: str = ""
    pairs: MakesPairs | None = None  # of a server that does not speak our wire


@dataclass(slots=True)
class Verdict:
    """What matters more than speed."""

    accepted: int = 0
    delivered: int = 0
    lost: int = 0
    duplicates: int = 0
    misordered: int = 0
    errors: list[str] = field(default_factory=list)


class Crowd:
    """`receivers[n]` are the devices of the user to whom `senders[n]` sends."""

    def __init__(self, senders: Sequence[Sends], receivers: Sequence[Sequence[Receives]]) -> None:
        self.senders = senders
        self.receivers = receivers
        self.devices = [device for devices in receivers for device in devices]

    @classmethod
    def of(cls, plan: Scenario, names: str, make: MakesPairs, book: Book | None) -> Crowd:
        """As many pairs as the plan has."""
        made = [make(names, number, plan, book) for number in range(plan.pairs)]
        return cls([sender for sender, _ in made], [devices for _, devices in made])

    async def join(self, target: Target, transport: Transport) -> None:
        """Everybody logs in."""
        await join_all(self.devices, target.doors[-1], transport)
        await join_all(self.senders, target.doors[0], transport)

    @property
    def delivered(self) -> int:
        """So far, to all devices."""
        return sum(device.delivered for device in self.devices)

    @property
    def expected(self) -> int:
        """What all devices will have got once everything sent has come."""
        pairs = zip(self.senders, self.receivers, strict=True)
        return sum(sender.sent * len(devices) for sender, devices in pairs)

    async def drain(self) -> float:
        """Wait until all that was sent has come; a message on its way is not a lost one. How long that took, in s."""
        waited_s, before = 0.0, -1
        while before < self.delivered < self.expected:
            before = self.delivered
            waited_s += await wait_until(lambda: self.delivered >= self.expected, DRAIN_S_MAX)
        return waited_s

    def judge(self) -> Verdict:
        """Count what was accepted and did not come, came twice, or came out of order."""
        pairs = [(sender, device) for sender, many in zip(self.senders, self.receivers, strict=True) for device in many]
        everybody: list[Party] = [*self.senders, *self.devices]
        return Verdict(
            accepted=sum(sender.accepted for sender in self.senders),
            delivered=self.delivered,
            lost=sum(max(0, sender.accepted - device.delivered) for sender, device in pairs),
            duplicates=sum(device.duplicates for device in self.devices),
            misordered=sum(device.misordered for device in self.devices),
            errors=[error for peer in everybody for error in peer.errors][:ERRORS_TOLD_MAX],
        )

    def close(self) -> None:
        """Everybody leaves."""
        for peer in (*self.senders, *self.devices):
            peer.close()


async def join_all(peers: Sequence[Party], door: Door, transport: Transport, at_once: int = LOGINS_AT_ONCE) -> None:
    """Connect and log in, some at a time."""
    turns = asyncio.Semaphore(at_once)

    async def join(peer: Party) -> None:
        async with turns:
            await connect(peer, door, transport)
            await peer.ready

    await asyncio.gather(*map(join, peers))
