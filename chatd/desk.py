"""What an operator asks a running chatd, and tells it: plain values in, plain values out. control.py carries them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from inspect import isawaitable
from typing import Any, Final

from brokerd.ports import LinkDown
from chatd.care import Care
from chatd.line import Line
from chatd.node import Node
from chatd.overview import ROWS_MAX, counted, look_at
from chatd.switchboard import Switchboard
from protocol.errors import Code

LISTED_MAX: Final = 10_000  # sessions in one answer
KICKED_RETRY_MS: Final = 1000
LEVELS: Final = ("debug", "info", "warning", "error")

Asked = Mapping[str, Any]


class Unanswerable(Exception):
    """It can not be answered or done; the text says why, for people."""


class Desk:
    """One for a node."""

    def __init__(self, node: Node, care: Care, stop: asyncio.Event, log: Any) -> None:
        self._node, self._care, self._stop, self._log = node, care, stop, log
        self._began_s = time.monotonic()
        self._commands: dict[str, Callable[[Asked], Any]] = {
            "status": self._status,
            "who": self._who,
            "sessions": self._sessions,
            "kick": self._kick,
            "drain": self._drain,
            "limits": self._limits,
            "reload": self._reload,
            "loglevel": self._level,
            "top": self._top,
            "register": self._register,
        }

    async def answer(self, asked: Asked) -> Any:
        """The answer to {"command": …, …}. Raises Unanswerable."""
        do = self._commands.get(str(asked.get("command", "")))
        if do is None:
            raise Unanswerable(f"this chatd knows {', '.join(self._commands)}")
        told = do(asked)
        return await told if isawaitable(told) else told

    @property
    def _board(self) -> Switchboard:
        if self._node.board is None:
            raise Unanswerable("chatd is starting: ask again in a moment")
        return self._node.board

    def _status(self, _: Asked) -> dict[str, Any]:
        board, parts = self._board, self._node.health()
        posts = board.postbox.statistics()
        return {
            "node": self._node.id,
            "uptime_s": round(time.monotonic() - self._began_s, 1),
            "ready": all(said == "up" for said in parts.values()),
            "parts": parts,
            "sessions": board.roster.people,
            "users": len(board.roster.users()),
            "connections": self._node.connections(),
            "waiting": posts["waiting"],
            "waiting_bytes": posts["waiting_bytes"],
            "in_flight": posts["in_flight"],
            "counts": asdict(board.counts),
            "reload_refused": self._care.refused,
        }

    def _who(self, _: Asked) -> list[dict[str, Any]]:
        roster = self._board.roster
        return [
            {"user": user, "devices": sorted(line.session.device for line in roster.of(user))}
            for user in sorted(roster.users())[:LISTED_MAX]
        ]

    def _sessions(self, asked: Asked) -> list[dict[str, Any]]:
        board = self._board
        roster, user = board.roster, asked.get("user")
        lines = roster.of(user) if user else (line for user in roster.users() for line in roster.of(user))
        chosen = sorted(lines, key=lambda line: (line.session.user, line.session.device))[:LISTED_MAX]
        return [_session(line, board.now_s()) for line in chosen]

    def _kick(self, asked: Asked) -> dict[str, Any]:
        board, user, device = self._board, str(asked.get("user", "")), asked.get("device")
        lines = [line for line in board.roster.of(user) if device is None or line.session.device == device]
        if not lines:
            raise Unanswerable(f"{user} has no session here" + (f" on {device}" if device is not None else ""))
        for line in lines:
            line.session.fail(Code.GOING_AWAY, "an operator ended this session", retry_after_ms=KICKED_RETRY_MS)
            board.attend(line)
        self._log.warning("kicked", user=user, devices=[line.session.device for line in lines])
        return {"user": user, "devices": sorted(line.session.device for line in lines)}

    def _drain(self, _: Asked) -> dict[str, Any]:
        self._log.warning("drain_asked_for")
        self._stop.set()
        return {"sessions": self._board.roster.people, "seconds_max": self._care.config.drain_s_max}

    def _limits(self, _: Asked) -> dict[str, Any]:
        config = self._care.config
        used = self._node.connections()
        return {"limits": asdict(config.limits), "queue": asdict(config.queue), "used": used}

    def _reload(self, _: Asked) -> dict[str, Any]:
        told = self._care.reload()
        if told is None:
            raise Unanswerable("the configuration stays as it was: " + "; ".join(self._care.refused))
        return {"changed": told.changed, "need_a_restart": told.restart}

    def _level(self, asked: Asked) -> dict[str, Any]:
        level = asked.get("level")
        if level is not None:
            if level not in LEVELS:
                raise Unanswerable(f"the level is one of {', '.join(LEVELS)}")
            self._care.set_level(level)
        return {"level": self._care.config.log.level}

    async def _top(self, asked: Asked) -> dict[str, Any]:
        """What chatctl top shows, and what it makes rates of: counters since the start."""
        rows = asked.get("rows", ROWS_MAX)
        if not isinstance(rows, int) or not 0 <= rows <= ROWS_MAX:
            raise Unanswerable(f"rows is a number from 0 to {ROWS_MAX}")
        board = self._board
        seen = await look_at([line for user in board.roster.users() for line in board.roster.of(user)], rows)
        slowest = [{**_session(it, board.now_s()), "unread": it.session.feed.unread} for it in seen.slowest]
        brake = board.gate.brake
        return {
            **self._status(asked),
            "at_ms": board.now_ms(),
            **counted(self._node.samples, board),
            "unanswered": board.gate.in_flight,
            "paused": seen.paused,
            "brake": {"is_on": brake.is_on, "shards_behind": brake.shards_behind, "held": seen.held},
            "slowest": slowest,
            "queues": [queue._asdict() for queue in seen.queues],
        }

    async def _register(self, asked: Asked) -> list[dict[str, Any]]:
        try:
            rows = await self._board.register.rows(str(asked.get("user", "")))
        except LinkDown as down:
            raise Unanswerable(f"the register can not be reached: {down}") from None
        return [row._asdict() for row in rows]


def _session(line: Line, now_s: float) -> dict[str, Any]:
    session = line.session
    return {
        "user": session.user,
        "device": session.device,
        "session": session.id,
        "peer": line.peer,
        "since_ms": line.login_ms,
        "unacknowledged": session.feed.expected - 1 - session.feed.acked,
        "unaccepted": session.unaccepted,
        "waiting_bytes": 0 if line.is_lost else line.wire.pending_bytes(),
        "paused_s": None if line.paused_s is None else round(now_s - line.paused_s, 1),
    }
