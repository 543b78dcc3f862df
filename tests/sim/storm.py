"""What strikes a simulated world from outside: one function a kind, named as in odds.py."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from tests.sim.machines import Machine


def strike(world: Any, name: str) -> None:
    """Do it, to somebody, for a while; nothing when there is nobody."""
    world.faults += 1
    random = world.random
    _STRIKES[name](world, random, random.random() * random.choice((0.3, 3.0)))


def _cut(world: Any, random: Random, for_s: float) -> None:
    device = random.choice(world.devices)
    if device.pipe is not None:
        device.pipe.cut("by the storm")


def _leave(world: Any, random: Random, for_s: float) -> None:
    random.choice(world.devices).leave()


def _crash(machines: list[Any], random: Random) -> None:
    if machines:
        random.choice(machines).process.die()


def _drain_node(world: Any, random: Random, for_s: float) -> None:
    running = [node for node in world.nodes if node.board is not None and not node.is_stopping]
    if running:
        machine = random.choice(running)
        world.ledger.note(b"", f"{machine.name} drains")
        machine.drain()


def _freeze_broker(world: Any, random: Random, for_s: float) -> None:
    if world.brokers:
        machine = random.choice(world.brokers)
        world.ledger.note(b"", f"{machine.name} freezes for {for_s:.2f} s and loses its shards")
        machine.process.frozen_until_s = world.loop.time() + for_s
        machine.shards.part(for_s + random.random())


def _part_inbound(world: Any, random: Random, for_s: float) -> None:
    machines: list[Machine] = world.nodes + world.brokers
    if machines:
        machine = random.choice(machines)
        world.ledger.note(b"", f"{machine.name} loses its way to the shards for {for_s:.2f} s")
        machine.inbound.part(for_s)


def _part_inbox(world: Any, random: Random, for_s: float) -> None:
    if world.nodes:
        machine = random.choice(world.nodes)
        world.ledger.note(b"", f"{machine.name} loses its inbox for {for_s:.2f} s")
        machine.inbox.part(for_s)


def _store_outage(world: Any, random: Random, for_s: float) -> None:
    world.ledger.note(b"", f"the store is away for {for_s:.2f} s")
    for machine in world.nodes + world.brokers:
        machine.process.store_down_until_s = world.loop.time() + for_s


def _store_emptied(world: Any, random: Random, for_s: float) -> None:
    """Redis restarts without its data: nobody reaches it for a while, then it is empty."""
    if world.ledger.emptied < 2:
        _store_outage(world, random, for_s)
        world.ledger.note(b"", "the store is empty")
        world.store.forget()
        world.ledger.store_emptied()


def _slow_reader(world: Any, random: Random, for_s: float) -> None:
    device = random.choice(world.devices)
    if device.pipe is not None:
        device.pipe.slow(for_s)


_STRIKES: dict[str, Callable[[Any, Random, float], None]] = {
    "cut": _cut,
    "leave": _leave,
    "crash_node": lambda world, random, for_s: _crash(world.nodes, random),
    "crash_broker": lambda world, random, for_s: _crash(world.brokers, random),
    "drain_node": _drain_node,
    "freeze_broker": _freeze_broker,
    "part_inbound": _part_inbound,
    "part_inbox": _part_inbox,
    "store_outage": _store_outage,
    "store_emptied": _store_emptied,
    "slow_reader": _slow_reader,
}
