"""The Lua scripts of this folder's `lua/`: loaded, given their numbers, and called by name.

Every script that changes something can be repeated without harm, for a call whose answer was lost is repeated.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from hiredis import ReplyError

from brokerd.links.gaps import GAPS_MAX
from brokerd.links.resp import RespLink
from brokerd.links.resp_stream import Command
from brokerd.ports import EXPIRING, FULL, NO_USER, REPEAT, LinkDown
from protocol.wire import Flag, Type

_FOLDER: Final = Path(__file__).with_name("lua")
_NUMBERS: Final = (
    f"local DELIVER, SENT, RECEIPT, READ_SYNC = {Type.DELIVER:d}, {Type.SENT:d}, {Type.RECEIPT:d}, {Type.READ_SYNC:d}\n"
    f"local FLAG_RECEIPT, REPEAT, FULL, NO_USER = {Flag.RECEIPT:d}, {REPEAT}, {FULL}, {NO_USER}\n"
    f"local GAPS_MAX, EXPIRING = {GAPS_MAX}, {EXPIRING}\n"
)
# Redis at its maxmemory refuses what may grow it. These scripts may: each adds a few bytes at most, and without them nobody
# could log in, fetch what waits and acknowledge it, so that memory would never be freed.
ALLOW_OOM: Final = "#!lua flags=allow-oom\n"
# The user's own data are not as they should be, and no waiting will mend that. Everything else may pass (no memory, no
# disk, too few replicas, a script that runs for too long …).
_BROKEN_DATA: Final = ("WRONGTYPE", "ERR")


class Script:
    """One script, as a maker of EVALSHA commands."""

    __slots__ = ("_head",)

    def __init__(self, link: RespLink, name: str, keys: int, *, frees: bool = False) -> None:
        """`frees`: it may run when Redis is full."""
        text = (
            (ALLOW_OOM if frees else "")
            + _NUMBERS
            + (_FOLDER / "entry.lua").read_text()
            + (_FOLDER / f"{name}.lua").read_text()
        )
        self._head: Command = ("EVALSHA", link.learn(text), keys)

    def __call__(self, *keys_and_args: str | bytes | int) -> Command:
        """The command. Keys first, as many as the script was made with."""
        return self._head + keys_and_args


def is_broken(reply: Any) -> bool:
    """Whether the command failed because of the data it met. Raises LinkDown for an error that may pass."""
    if not isinstance(reply, ReplyError):
        return False
    if str(reply).startswith(_BROKEN_DATA):
        return True
    raise LinkDown(f"redis: {reply}")


async def ask(link: RespLink, command: Command, *, is_save: bool = False) -> Any:
    """The reply to one command. Raises LinkDown, also for what is_broken: then this user cannot be served."""
    [reply] = await link.pipeline((command,), is_save=is_save)
    if is_broken(reply):
        raise LinkDown(f"redis: {reply}")
    return reply
