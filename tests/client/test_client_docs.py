"""Every block of docs/client.md runs as it is printed; only the port is another one."""

from __future__ import annotations

import asyncio
import re
import types
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from protocol.client import Client
from protocol.messages import Deliver
from tests.client.small_server import HOST, SmallServer

PAGE = Path(__file__).parents[2] / "docs" / "client.md"
BLOCKS = re.findall(r"^## (.+?)$.*?^```python\n(.+?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def main_of(source: str, server: SmallServer) -> Callable[[], Coroutine[Any, Any, None]]:
    module = types.ModuleType("snippet")
    assert "7400" in source
    exec(compile(source.replace("7400", str(server.tcp_port)), str(PAGE), "exec"), module.__dict__)
    main: Callable[[], Coroutine[Any, Any, None]] = module.main
    return main


async def bob_reads(server: SmallServer) -> None:
    async with Client(HOST, server.tcp_port, "bob", "phone", password="secret") as bob:
        async for message in bob:
            if isinstance(message, Deliver):
                await bob.read("ann", [message.id])


@pytest.mark.parametrize("title", [title for title, _ in BLOCKS])
async def test_the_block_runs(server: SmallServer, title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    main = main_of(dict(BLOCKS)[title], server)
    bob = asyncio.ensure_future(bob_reads(server)) if title == "Receipts" else None
    if title == "Receive":
        server.deliver("bob", b"hello", "ann")
    await asyncio.wait_for(main(), 20)
    if bob is not None:
        bob.cancel()
        await asyncio.wait([bob])


def test_no_block_is_left_out() -> None:
    assert len(BLOCKS) == PAGE.read_text().count("```python") == 6


async def test_the_blocks_do_what_the_page_says(server: SmallServer, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = dict(BLOCKS)
    await main_of(blocks["Send"], server)()
    assert server.payloads("bob") == [b"hello"]
    await main_of(blocks["Receive"], server)()
    assert capsys.readouterr().out == "ann hello\n"
    await main_of(blocks["Many messages"], server)()
    assert server.payloads("bob")[1:] == [b"%d" % number for number in range(5000)]
