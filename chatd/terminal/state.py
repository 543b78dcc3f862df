"""What the terminal knows: whom we talk to, what is unread, how far our own messages came, who types. Pure."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from chatd.terminal.signals import TYPING_SHOWN_S
from protocol.client import ClientState, Connecting
from protocol.messages import Deliver, Receipt
from protocol.wire import Flag, Status

KNOWN_MAX: Final = 500  # users for completion; the one not heard of for longest is forgotten
OWN_MAX: Final = 500  # own messages whose fate is followed
EARLY_MAX: Final = 100  # receipts that came before our ACCEPTED
UNREAD_IDS_MAX: Final = 1000  # for each user, to be told READ later; older ones never are
TYPING_MAX: Final = 20


class Tick(IntEnum):
    """How far an own message came. It only ever goes on."""

    WAITING = 0
    ACCEPTED = 1
    DELIVERED = 2
    READ = 3
    FAILED = 4


@dataclass(eq=False)
class Own:
    """A message of ours."""

    to: str
    text: str
    tick: Tick = Tick.WAITING


@dataclass
class Unread:
    """What somebody sent while we looked elsewhere. `ids` are those who want to be told READ."""

    count: int = 0
    ids: list[bytes] = field(default_factory=list)


_TICK_OF: Final = {
    Status.DELIVERED: Tick.DELIVERED, Status.READ: Tick.READ, Status.EXPIRED: Tick.FAILED, Status.FAILED: Tick.FAILED,
}  # fmt: skip


class Chat:
    """Every method is one thing that happened; times are seconds of any one clock."""

    def __init__(self, me: str) -> None:
        self.me = me
        self.peer: str | None = None
        self.link: ClientState = Connecting()
        self.unread: dict[str, Unread] = {}
        self.last: Own | None = None  # the newest own message
        self.waiting = 0  # own messages without ACCEPTED
        self._known: OrderedDict[str, None] = OrderedDict()
        self._own: OrderedDict[bytes, Own] = OrderedDict()
        self._early: OrderedDict[bytes, Tick] = OrderedDict()
        self._typing: OrderedDict[str, float] = OrderedDict()  # until when

    # --- people

    @property
    def known(self) -> list[str]:
        """Users we had to do with, the latest first."""
        return list(reversed(self._known))

    def meet(self, user: str) -> None:
        """We had to do with somebody."""
        self._known[user] = None
        self._known.move_to_end(user)
        _bound(self._known, KNOWN_MAX)

    def turn_to(self, user: str) -> list[bytes]:
        """Talk to `user`. Gives the ids of what was unread and is now read."""
        self.meet(user)
        self.peer = user
        unread = self.unread.pop(user, None)
        return unread.ids if unread is not None else []

    # --- what we say

    def say(self, to: str, text: str) -> Own:
        """A message of ours is on its way."""
        self.meet(to)
        self.last = Own(to, text)
        self.waiting += 1
        return self.last

    def accept(self, own: Own, id_: bytes) -> None:
        """The server has it."""
        self.waiting -= 1
        own.tick = max(Tick.ACCEPTED, self._early.pop(id_, Tick.ACCEPTED))
        self._own[id_] = own
        _bound(self._own, OWN_MAX)

    def refuse(self, own: Own) -> None:
        """The server will not have it."""
        self.waiting -= 1
        own.tick = Tick.FAILED

    def hear_receipt(self, receipt: Receipt) -> list[Own]:
        """What became of ours. Gives those that came further by it."""
        tick = _TICK_OF.get(receipt.status)  # type: ignore[call-overload]
        moved: list[Own] = []
        if tick is None:
            return moved
        for id_ in receipt.ids:
            own = self._own.get(id_)
            if own is None:
                self._early[id_] = tick
                _bound(self._early, EARLY_MAX)
            elif own.tick < tick:
                own.tick = tick
                moved.append(own)
        return moved

    # --- what we hear

    def hear(self, message: Deliver) -> list[bytes]:
        """Somebody sent something. Gives its id when it is to be told READ at once."""
        self.meet(message.sender)
        self._typing.pop(message.sender, None)
        wants = bool(message.flags & Flag.READ_RECEIPT)
        if message.sender == self.peer:
            return [message.id] if wants else []
        unread = self.unread.setdefault(message.sender, Unread())
        unread.count += 1
        if wants:
            unread.ids = [*unread.ids, message.id][-UNREAD_IDS_MAX:]
        return []

    def read_elsewhere(self, peer: str, ids: tuple[bytes, ...]) -> None:
        """Another device of ours has read it."""
        unread = self.unread.get(peer)
        if unread is not None:
            left = [id_ for id_ in unread.ids if id_ not in ids]
            unread.count -= len(unread.ids) - len(left)
            unread.ids = left
            if unread.count <= 0:
                del self.unread[peer]

    def hear_typing(self, user: str, is_typing: bool, now_s: float) -> None:
        """Somebody types, or stopped."""
        self._typing.pop(user, None)
        if is_typing:
            self._typing[user] = now_s + TYPING_SHOWN_S
            _bound(self._typing, TYPING_MAX)

    def typing(self, now_s: float) -> list[str]:
        """Who types now."""
        return [user for user, until_s in self._typing.items() if until_s > now_s]

    @property
    def unread_count(self) -> int:
        """Of everybody but the peer."""
        return sum(unread.count for unread in self.unread.values())


def _bound(entries: OrderedDict[bytes, Own] | OrderedDict[bytes, Tick] | OrderedDict[str, None] | OrderedDict[str, float], count_max: int) -> None:  # fmt: skip
    while len(entries) > count_max:
        entries.popitem(last=False)
