"""chatctl status, who, sessions, kick, drain, limits, reload, loglevel: asked of a running chatd over its local socket."""

from __future__ import annotations

import argparse
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from chatd.config import ChatConfig
from chatd.control import address_of
from chatd.ctl import Refused, say
from chatd.ctl.times import span, utc

ANSWER_S_MAX: Final = 10.0
READ_BYTES: Final = 64 * 1024


class NobodyThere(Refused):
    """No chatd runs there."""


def ask(path: Path, command: str, **words: Any) -> Any:
    """The answer of the chatd whose socket this is. Raises Refused; NobodyThere when there is none."""
    try:
        with address_of(path) as address, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(ANSWER_S_MAX)
            sock.connect(address)
            sock.sendall(json.dumps({"command": command, **words}).encode() + b"\n")
            line = b"".join(iter(lambda: sock.recv(READ_BYTES), b""))
    except (FileNotFoundError, ConnectionRefusedError):
        raise NobodyThere(f"no chatd runs here: nobody answers at {path}{_others(path)}") from None
    except PermissionError:
        raise Refused(f"you may not talk to chatd: {path} belongs to its user (sudo, or be that user)") from None
    except TimeoutError:
        raise Refused(f"chatd at {path} did not answer in {ANSWER_S_MAX:g} s: its event loop is stuck") from None
    except ConnectionError:
        raise Refused("chatd closed the socket: it stops, or too many ask at once") from None
    try:
        told = json.loads(line)
    except ValueError:
        raise Refused(f"chatd at {path} gave no whole answer: it stops, or too many ask at once") from None
    if not told["ok"]:
        raise Refused(told["error"])
    return told["answer"]


def _others(path: Path) -> str:
    found = sorted(str(it) for it in path.parent.glob("*.sock") if it != path) if path.parent.is_dir() else []
    return f"; --socket could name {' or '.join(found)}" if found else " (the node and data_dir of its configuration)"


def asked(config: ChatConfig, options: argparse.Namespace, command: str, **words: Any) -> Any:
    """The answer of the chatd that is meant: --socket, or the one of this configuration. Raises Refused."""
    return ask(Path(options.socket) if options.socket else config.control_path, command, **words)


def _show(options: argparse.Namespace, told: Any, lines: Iterator[str]) -> None:
    if options.json:
        say(json.dumps(told))
        return
    for line in lines:
        say(line)


def show_status(config: ChatConfig, options: argparse.Namespace) -> None:
    """chatctl status"""
    told = asked(config, options, "status")

    def lines() -> Iterator[str]:
        amiss = [f"{part}: {said}" for part, said in told["parts"].items() if said != "up"]
        yield f"{told['node']}: {'ready' if told['ready'] else 'not ready'}, up for {span(int(told['uptime_s'] * 1000))}"
        yield from (f"  {fault}" for fault in amiss)
        yield f"  {told['sessions']} sessions of {told['users']} users, {told['connections']['open']} connections"
        yield f"  {told['waiting']} posts wait ({told['waiting_bytes']} bytes), {told['in_flight']} batches are on their way"
        yield f"  since the start: {told['counts']['accepted']} accepted, {told['counts']['delivered']} delivered"
        yield from (f"  the last reload was refused: {why}" for why in told["reload_refused"])

    _show(options, told, lines())


def show_who(config: ChatConfig, options: argparse.Namespace) -> None:
    """chatctl who"""
    told = asked(config, options, "who")
    _show(options, told, (f"{each['user']}: {', '.join(each['devices'])}" for each in told))


def show_sessions(config: ChatConfig, options: argparse.Namespace) -> None:
    """chatctl sessions"""
    told = asked(config, options, "sessions", user=options.name)
    _show(options, told, map(_session_line, told))


def _session_line(each: dict[str, Any]) -> str:
    ago = span(time.time_ns() // 1_000_000 - each["since_ms"])
    parts = [f"{each['user']} {each['device']}  {each['peer']}  since {utc(each['since_ms'])} ({ago})"]
    if each["unacknowledged"]:
        parts.append(f"{each['unacknowledged']} not acknowledged")
    if each["waiting_bytes"]:
        parts.append(f"{each['waiting_bytes']} bytes wait for it")
    if each["paused_s"] is not None:
        parts.append(f"reads too slowly for {each['paused_s']:g} s")
    return "  ".join(parts)


def kick_user(config: ChatConfig, options: argparse.Namespace) -> None:
    """chatctl kick"""
    told = asked(config, options, "kick", user=options.name, device=options.device)
    _show(options, told, iter([f"ended: {told['user']} on {', '.join(told['devices'])}; a client may come back"]))


def drain_node(config: ChatConfig, options: argparse.Namespace) -> None:
    """chatctl drain"""
    told = asked(config, options, "drain")
    _show(
        options, told, iter([f"it drains {told['sessions']} sessions in {told['seconds_max']:g} s at most, and ends"])
    )


def show_limits(config: ChatConfig, options: argparse.Namespace) -> None:
    """chatctl limits"""
    told = asked(config, options, "limits")

    def lines() -> Iterator[str]:
        used = {"connections_max": told["used"]["open"], "strangers_max": told["used"]["strangers"]}
        for section in ("limits", "queue"):
            for key, value in told[section].items():
                yield f"{section}.{key} = {value}" + (f"   # {used[key]} now" if key in used else "")

    _show(options, told, lines())


def reload_node(config: ChatConfig, options: argparse.Namespace) -> None:
    """chatctl reload"""
    told = asked(config, options, "reload")

    def lines() -> Iterator[str]:
        yield "changed: " + (", ".join(told["changed"]) or "nothing")
        if told["need_a_restart"]:
            yield "takes a restart: " + ", ".join(told["need_a_restart"])

    _show(options, told, lines())


def set_log_level(config: ChatConfig, options: argparse.Namespace) -> None:
    """chatctl loglevel"""
    told = asked(config, options, "loglevel", level=options.level)
    _show(options, told, iter([told["level"]]))
