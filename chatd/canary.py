"""The canary: two users of a node's own who send each other a message now and then, over the way of everybody, so that /metrics
shows how long that way takes now, and that it is open at all, also when nobody else says anything.

They are the project's own client on a socket of this process: what they say is read, confirmed, stored, handed over and
acknowledged as what people say is. Only one message is under way, so that an outage leaves nothing to be worked off. A
fault here is logged and never ends the node.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from brokerd.metrics import Seconds, Value
from chatd.auth.own import own_names
from protocol.client import Client, ClientClosed, OutgoingFull
from protocol.client_wire import Dial
from protocol.messages import Deliver

DEVICE: Final = "canary"
GIVEN_UP_S: Final = 60  # a message that is not there by then has expired
UNANSWERED_MAX: Final = 4  # of those that were given up


class Canary:
    """One for a node. `run` is its only task; the clients' are its children."""

    def __init__(self, name: str, run: str, every_s: float, secret: str, log: Any) -> None:
        """`name` is the node's, `run` that of this run of it: what an earlier one said is not ours."""
        self._names = own_names(name)
        self._run = run
        self._every_s = every_s
        self._secret = secret
        self._log = log
        self._now_s = time.monotonic  # uvloop's own clock counts whole ms
        self._count = 0
        self._said = b""
        self._said_s: float | None = None  # None: nothing is under way
        self._heard_s = self._now_s()
        self._late = self._given_up = 0
        self._accepted, self._delivered = Seconds(), Seconds()

    def statistics(self) -> Mapping[str, Value]:
        """For metrics."""
        return {
            "accepted_seconds": self._accepted.buckets(),
            "delivered_seconds": self._delivered.buckets(),
            "late": self._late,
            "given_up": self._given_up,
            "age_seconds": self._now_s() - self._heard_s,
        }

    async def run(self, dial: Dial) -> None:
        """Talk until it is cancelled; then both leave at once. `dial` gives sockets that lead into this node."""
        while True:
            await asyncio.sleep(self._every_s)  # at the start the links are not up yet: it would be told to come back
            try:
                async with self._client(0, dial) as one, self._client(1, dial) as other:
                    await self._talk(one, other)
            except* ClientClosed as closed:  # another node of this name has taken their place, say
                self._log.warning("canary_closed", why=[str(fault) for fault in closed.exceptions])
            except* Exception:
                self._log.exception("canary_failed")

    def _client(self, which: int, dial: Dial) -> Client:
        return Client(
            "", 0, self._names[which], DEVICE, token=self._secret, dial=dial, unanswered_max=UNANSWERED_MAX
        )  # fmt: skip

    async def _talk(self, one: Client, other: Client) -> None:
        for client in (one, other):
            await client.wait_connected()  # from now on the store knows them
        async with asyncio.TaskGroup() as tasks:
            for client in (one, other):
                tasks.create_task(self._listen(client))
            while True:
                await asyncio.sleep(self._every_s)
                self._say(one, other)

    def _say(self, *clients: Client) -> None:
        now_s = self._now_s()
        if self._said_s is not None:
            self._late += 1
            if now_s - self._said_s < GIVEN_UP_S:
                return
            self._given_up += 1
        self._count += 1
        by = self._count % 2
        self._said, self._said_s = f"{self._run} {self._count}".encode(), now_s
        try:
            answer = clients[by].post(self._names[1 - by], self._said, ttl_s=GIVEN_UP_S)
        except OutgoingFull:  # late as well, and given up in its time
            return
        answer.add_done_callback(partial(self._answered, now_s))

    def _answered(self, said_s: float, answer: asyncio.Future[bytes]) -> None:
        if answer.cancelled():
            return
        fault = answer.exception()
        if fault is None:
            self._accepted.add(self._now_s() - said_s)
        elif not isinstance(fault, ClientClosed):  # that is told once, by `run`
            self._log.warning("canary_refused", why=str(fault))

    async def _listen(self, client: Client) -> None:
        async for message in client:
            if self._said_s is not None and type(message) is Deliver and message.payload == self._said:
                self._heard_s = self._now_s()
                self._delivered.add(self._heard_s - self._said_s)
                self._said_s = None
