"""chatctl register: where each device of a user is, as the register says, and how far it read, as the queue says."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from brokerd.ports import QueueStatus, Row, Seat
from chatd.config import ChatConfig
from chatd.ctl import Refused, say
from chatd.ctl.live import NobodyThere, asked
from chatd.ctl.times import span, utc
from chatd.line import login_ms_of
from chatd.stores import open_register, open_store
from protocol.names import is_name


def show_register(config: ChatConfig, options: argparse.Namespace) -> None:
    """chatctl register"""
    found = asyncio.run(_look(config, options.name)) if is_name(options.name) else None
    if found is None:
        raise Refused(f"there is no user {options.name!r}")
    status, rows = found
    why = ""
    if rows is None:
        rows, why = _of_running(config, options)
    told = as_json(options.name, status, rows)
    if options.json:
        say(json.dumps(told))
        return
    for line in lines(told, why, time.time_ns() // 1_000_000):
        say(line)


async def _look(config: ChatConfig, user: str) -> tuple[QueueStatus, list[Row] | None] | None:
    """The rows are None when the register is not in the store."""
    async with open_store(config) as store:
        status = await store.status(user)
    if status is None:
        return None
    opening = open_register(config)
    if opening is None:
        return status, None
    async with opening as register:
        return status, await register.rows(user)


def _of_running(config: ChatConfig, options: argparse.Namespace) -> tuple[list[Row], str]:
    """Of the embedded chatd, and why there are none."""
    try:
        return [Row(**row) for row in asked(config, options, "register", user=options.name)], ""
    except NobodyThere as nobody:
        return [], f"nobody is logged in: {nobody}"


def as_json(user: str, status: QueueStatus, rows: Sequence[Row]) -> dict[str, Any]:
    """What is told, for scripts. A device is known to the queue, or it is in the register, or both."""
    by_device = {row.device: row for row in rows}
    return {
        "user": user,
        "head": status.head,
        "floor": status.floor,
        "generation": status.generation,
        "devices": {
            name: {"queue": _place(status, name), "register": _seat(by_device.get(name))}
            for name in sorted({*status.cursors, *by_device})
        },
    }


def _place(status: QueueStatus, device: str) -> dict[str, Any] | None:
    cursor = status.cursors.get(device)
    if cursor is None:
        return None
    return {
        "cursor": cursor,
        "to_come": max(status.head - cursor, 0),
        "seen_ms": status.seen_ms.get(device, 0),
    }


def _seat(row: Row | None) -> dict[str, Any] | None:
    if row is None:
        return None
    login_ms = login_ms_of(Seat(row.device, row.node, row.session))
    return {
        "node": row.node,
        "session": row.session.partition(".")[0],
        "login_ms": login_ms if login_ms < sys.maxsize else None,
        "lease_ms": row.lease_ms,
        "is_live": row.lease_ms > 0,
    }


def lines(told: dict[str, Any], why: str, now_ms: int) -> Iterator[str]:
    """The same for people; `why` nobody can be logged in."""
    devices = told["devices"]
    here = sum(1 for it in devices.values() if it["register"] is not None and it["register"]["is_live"])
    yield f"{told['user']}: {len(devices)} {'device' if len(devices) == 1 else 'devices'}, {here} logged in"
    kept = told["head"] - told["floor"]
    what = f"{kept} kept" if kept else "nothing is kept"
    yield f"  queue: {what} (head {told['head']}, floor {told['floor']}), generation {told['generation']}"
    if why:
        yield f"  {why}"
    for name, device in devices.items():
        yield f"  {name}: {_seat_words(device, now_ms)}"
        place = device["queue"]
        if place is None:
            yield "    the queue does not know this device: it was away for too long, or the queue was made anew"
        else:
            yield f"    acknowledged up to {place['cursor']}, {place['to_come']} to come"


def _seat_words(device: dict[str, Any], now_ms: int) -> str:
    seat, place = device["register"], device["queue"]
    if seat is None:
        seen_ms = place["seen_ms"]
        return f"not logged in; last seen about {utc(seen_ms)} ({span(now_ms - seen_ms)} ago)"
    if not seat["node"]:
        return "an entry that can not be read: messages wait, and its next login puts it right"
    where = f"on {seat['node']}, session {seat['session']}"
    since = "" if seat["login_ms"] is None else f", since {utc(seat['login_ms'])} ({span(now_ms - seat['login_ms'])})"
    if not seat["is_live"]:
        return f"not logged in: it was {where}{since}, whose lease is over: that chatd ended, or can not reach the register"
    return f"logged in {where}{since}; the node's lease lives for {span(seat['lease_ms'])} more, unless it is renewed"
