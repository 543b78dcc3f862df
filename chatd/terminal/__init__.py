"""`chat`: the terminal client. In the order of reading: commands, state, signals, view (all pure), conversation, app and
pipe (the two shells), account, history.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

from chatd.terminal.account import Account, Unusable, account_of, parser
from chatd.terminal.conversation import Conversation
from chatd.terminal.state import Chat
from chatd.terminal.view import Line, plain
from protocol.client import ClientClosed, StoreBusy

REFUSED_STATUS: Final = 1  # something was not sent
USAGE_STATUS: Final = 2
CLOSED_STATUS: Final = 3  # the server will not have us


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script. Gives 0, or one of the statuses above."""
    options = parser().parse_args(arguments)
    is_person = sys.stdin.isatty() and sys.stdout.isatty()
    try:
        account = account_of(options, os.environ, _ask if is_person else None)
        return asyncio.run(_talk(account, options.to) if is_person else _pipe(account, stay=options.stay))
    except StoreBusy:
        _complain(f"another chat is open as this device of {account.user}: close it, or say --device NAME")
    except (Unusable, OSError) as fault:
        _complain(str(fault))
    except ClientClosed as fault:
        _complain(str(fault))
        return CLOSED_STATUS
    except (KeyboardInterrupt, EOFError):
        return 0
    return USAGE_STATUS


async def _talk(account: Account, to: str | None) -> int:
    from chatd.terminal.app import App, Printer
    from chatd.terminal.history import BoundedHistory

    printer = Printer()
    conversation = _conversation(account, printer.show)
    async with conversation.client:
        if to is not None:
            conversation.turn_to(to)
        await App(conversation, account.server.name, BoundedHistory(account.folder / "history"), printer.show).run()
    return 0


async def _pipe(account: Account, *, stay: bool) -> int:
    from chatd.terminal.pipe import Pipe

    conversation = _conversation(account, _notice)
    async with conversation.client:
        is_sent = await Pipe(conversation, sys.stdin, sys.stdout, _notice).run(stay=stay)
    return 0 if is_sent else REFUSED_STATUS


def _conversation(account: Account, show: Callable[[Sequence[Line]], None]) -> Conversation:
    conversation = Conversation(Chat(account.user), show, time.monotonic)
    conversation.client = account.client(conversation.on_state)
    conversation.recover()
    return conversation


def _ask(question: str) -> str:
    from prompt_toolkit import prompt

    return prompt(question, is_password=True)


def _notice(lines: Sequence[Line]) -> None:
    for line in lines:
        sys.stderr.write(plain(line) + "\n")


def _complain(text: str) -> None:
    sys.stderr.write(f"chat: {text}\n")
