"""chat without a terminal: lines `NAME: TEXT` in, lines `NAME: TEXT` out, notices on standard error."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Final, TextIO

from chatd.terminal import view
from chatd.terminal.commands import Mistake, Nothing, Say, parse
from chatd.terminal.conversation import Conversation
from chatd.terminal.view import Line
from protocol.messages import Deliver

LINES_MAX: Final = 64  # read ahead of what the server took


def pipe_line(sender: str, payload: bytes) -> str:
    """One message on one line; what would break the line, or obey a terminal, is escaped."""
    return f"{view.shown(sender)}: {view.shown(payload.decode(errors='replace'))}"


class Pipe:
    """`show` of its conversation is `notices`, which a script may ignore."""

    def __init__(self, conversation: Conversation, source: TextIO, out: TextIO, notices: Callable[[Sequence[Line]], None]) -> None:  # fmt: skip
        self._conversation = conversation
        self._client = conversation.client
        self._source = source
        self._out = out
        self._notices = notices
        self._mistakes = 0

    async def run(self, *, stay: bool) -> bool:
        """Send all lines, print all that waits. Whether every line was sent. Raises ClientClosed."""
        printing = asyncio.ensure_future(self._print())
        sending = asyncio.ensure_future(self._send())
        try:
            await asyncio.wait((printing, sending), return_when=asyncio.FIRST_COMPLETED)
            if printing.done():
                printing.result()
            sending.result()
            if stay:
                await printing
            await self._client.wait_answered()
            await self._client.wait_drained()
            await self._client.wait_taken()
        finally:
            for task in (printing, sending):
                task.cancel()
            await asyncio.wait((printing, sending))
        return not self._mistakes and not self._conversation.refused

    async def _print(self) -> None:
        async for message in self._client:
            if isinstance(message, Deliver):
                self._out.write(pipe_line(message.sender, message.payload) + "\n")
                self._out.flush()
            else:
                self._conversation.take(message)

    async def _send(self) -> None:
        lines: asyncio.Queue[str | None] = asyncio.Queue(LINES_MAX)
        loop = asyncio.get_running_loop()
        threading.Thread(target=_read, args=(self._source, lines, loop), daemon=True).start()
        while (line := await lines.get()) is not None:
            await self._client.wait_room()
            match parse(line, None, ()):
                case Say(to, text):
                    self._conversation.say(to, text)
                case Nothing():
                    pass
                case Mistake(why):
                    self._complain(why)
                case _:
                    self._complain("each line is NAME: TEXT")

    def _complain(self, why: str) -> None:
        self._mistakes += 1
        self._notices([view.mistake(why)])


def _read(source: TextIO, lines: asyncio.Queue[str | None], loop: asyncio.AbstractEventLoop) -> None:
    """In a thread of its own, because a file, a pipe and /dev/null must all do. Ends with the process or the loop."""
    try:
        for line in source:
            asyncio.run_coroutine_threadsafe(lines.put(line.rstrip("\n")), loop).result()
        asyncio.run_coroutine_threadsafe(lines.put(None), loop).result()
    except (RuntimeError, asyncio.CancelledError):
        return  # the loop is closed: nobody wants more
