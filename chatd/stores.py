"""Which store stands behind the sent_queue: the one place that chatd and chatctl ask."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from brokerd.ports import SentQueue
from chatd.config import ChatConfig

if TYPE_CHECKING:
    from brokerd.links.sqlite import Seating


def open_store(config: ChatConfig, register: Seating | None = None) -> AbstractAsyncContextManager[SentQueue]:
    """The store of `config.mode`, to be used in `async with`: SQLite in the data folder, or Redis.

    `register` is the embedded node's own; without it, and from another process, appends answer without seats. The
    imports are here because each mode (and chatctl) needs only one of them.
    """
    queue = config.queue
    if config.mode == "embedded":
        from brokerd.links.sqlite import SqliteSentQueue

        config.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        return SqliteSentQueue(
            config.store_file,
            register=register,
            count_max=queue.count_max,
            bytes_max=queue.bytes_max,
            retention_s=queue.retention_s,
        )
    raise NotImplementedError
