"""The terminal from its keys to its lines, against a small server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.input.base import PipeInput
from prompt_toolkit.output import DummyOutput

from chatd.terminal import view
from chatd.terminal.app import App
from chatd.terminal.conversation import Conversation
from chatd.terminal.signals import pack_typing
from chatd.terminal.state import Chat
from chatd.terminal.view import Line
from protocol.client import Backoff, Client, ClientClosed, Connected
from protocol.client_bell import Bell
from protocol.errors import Code
from protocol.messages import Ack, Deliver, Read, Send, Signal
from protocol.wire import Flag
from tests.client.small_server import HOST, SmallServer


class Terminal:
    """An App whose lines are kept, with keys to press."""

    def __init__(self, keys: PipeInput) -> None:
        self.keys = keys
        self.lines: list[str] = []
        self.chat = Chat("ann")
        self._bell = Bell()
        self.running: asyncio.Future[None]
        self.client: Client
        self.buffer: Buffer

    def show(self, lines: Sequence[Line]) -> None:
        self.lines += map(view.plain, lines)
        self._bell.ring()

    def type(self, text: str) -> None:
        self.keys.send_text(text)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await self._bell.wait()

    async def until_shown(self, text: str) -> str:
        await self.until(lambda: any(text in line for line in self.lines))
        return next(line for line in self.lines if text in line)


@asynccontextmanager
async def terminal(server: SmallServer, user: str = "ann") -> AsyncIterator[Terminal]:
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        term = Terminal(keys)
        conversation = Conversation(term.chat, term.show, asyncio.get_running_loop().time)
        conversation.client = term.client = Client(
            HOST, server.tcp_port, user, "term", password="secret", on_state=conversation.on_state,
            backoff=Backoff(lambda low, high: 0.0),
        )  # fmt: skip
        async with term.client:
            app = App(conversation, "here", InMemoryHistory(), term.show)
            term.buffer = app._session.default_buffer
            term.buffer.on_text_changed += lambda _: term._bell.ring()
            term.running = asyncio.ensure_future(app.run())
            await term.until_shown("online")
            try:
                yield term
            finally:
                term.running.cancel()
                await asyncio.wait([term.running])


async def test_what_is_typed_is_sent_and_its_way_is_shown(server: SmallServer) -> None:
    async with terminal(server) as term, Client(HOST, server.tcp_port, "bob", "phone", password="secret") as bob:
        term.type("bob: hello\r")
        message = await anext(bob)
        assert isinstance(message, Deliver)
        assert message.payload == b"hello"
        assert message.flags == Flag.RECEIPT | Flag.READ_RECEIPT
        bob.ack(message)
        assert await term.until_shown("✓✓") == "  ✓✓ bob has “hello”"
        await bob.read("ann", [message.id])
        assert await term.until_shown("read") == "  ✓✓ bob has read “hello”"
        assert "✓✓ read" in view.plain(view.toolbar(term.chat, "here", 0.0))


async def test_after_the_first_message_the_name_need_not_be_typed_again(server: SmallServer) -> None:
    async with terminal(server) as term:
        term.type("/to bob\rone\rtwo: not a name\r")
        await server.until(lambda: len(server.payloads("bob")) == 2)
    assert server.payloads("bob") == [b"one", b"two: not a name"]


async def test_a_message_is_shown_acknowledged_and_read_when_we_talk_to_its_sender(server: SmallServer) -> None:
    async with terminal(server) as term:
        server.deliver("ann", b"hi \x1b[2J there", "bob", Flag.READ_RECEIPT)
        assert (await term.until_shown("bob:")).endswith("bob: hi \\x1b[2J there")
        await server.until(lambda: server.of(Ack))
        assert term.chat.unread_count == 1
        assert not server.of(Read)
        term.type("/to bob\r")
        await server.until(lambda: server.of(Read))
        assert term.chat.unread_count == 0


async def test_what_the_one_we_talk_to_sends_is_read_at_once(server: SmallServer) -> None:
    async with terminal(server) as term:
        term.type("/to bob\r/who\r")
        await term.until_shown("you talk to them")
        server.deliver("ann", b"look", "bob", Flag.READ_RECEIPT)
        await server.until(lambda: server.of(Read))
    (read,) = server.of(Read)
    assert isinstance(read, Read)
    assert read.to == "bob"


async def test_what_i_send_from_my_phone_is_shown(server: SmallServer) -> None:
    async with terminal(server) as term, Client(HOST, server.tcp_port, "ann", "phone", password="secret") as phone:
        await phone.wait_connected()
        await phone.send("bob", b"on my way")
        assert (await term.until_shown("on my way")).endswith("you → bob: on my way")


async def test_who_types_is_told_and_shown(server: SmallServer) -> None:
    async with terminal(server) as term, Client(HOST, server.tcp_port, "bob", "phone", password="secret") as bob:
        await bob.wait_connected()
        term.type("/to bob\rhel")
        await server.until(lambda: server.of(Signal))
        term.type("lo\r")
        await server.until(lambda: server.payloads("bob"))
        said = [signal.payload for signal in server.of(Signal) if isinstance(signal, Signal)]
        assert said == [pack_typing(True), pack_typing(False)]
        bob.signal("ann", pack_typing(True))
        await server.until(lambda: len(server.of(Signal)) == 3)
        server.deliver("ann", b"a fence", "zoe")
        await term.until_shown("a fence")
        assert "bob is typing" in view.plain(view.toolbar(term.chat, "here", asyncio.get_running_loop().time()))


async def test_a_refusal_is_shown_with_its_reason(server: SmallServer) -> None:
    async with terminal(server) as term:
        term.type("nobody: hello\r")
        line = await term.until_shown("✗")
    assert line == "  ✗ “hello” was not sent to nobody: the receiver does not exist"


async def test_a_lost_connection_is_shown_and_what_was_typed_meanwhile_arrives(server: SmallServer) -> None:
    async with terminal(server) as term:
        await server.stop_tcp()
        await term.until_shown("offline")
        term.type("bob: into the void\r")
        await term.until(lambda: term.chat.waiting == 0 or not isinstance(term.chat.link, Connected))
        await server.start_tcp(server.tcp_port)
        await server.until(lambda: server.payloads("bob"))
        await term.until(lambda: term.lines.count("* online") == 2)


async def test_help_who_and_mistakes(server: SmallServer) -> None:
    async with terminal(server) as term:
        term.type("/help\r/who\rhello\r")
        await term.until_shown("to whom?")
    assert any(line.strip().startswith("/quit") for line in term.lines)
    assert "* nobody yet: type NAME: TEXT" in term.lines


async def test_tab_completes(server: SmallServer) -> None:
    async with terminal(server) as term:
        term.type("/to bob\r/wh\t")
        await term.until(lambda: term.buffer.text == "/who")
        term.type("\r")
        await term.until_shown("you talk to them")


@pytest.mark.parametrize("keys", ["/quit\r", "\x04", "half a line\x03\x04"])
async def test_leaving(server: SmallServer, keys: str) -> None:
    async with terminal(server) as term:
        term.type(keys)
        await asyncio.wait_for(term.running, 10)
    assert server.of(Send) == []


async def test_a_session_that_was_replaced_ends_the_terminal_and_says_so(server: SmallServer) -> None:
    async with terminal(server) as term:
        server.live[0].fail(Code.REPLACED)
        with pytest.raises(ClientClosed, match="REPLACED"):
            await asyncio.wait_for(term.running, 10)
        await term.until_shown("the newest session wins")
