"""A feed on an open connection: what it asks for and what it writes."""

from __future__ import annotations

from chatd.effects import Effect
from chatd.feed import Feed
from protocol.messages import Message
from tests.core.peers import messages_of, open_connection


class Rig:
    """A feed, its effects and what it wrote."""

    def __init__(self, acked: int = 0, head: int = 0, credit: int = 100) -> None:
        self.effects: list[Effect] = []
        self.conn = open_connection()
        self.feed = Feed(self.conn, self.effects)
        self.feed.open(acked, head, credit)

    def reads(self) -> list[Effect]:
        """The reads asked for since the last call."""
        out, self.effects[:] = self.effects[:], []
        return out

    def written(self) -> list[Message]:
        """What the peer got since the last call."""
        return messages_of(self.conn.bytes_to_send())
