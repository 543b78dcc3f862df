"""The terminal on prompt_toolkit: a line to type in, a toolbar below, everything else scrolls above."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from prompt_toolkit import PromptSession, print_formatted_text
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import History
from prompt_toolkit.patch_stdout import patch_stdout
from prompt_toolkit.styles import Style

from chatd.terminal import view
from chatd.terminal.commands import COMMANDS, Help, Mistake, Nothing, Quit, Say, TurnTo, Who, parse
from chatd.terminal.conversation import Conversation
from chatd.terminal.state import Chat
from chatd.terminal.view import Line

REFRESH_S: Final = 1.0  # of the toolbar: the countdown to the next try, and who stopped typing
_STYLE: Final = Style.from_dict(view.STYLES)


class Printer:
    """Prints above the prompt: one redraw a loop turn, however many lines came in it."""

    def __init__(self) -> None:
        self._lines: list[Line] = []

    def show(self, lines: Sequence[Line]) -> None:
        """Print lines, soon."""
        if lines and not self._lines:
            asyncio.get_running_loop().call_soon(self._print)
        self._lines += lines

    def _print(self) -> None:
        lines, self._lines = self._lines, []
        fragments = [fragment for line in lines for fragment in (*line, ("", "\n"))]
        print_formatted_text(FormattedText(fragments), style=_STYLE, end="")


class Words(Completer):
    """Commands at the start of a line, users behind /to and before a colon."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """See Completer."""
        for word in completions(document.text_before_cursor, self._chat.known):
            yield Completion(word, start_position=-len(document.text_before_cursor))


def completions(text: str, known: Sequence[str]) -> list[str]:
    """Whole lines that `text` may become."""
    if text.startswith("/to "):
        return [f"/to {user}" for user in known if user.startswith(text[4:])]
    if text.startswith("/"):
        return [f"{command} " if command == "/to" else command for command in COMMANDS if command.startswith(text)]
    if text and " " not in text:
        return [f"{user}: " for user in known if user.startswith(text)]
    return []


class App:
    """One run of the terminal. Use in `prompt_toolkit.application.create_app_session` to choose input and output."""

    def __init__(self, conversation: Conversation, server: str, history: History, show: Callable[[Sequence[Line]], None]) -> None:  # fmt: skip
        self._conversation = conversation
        self._chat = conversation.chat
        self._server = server
        self._show = show
        self._now_s = asyncio.get_running_loop().time
        self._session: PromptSession[str] = PromptSession(
            message=lambda: FormattedText(view.prompt(self._chat.peer)),
            bottom_toolbar=lambda: FormattedText(view.toolbar(self._chat, server, self._now_s())),
            history=history, completer=Words(self._chat), complete_while_typing=False, style=_STYLE,
            refresh_interval=REFRESH_S,
        )  # fmt: skip
        self._session.default_buffer.on_text_changed += lambda buffer: conversation.tell_typing(buffer.text)

    async def run(self) -> None:
        """Until /quit, Ctrl-D, or until the server will not have us any more (raises ClientClosed)."""
        self._show([view.notice("/help shows the commands, Ctrl-D leaves")])
        with patch_stdout():
            listening = asyncio.ensure_future(self._listen())
            typing = asyncio.ensure_future(self._type())
            try:
                await asyncio.wait((listening, typing), return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (listening, typing):
                    task.cancel()
                await asyncio.wait((listening, typing))
        for task in (typing, listening):
            if not task.cancelled():
                task.result()

    async def _listen(self) -> None:
        async for message in self._conversation.client:
            self._conversation.take(message)
            self._session.app.invalidate()

    async def _type(self) -> None:
        while True:
            try:
                text = await self._session.prompt_async()
            except KeyboardInterrupt:
                continue  # Ctrl-C throws the line away
            except EOFError:
                return
            if not self._obey(text):
                return

    def _obey(self, text: str) -> bool:
        """Do what was typed. False: leave."""
        match parse(text, self._chat.peer, self._chat.known):
            case Say(to, words):
                self._conversation.say(to, words)
            case TurnTo(user):
                self._conversation.turn_to(user)
            case Who():
                self._show(view.who_lines(self._chat, self._now_s()))
            case Help():
                self._show(view.help_lines())
            case Mistake(why):
                self._show([view.mistake(why)])
            case Quit():
                return False
            case Nothing():
                pass
        return True
