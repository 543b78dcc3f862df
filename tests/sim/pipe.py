"""A connection between a device and a node, which can be cut, halved and slowed."""

from __future__ import annotations

from random import Random
from typing import Any

from protocol.errors import Code
from tests.sim.process import DELAY_S_MAX, STEP_S


class Pipe:
    """One connection. Implements chatd.ports.Wire for the node's end."""

    def __init__(self, world: Any, device: Any, node: Any, seed: int) -> None:
        self._world, self._device, self.node = world, device, node
        self._loop = world.loop
        self.random = Random(seed)
        self._up_s = self._down_s = 0.0
        self.is_broken = False
        self._is_reading = True
        self._held: list[bytes] = []
        self._device_gone = self._line_gone = False
        self.line = node.board.enter(self, device.name, preface=True)

    def _later_s(self, last_s: float) -> float:
        return max(last_s + STEP_S, self._loop.time() + self.random.random() ** 3 * DELAY_S_MAX)

    # --- up

    def say(self, data: bytes) -> None:
        """The client writes."""
        if not self.is_broken:
            self._up_s = self._later_s(self._up_s)
            self._loop.call_at(self._up_s, self._up, data)

    def _up(self, data: bytes) -> None:
        if self.is_broken or self._line_gone or not self.node.process.is_alive:
            return
        if self._is_reading:
            self.line.receive(data)
        else:
            self._held.append(data)

    def pause_reading(self) -> None:
        self._is_reading = False

    def resume_reading(self) -> None:
        self._is_reading = True
        held, self._held = self._held, []
        for data in held:
            self._loop.call_soon(self._up, data)

    # --- down

    def write(self, chunks: list[bytes]) -> None:
        """The node writes."""
        process = self.node.process
        if process.has(process.odds.cut_before_write):
            self.cut("before it was written")
        if not self.is_broken and process.is_alive:
            self._down_s = self._later_s(self._down_s)
            self._loop.call_at(self._down_s, self._down, b"".join(chunks))

    def _down(self, data: bytes) -> None:
        if self._device_gone:
            return
        if self.is_broken:  # a part of it, perhaps, and then no more
            self._device_gone = True
            data = data[: self.random.randrange(len(data) + 1)] if self.random.random() < 0.5 else b""
        if data:
            self._device.receive(self, data)

    def greeted(self) -> None:
        """chatd.ports.Wire: nobody is turned away here."""

    def pending_bytes(self) -> int:
        return 0

    def slow(self, for_s: float) -> None:
        """The device reads nothing for a while."""
        if self._line_gone or not self.node.process.is_alive:
            return
        self.line.pause_writing()
        self._loop.call_later(for_s, self._quick)

    def _quick(self) -> None:
        if not self._line_gone and self.node.process.is_alive:
            self.line.resume_writing()

    # --- the end

    def close(self, code: Code | None, detail: str) -> None:
        """The node closes."""
        self._loop.call_at(self._later_s(self._down_s), self._lose_device)
        self._loop.call_soon(self._lose_line)

    def hang_up(self) -> None:
        """The client closes: the node hears it behind what was written."""
        self._device_gone = True
        self._loop.call_at(self._later_s(self._up_s), self._lose_line)

    def cut(self, why: str) -> None:
        """Both ends learn of it, in their time; in a rough world the node learns much later."""
        if not self.is_broken:
            self.is_broken = True
            self._world.ledger.note(b"", f"cut {self._device.name}: {why}")
            late_s = self.random.choice((0.1, 1.0 if self._world.shape.is_gentle else 5.0))
            self._loop.call_later(self.random.random() * late_s, self._lose_line)
            self._loop.call_later(0.03 + self.random.random() * 0.2, self._lose_device)

    def _lose_line(self) -> None:
        if not self._line_gone:
            self._line_gone = True
            if self.node.process.is_alive:
                self.line.lost("cut")

    def _lose_device(self) -> None:
        self._device_gone = True
        self._device.lost(self)
