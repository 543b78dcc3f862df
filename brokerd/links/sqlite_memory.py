"""What the dedupe in the sent_queue's file remembers of one message."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

from brokerd.links.sqlite_ledger import Ledger
from brokerd.links.sqlite_schema import open_store
from brokerd.links.sqlite_state import Origin
from brokerd.ports import FULL, LinkDown
from brokerd.support_ports import Standing
from protocol.wire import DEVICE_TAG_BYTES


class SqliteMemory:
    """Memory in the file `path`, which others write meanwhile."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def standing(self, user: str, id_: bytes, now_ms: int) -> Standing:
        """See the port. An id does not say whether it was made of a cid or of a key: both are looked for."""
        return await asyncio.to_thread(self._standing, user, id_)

    def _standing(self, user: str, id_: bytes) -> Standing:
        places = [(id_, 0), (id_[:DEVICE_TAG_BYTES], int.from_bytes(id_[DEVICE_TAG_BYTES:], "big"))]
        try:
            with closing(open_store(self._path)) as connection:
                ledger = Ledger(connection)
                ledger.begin(writes=False)
                state = ledger.state(user)
                if state is None:
                    return Standing.NEVER
                for key, cid in places:
                    origin = state.origins.get(key) or ledger.load_origin(state, key)
                    if (found := _of(origin, cid)) is not Standing.NEVER:
                        return found
        except (sqlite3.Error, OSError) as fault:
            raise LinkDown(f"{self._path}: {fault}") from fault
        return Standing.NEVER


def _of(origin: Origin, cid: int) -> Standing:
    if cid > origin.high or any(a <= cid <= b for a, b in zip(origin.gaps[::2], origin.gaps[1::2], strict=True)):
        return Standing.NEVER
    return Standing.REFUSED if origin.earlier(cid) == FULL else Standing.TAKEN
