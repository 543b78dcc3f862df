"""chatctl queue: what waits for a user, and for which of the devices."""

from __future__ import annotations

import argparse
import asyncio
import json

from brokerd.ports import QueueStatus
from chatd.config import ChatConfig
from chatd.ctl import Refused, say
from chatd.stores import open_store
from protocol.names import is_name


def show_queue(config: ChatConfig, options: argparse.Namespace) -> None:
    """chatctl queue"""
    status = asyncio.run(_status(config, options.name)) if is_name(options.name) else None
    if status is None:
        raise Refused(f"there is no user {options.name!r}")
    if options.json:
        say(json.dumps({"user": options.name, **status._asdict()}))
        return
    say(
        f"{options.name}: {status.head - status.floor} kept (seq {status.floor + 1} to {status.head}), {status.bytes} bytes"
    )
    for device, cursor in sorted(status.cursors.items()):
        trouble = f", last trouble: {status.troubles[device]}" if device in status.troubles else ""
        say(f"  {device}: acknowledged up to {cursor}, {status.head - cursor} to come{trouble}")


async def _status(config: ChatConfig, user: str) -> QueueStatus | None:
    async with open_store(config) as store:
        return await store.status(user)
