"""Watches for confirms that do not come. Two things look alike from outside and are not.

Nothing at all is confirmed: this host has no quorum, or hangs. Or the oldest post alone waits while later ones are
confirmed: RabbitMQ sent it to a leader that had just died, and by itself would try again after 10 s only. A new channel asks
anew who the leader is, and everything open is published again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from brokerd.links.amqp_window import OpenPost, Window

CONFIRM_S_MAX: Final = 10.0  # without any confirm. An election takes less
OVERTAKEN_S_MAX: Final = 2.0  # doubled each time that a new channel did not help
LOOKS: Final = 10  # in CONFIRM_S_MAX


class ConfirmWatch:
    """`on_overtaken` when the oldest post should be published again, `on_silent` when nothing is confirmed."""

    def __init__(
        self, window: Window, confirm_s_max: float, on_overtaken: Callable[[], None], on_silent: Callable[[], None],
        *, overtaken_s_max: float = OVERTAKEN_S_MAX,
    ) -> None:  # fmt: skip
        self._window, self._confirm_s_max = window, confirm_s_max
        self._on_overtaken, self._on_silent = on_overtaken, on_silent
        self._overtaken_s_first = self._overtaken_s_max = overtaken_s_max
        self._timer: asyncio.TimerHandle | None = None
        self._oldest: OpenPost | None = None
        self._oldest_since_s = 0.0
        self.heard_s = 0.0  # of the newest confirm, or since when one may come

    def begin(self) -> None:
        """There is something open from now on. May be called again and again."""
        if self._timer is None:
            self.restart()

    def restart(self) -> None:
        """A new channel: what is open has just been published."""
        self.stop()
        self.heard_s = self._oldest_since_s = asyncio.get_running_loop().time()
        self._set_timer()

    def stop(self) -> None:
        """Until `begin` or `restart`."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._confirm_s_max / LOOKS, self._look)

    def _look(self) -> None:
        self._timer = None
        oldest = self._window.oldest
        if oldest is None:
            return
        now_s = asyncio.get_running_loop().time()
        if oldest is not self._oldest:
            self._oldest, self._oldest_since_s = oldest, now_s
            self._overtaken_s_max = self._overtaken_s_first
        self._set_timer()
        if now_s - self.heard_s >= self._confirm_s_max:
            self._on_silent()
        elif self._window.is_overtaken and now_s - self._oldest_since_s >= self._overtaken_s_max:
            self._overtaken_s_max *= 2
            self._on_overtaken()
