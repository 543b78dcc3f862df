"""chatctl queue: what waits for a user, since when, and for which of the devices."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any, Final

from brokerd.ports import Page, QueueStatus, SentQueue
from chatd.config import ChatConfig
from chatd.ctl import Refused, say
from chatd.ctl.entries import Known, known, trouble
from chatd.ctl.times import span, times, utc
from chatd.stores import open_store
from protocol.names import is_name

PAGE_ENTRIES: Final = 500
PAGE_BYTES: Final = 1024 * 1024


def show_queue(config: ChatConfig, options: argparse.Namespace) -> None:
    """chatctl queue"""
    found = asyncio.run(_look(config, options.name, options.entries)) if is_name(options.name) else None
    if found is None:
        raise Refused(f"there is no user {options.name!r}")
    status, entries = found
    now_ms = time.time_ns() // 1_000_000
    if options.json:
        devices = {name: _device(status, name) for name in sorted(status.cursors)}
        say(json.dumps({"user": options.name, **status._asdict(), "devices": devices, "waiting": entries}))
        return
    for line in _lines(options.name, status, entries, now_ms):
        say(line)


async def _look(config: ChatConfig, user: str, count_max: int) -> tuple[QueueStatus, list[dict[str, Any]]] | None:
    async with open_store(config) as store:
        status = await store.status(user)
        if status is None:
            return None
        return status, await _entries(store, user, status, count_max)


async def _entries(store: SentQueue, user: str, status: QueueStatus, count_max: int) -> list[dict[str, Any]]:
    """The oldest ones. The queue may move meanwhile: what was trimmed is not there any more."""
    entries: list[dict[str, Any]] = []
    after = status.floor
    while len(entries) < count_max:
        page: Page = await store.read(user, after, min(PAGE_ENTRIES, count_max - len(entries)), PAGE_BYTES)
        if not page.entries:
            break
        for seq, entry in enumerate(page.entries, page.first):
            told = known(entry.type, entry.body)
            entries.append({"seq": seq, **told._asdict(), "expires_ms": entry.expires_ms})
        after = page.first + len(page.entries) - 1
    return entries


def _device(status: QueueStatus, name: str) -> dict[str, Any]:
    cursor = status.cursors[name]
    what: dict[str, Any] = {"cursor": cursor, "to_come": max(status.head - cursor, 0)}
    if name in status.troubles:
        what["trouble"] = trouble(status.troubles[name])._asdict()
    return what


def _lines(user: str, status: QueueStatus, entries: list[dict[str, Any]], now_ms: int) -> Iterator[str]:
    kept = status.head - status.floor
    if kept:
        yield f"{user}: {kept} kept (seq {status.floor + 1} to {status.head}), {status.bytes} bytes"
    else:
        yield f"{user}: nothing waits (the newest seq is {status.head})"
    if not status.cursors:
        yield "  no device has ever logged in"
    for device, cursor in sorted(status.cursors.items()):
        line = f"  {device}: acknowledged up to {cursor}, {max(status.head - cursor, 0)} to come"
        if device in status.troubles:
            reason, at_ms, attempts = trouble(status.troubles[device])
            line += f"; stopped {times(attempts)}, last with {reason} at {utc(at_ms)}"
        yield line
    for entry in entries:
        yield "  " + _entry_line(entry, now_ms)
    if entries and kept > len(entries):
        yield f"  and {kept - len(entries)} more (--entries {kept})"


def _entry_line(entry: dict[str, Any], now_ms: int) -> str:
    told = Known(*(entry[name] for name in Known._fields))
    parts = [f"seq {entry['seq']}  {told.type}"]
    if told.type != "gone":
        parts.append(f"{told.bytes} bytes")
    if told.peer:
        parts.append(("to " if told.type in ("SENT", "READ_SYNC") else "from ") + told.peer)
    if told.since_ms:
        parts.append(f"since {utc(told.since_ms)} ({span(now_ms - told.since_ms)})")
    if entry["expires_ms"]:
        late = entry["expires_ms"] <= now_ms
        parts.append("expired" if late else f"expires in {span(entry['expires_ms'] - now_ms)}")
    if told.says:
        parts.append(told.says)
    if told.id:
        parts.append(told.id)
    return "  ".join(parts)
