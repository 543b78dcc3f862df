"""Two acts on the quiet town after the storm, for faults that a storm hides because the next message repairs them.

The doorstep: many users log in at the very moment at which one message comes for each of them. It must be there long before
the next PING would have found it (promise 4: save first, look up after; register first, read after).
The dead house: a node is frozen and killed, and its devices stay away. After one message to each, the register must hold
exactly the living (promise 10).
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from typing import Final

from tests.chaos.crowd import Crowd, Device
from tests.chaos.ledger import Message
from tests.chaos.quiet import registered
from tests.chaos.town import KEEPALIVE_S, LEASE_S, Town

ROUNDS: Final = 8
ARRIVALS_S: Final = 0.3  # logins and messages are spread over so much, each by itself
SLOW_S: Final = 0.05  # brokerd's way to Redis meanwhile, so that its steps lie apart and a login can fall between them
SEEN_S_MAX: Final = 3.0
FREED_S_MAX: Final = LEASE_S + 10.0
LOOKS: Final = 25

assert SEEN_S_MAX < KEEPALIVE_S / 2, "or the PING would repair what is to be found"


async def doorstep(town: Town, crowd: Crowd, dice: random.Random) -> None:
    """Everybody but the senders leaves and comes back, `ROUNDS` times."""
    senders = [device for device in crowd.devices if len(crowd.ledger.of_user[device.name.user]) == 1]
    sender, guests = senders[0], senders[1:]
    doors = [door for name, door in town.doors.items() if name.startswith("brokerd") and name.endswith("-redis")]
    for door in doors:
        door.slow(SLOW_S)
    for _ in range(ROUNDS):
        await asyncio.gather(*(device.leave() for device in guests))
        await asyncio.gather(*(_meet(crowd, sender, device, dice) for device in guests))
    for door in doors:
        door.mend()


async def _meet(crowd: Crowd, sender: Device, guest: Device, dice: random.Random) -> None:
    _, message = await asyncio.gather(_come(guest, dice), _call(sender, guest.name.user, dice))
    if message is None or not await crowd.until(lambda: guest.name in message.seen, SEEN_S_MAX):
        text = "was not sent" if message is None else f"{message.label} was not seen"
        crowd.ledger.breach("stranded", f"on the doorstep of {guest.name} a message {text} in {SEEN_S_MAX} s", message)


async def _come(guest: Device, dice: random.Random) -> None:
    await asyncio.sleep(dice.uniform(0.0, ARRIVALS_S))
    guest.come()


async def _call(sender: Device, to: str, dice: random.Random) -> Message | None:
    await asyncio.sleep(dice.uniform(0.0, ARRIVALS_S))
    return sender.say(to)


async def dead_house(town: Town, crowd: Crowd, dice: random.Random) -> None:
    """Kill a node for good, and see who stands in the register."""
    name = dice.choice(list(town.chatds))
    node = town.chatds[name]
    inside = [device for device in crowd.devices if crowd.sessions[device.name][0].startswith(f"{name}:")]
    os.kill(node.pid, signal.SIGSTOP)  # so that nobody can say good-bye
    await asyncio.gather(*(device.leave() for device in inside))
    await asyncio.to_thread(node.kill9)
    living = [device for device in crowd.devices if device not in inside]
    for user in sorted({device.name.user for device in inside}):
        dice.choice([device for device in living if device.name.user != user]).say(user)
    wrong = await registered(town, crowd)
    for _ in range(LOOKS):
        if not wrong:
            break
        await asyncio.sleep(FREED_S_MAX / LOOKS)
        wrong = await registered(town, crowd)
    for text in wrong:
        crowd.ledger.breach("stale", f"{FREED_S_MAX:.0f} s after the end of {name}, {text}")
    await asyncio.to_thread(node.start)
    for device in inside:
        device.come()
