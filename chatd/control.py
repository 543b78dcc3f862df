"""The local socket of a running chatd, for chatctl: one JSON line in, one JSON line out, then it closes.

Who may open the file (mode 0600: chatd's user, and root) may ask anything; nothing else is proved. Without the socket chatd
serves all the same: a folder that cannot be written is told in the log.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from chatd.desk import Desk, Unanswerable

ASKED_BYTES_MAX: Final = 64 * 1024
ASKERS_MAX: Final = 16
ASK_S_MAX: Final = 5.0
MODE: Final = 0o600


class SocketTaken(Exception):
    """Another process answers there."""


@contextmanager
def address_of(path: Path) -> Iterator[str]:
    """A name for bind and connect: sun_path holds 107 bytes, a folder that is open has a short name of any length."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _bound(path: Path) -> tuple[socket.socket, int]:
    """The socket, and which file it is."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        os.fchmod(sock.fileno(), MODE)  # the file is made with it: there is no moment in which others may connect
        with address_of(path) as address:
            _remove_stale(path, address)
            sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock, path.stat().st_ino


def _remove(path: Path, inode: int) -> None:
    """Unless another chatd has its own there by now."""
    with suppress(FileNotFoundError):
        if path.stat().st_ino == inode:
            path.unlink()


def _remove_stale(path: Path, address: str) -> None:
    """What a killed chatd left behind; a living one keeps it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, suppress(FileNotFoundError):
        try:
            probe.connect(address)
        except ConnectionRefusedError:
            path.unlink()
        else:
            raise SocketTaken(f"another chatd answers at {path}")


@asynccontextmanager
async def control_socket(path: Path, desk: Desk, log: Any) -> AsyncIterator[None]:
    """Answer while it is open."""
    try:
        sock, inode = _bound(path)
    except (OSError, SocketTaken) as fault:
        log.warning("no_control_socket", path=str(path), why=str(fault))
        yield
        return
    asking: set[asyncio.Task[None]] = set()
    async with asyncio.TaskGroup() as tasks:

        def arrived(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if len(asking) >= ASKERS_MAX:
                writer.transport.abort()
                return
            task = tasks.create_task(_serve(reader, writer, desk, log))
            asking.add(task)
            task.add_done_callback(asking.discard)

        async with await asyncio.start_unix_server(arrived, sock=sock, limit=ASKED_BYTES_MAX) as server:
            try:
                yield
            finally:
                server.close()
                _remove(path, inode)
                for task in asking:
                    task.cancel()


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, desk: Desk, log: Any) -> None:
    try:
        async with asyncio.timeout(ASK_S_MAX):
            told = await _told(await reader.readline(), desk, log)
            writer.write(json.dumps(told).encode() + b"\n")
            await writer.drain()
    except (OSError, ValueError, TimeoutError):  # ValueError: a line that is longer than may be
        writer.transport.abort()
    finally:
        writer.close()


async def _told(line: bytes, desk: Desk, log: Any) -> dict[str, Any]:
    try:
        asked = json.loads(line)
        if not isinstance(asked, dict):
            raise Unanswerable("a JSON object is expected")
        return {"ok": True, "answer": await desk.answer(asked)}
    except Unanswerable as why:
        return {"ok": False, "error": str(why)}
    except ValueError:
        return {"ok": False, "error": "a line of JSON is expected"}
    except Exception:  # a question must not end the sessions of all
        log.exception("control_failed")
        return {"ok": False, "error": "chatd could not answer; its log says why"}
