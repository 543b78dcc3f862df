"""The devices of a chaos run: they come, talk, read, are slow, leave, and come back at another node."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple

from protocol.client import Backoff, Client, ClientClosed, Connected, MemoryStore, OutgoingFull, Refused
from protocol.messages import Read, Send
from protocol.wire import Flag
from tests.chaos.ledger import DeviceName, Ledger, Message
from tests.chaos.town import Town

UNANSWERED_MAX: Final = 200
READ_AFTER_S: Final = 0.2
SLOW_S: Final = 20.0  # a slow device is slow for so long, then catches up for as long
READS_MAX: Final = 50
LOOK_S: Final = 0.005
MOVE_S_MAX: Final = 10.0  # to come or to leave, when all is well


class Habits(NamedTuple):
    """How a crowd behaves."""

    users: int = 60
    messages_per_s: float = 200.0
    two_devices_in: int = 3  # one user in so many
    slow_in: int = 8
    partners: int = 6


class Crowd:
    """All devices. `gather` lets each log in once, `live` runs until `settle` was called and goes on then without talk."""

    def __init__(self, town: Town, habits: Habits, seed: int) -> None:
        self.habits = habits
        self.town = town
        users = [f"u{number:03d}" for number in range(habits.users)]
        names = [DeviceName(user, "phone") for user in users]
        names += [DeviceName(user, "laptop") for user in users[:: habits.two_devices_in]]
        self.ledger = Ledger(names)
        self.devices = [Device(self, name, random.Random(f"{seed} {name}"), users) for name in names]
        self.ends: Counter[str] = Counter()  # how sessions of clients ended for good
        self.is_talking = False
        self.is_settling = asyncio.Event()

    async def gather(self) -> None:
        """Every device becomes known."""
        await asyncio.gather(*(device.appear() for device in self.devices))

    async def live(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for device in self.devices:
                tasks.create_task(device.live())

    async def until(self, is_so: Callable[[], bool], s_max: float) -> bool:
        """Whether it became so in time."""
        end_s = self.ledger.now_s() + s_max
        while not is_so():
            if self.ledger.now_s() > end_s:
                return False
            await asyncio.sleep(LOOK_S)
        return True

    def settle(self) -> None:
        """No more talk; everybody comes and stays."""
        self.is_talking = False
        self.is_settling.set()

    @property
    def sessions(self) -> dict[DeviceName, tuple[str, str]]:
        """Node and session of everybody who is connected."""
        return {
            device.name: (device.client.state.node, device.client.state.session)
            for device in self.devices
            if device.client is not None and isinstance(device.client.state, Connected)
        }


class Device:
    """One device, with a store that outlives its clients."""

    def __init__(self, crowd: Crowd, name: DeviceName, dice: random.Random, users: list[str]) -> None:
        self.name = name
        self.client: Client | None = None
        self._crowd, self._dice, self._ledger = crowd, dice, crowd.ledger
        self._store = MemoryStore()
        self._token = crowd.town.mint.token(name.user)
        self._partners = dice.sample([user for user in users if user != name.user], crowd.habits.partners)
        self._is_slow = dice.randrange(crowd.habits.slow_in) == 0
        self._number = 0
        self._to_read: list[tuple[str, bytes]] = []
        self._may_stay = asyncio.Event()
        self._may_stay.set()
        self._must_leave = asyncio.Event()

    def _new_client(self) -> Client:
        """At any node, by the door or directly."""
        node = self._dice.choice(list(self._crowd.town.chatds))
        door = self._crowd.town.doors[f"clients-{node}"]
        port = self._dice.choice((door.port, self._crowd.town.chatds[node].tcp_port))
        client = Client(
            "127.0.0.1", port, self.name.user, self.name.device, token=self._token, store=self._store, auto_ack=False,
            credit=8 if self._is_slow else 256, unanswered_max=UNANSWERED_MAX, own_copies=True,
            backoff=Backoff(self._dice.uniform, base_s=0.2, cap_s=2.0),
        )  # fmt: skip
        for request, answer in client.recovered:
            if isinstance(request, Send):
                label = request.payload.split(b"\0", 1)[0].decode()
                self._watch(self._ledger.messages[label], answer)
            else:
                self._watch_read(request, answer)
        return client

    async def appear(self) -> None:
        """Log in once."""
        async with self._new_client() as client:
            await client.wait_drained()

    async def live(self) -> None:
        """One stay after the other."""
        crowd, dice = self._crowd, self._dice
        while True:
            await self._may_stay.wait()
            try:
                async with self._new_client() as self.client:
                    await self._stay(self.client, 0.0 if crowd.is_settling.is_set() else dice.uniform(2.0, 15.0))
            except* ClientClosed as group:
                for fault in group.exceptions:
                    crowd.ends[str(fault)[:60]] += 1
            self.client = None
            if not crowd.is_settling.is_set():
                await asyncio.sleep(dice.uniform(0.0, 4.0))

    # --- directed, on a settled crowd

    async def leave(self) -> None:
        """Go away until `come`."""
        self._may_stay.clear()
        self._must_leave.set()
        await self._crowd.until(lambda: self.client is None, MOVE_S_MAX)

    def come(self) -> None:
        """Come back."""
        self._must_leave.clear()
        self._may_stay.set()

    def say(self, to: str) -> Message | None:
        """Post one message now, if that is possible."""
        return None if self.client is None else self._post(self.client, to, is_plain=True)

    async def _stay(self, client: Client, stay_s: float) -> None:
        async with asyncio.TaskGroup() as tasks:
            beside = [tasks.create_task(work(client)) for work in (self._listen, self._talk, self._read)]
            await asyncio.sleep(stay_s)
            if self._crowd.is_settling.is_set():
                await self._must_leave.wait()
            for task in beside:
                task.cancel()

    async def _listen(self, client: Client) -> None:
        async for event in client:
            message = self._ledger.saw(self.name, event)
            client.ack(event)  # no turn of the loop lies between the two
            if message is not None and message.flags & Flag.READ_RECEIPT and len(self._to_read) < READS_MAX:
                self._to_read.append((message.by.user, message.id))
            # half of the time: who is slow for an hour falls behind until its queue is full, and a full queue is no fault
            is_slow_now = self._is_slow and self._ledger.now_s() % (2 * SLOW_S) < SLOW_S
            if is_slow_now and not self._crowd.is_settling.is_set():
                await asyncio.sleep(self._dice.uniform(0.0, 0.1))

    # --- out

    async def _talk(self, client: Client) -> None:
        dice, habits = self._dice, self._crowd.habits
        burst = 3
        pause_s = burst * len(self._crowd.devices) / habits.messages_per_s
        while True:
            await asyncio.sleep(dice.expovariate(1 / pause_s))
            if not self._crowd.is_talking:
                continue
            to = dice.choice(self._partners)
            for _ in range(dice.randrange(1, 2 * burst)):
                self._post(client, to)

    def _post(self, client: Client, to: str, *, is_plain: bool = False) -> Message | None:
        if client.unanswered >= UNANSWERED_MAX:
            return None
        dice = self._dice
        self._number += 1
        label = f"{self.name}>{to}#{self._number}"
        receipt, read = not is_plain and dice.random() < 0.3, not is_plain and dice.random() < 0.1
        ttl_s = dice.randrange(1, 4) if not is_plain and dice.random() < 0.03 else None
        flags = (Flag.RECEIPT if receipt else 0) | (Flag.READ_RECEIPT if read else 0)
        payload = label.encode() + b"\0" + dice.randbytes(dice.choice((10, 60, 300, 3000)))
        message = self._ledger.posted(self.name, label, Send(0, int(flags), to, payload, ttl_s))
        try:
            answer = client.post(to, payload, receipt=receipt, read_receipt=read, ttl_s=ttl_s)
        except (OutgoingFull, ClientClosed):
            self._ledger.withdraw(message)
            return None
        self._watch(message, answer)
        return message

    def _watch(self, message: Message, answer: asyncio.Future[bytes]) -> None:
        def on_answer(done: asyncio.Future[bytes]) -> None:
            fault = done.exception()
            if fault is None:
                self._ledger.accepted(message, done.result())
            elif isinstance(fault, Refused):
                self._ledger.refused(message, fault)
            # otherwise the client is over, and the next one of this store asks again

        answer.add_done_callback(on_answer)

    async def _read(self, client: Client) -> None:
        while True:
            await asyncio.sleep(READ_AFTER_S)
            if self._to_read and client.unanswered < UNANSWERED_MAX:
                to, id_ = self._to_read[0]
                answer = client.post_read(to, [id_])
                del self._to_read[0]
                self._watch_read(Read(0, 0, to, (id_,)), answer)

    def _watch_read(self, request: Read, answer: asyncio.Future[bytes]) -> None:
        def on_answer(done: asyncio.Future[bytes]) -> None:
            if done.exception() is None:
                self._ledger.read(request)

        answer.add_done_callback(on_answer)
