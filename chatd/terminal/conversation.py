"""What happens between the client and the person: messages become lines, typed texts become requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Final

from chatd.terminal import view
from chatd.terminal.signals import TYPING_EVERY_S, pack_typing, typing_of
from chatd.terminal.state import Chat, Own
from chatd.terminal.view import Line
from protocol.client import Client, ClientState, Incomings, OutgoingFull, Refused
from protocol.messages import Deliver, Gone, ReadSync, Receipt, Send, Sent, Signalled
from protocol.wire import RECEIPT_IDS_MAX

_NEVER_S: Final = float("-inf")


def clock_time(time_ms: int) -> str:
    """The time of day of a server's time, here."""
    return datetime.fromtimestamp(time_ms / 1000).strftime("%H:%M")


class Conversation:
    """`show` prints lines; `now_s` is any monotonic clock. Set `client` before anything else is called."""

    client: Client

    def __init__(self, chat: Chat, show: Callable[[Sequence[Line]], None], now_s: Callable[[], float]) -> None:
        self.chat = chat
        self.refused = 0  # requests of ours that were not taken
        self._show = show
        self._now_s = now_s
        self._told_typing_s = _NEVER_S
        self._typing_to: str | None = None  # whom we told that we type

    # --- what comes

    def take(self, message: Incomings) -> None:
        """One message of the client's loop."""
        chat = self.chat
        match message:
            case Deliver():
                self._show(view.message_lines(clock_time(message.time_ms), message.sender, message.payload))
                self._tell_read(message.sender, chat.hear(message))
            case Sent():
                chat.meet(message.to)
                self._show(view.copy_lines(clock_time(message.time_ms), message.to, message.payload))
            case Receipt():
                moved = chat.hear_receipt(message)
                self._show(view.receipt_lines(message.peer, message.status, message.reason, moved))
            case ReadSync():
                chat.read_elsewhere(message.peer, message.ids)
            case Signalled():
                typing = typing_of(message.payload)
                if typing is not None:
                    chat.hear_typing(message.sender, typing, self._now_s())
            case Gone():
                self._show(view.gone_lines(message.ref, message.last, message.reason))

    def on_state(self, state: ClientState) -> None:
        """The connection changed."""
        before, self.chat.link = self.chat.link, state
        self._show(view.link_lines(before, state))

    def recover(self) -> None:
        """Follow what an earlier run wrote and could not send."""
        for request, future in self.client.recovered:
            if isinstance(request, Send):
                own = self.chat.say(request.to, request.payload.decode(errors="replace"))
                future.add_done_callback(partial(self._answered, own))
        if self.chat.waiting:
            self._show([view.notice(f"{self.chat.waiting} unsent from last time: sending")])

    # --- what the person does

    def say(self, to: str, text: str) -> None:
        """Send a text; its fate is shown."""
        self.turn_to(to)
        self.tell_typing("")
        own = self.chat.say(to, text)
        try:
            future = self.client.post(to, text.encode(errors="replace"), receipt=True, read_receipt=True)
        except (Refused, OutgoingFull) as fault:
            self._fail(own, fault)
        else:
            future.add_done_callback(partial(self._answered, own))

    def turn_to(self, user: str) -> None:
        """Talk to a user: what was unread is read now."""
        self._tell_read(user, self.chat.turn_to(user))

    def tell_typing(self, text: str) -> None:
        """The line that is being typed changed: the peer is told now and then, and when it became empty."""
        peer, now_s = self.chat.peer, self._now_s()
        is_typing = bool(text.strip()) and not text.startswith("/")
        if self._typing_to is not None and (not is_typing or self._typing_to != peer):
            self.client.signal(self._typing_to, pack_typing(False))
            self._typing_to, self._told_typing_s = None, _NEVER_S
        if is_typing and peer is not None and now_s - self._told_typing_s >= TYPING_EVERY_S:
            self.client.signal(peer, pack_typing(True))
            self._typing_to, self._told_typing_s = peer, now_s

    # --- answers

    def _answered(self, own: Own, future: asyncio.Future[bytes]) -> None:
        if future.cancelled():
            return
        fault = future.exception()
        if fault is None:
            self.chat.accept(own, future.result())
        elif isinstance(fault, Refused):
            self._fail(own, fault)  # else the client is closed: the store sends it next time

    def _fail(self, own: Own, fault: Refused | OutgoingFull) -> None:
        self.refused += 1
        self.chat.refuse(own)
        why = view.english(fault.code) if isinstance(fault, Refused) else str(fault)
        self._show(view.refused_lines(own, why))

    def _tell_read(self, user: str, ids: Sequence[bytes]) -> None:
        """Best effort: a READ that cannot be queued now is never said."""
        try:
            for at in range(0, len(ids), RECEIPT_IDS_MAX):
                self.client.post_read(user, ids[at : at + RECEIPT_IDS_MAX]).add_done_callback(_look_at)
        except OutgoingFull:
            self._show([view.notice(f"too much is unsent: {view.shown(user)} is not told what you read")])


def _look_at(future: asyncio.Future[bytes]) -> None:
    if not future.cancelled():
        future.exception()
