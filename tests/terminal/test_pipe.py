"""chat in a script: a real process, its three streams and its status."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

from protocol.messages import Deliver
from tests.client.small_server import HOST, SmallServer

# a suite that was started in the background ignores SIGINT, and so would its children
_MAIN = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from chatd.terminal import main; sys.exit(main())"
)


async def chat(server: SmallServer, home: Path, *options: str, password: str = "secret", to: str = "tcp") -> Process:
    port, path = (server.ws_port, "/ws") if to == "ws" else (server.tcp_port, "")
    environ = {**os.environ, "XDG_STATE_HOME": str(home), "CHAT_PASSWORD": password}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", _MAIN,
        "--server", f"{to}://{HOST}:{port}{path}", "--user", "ann", *options, env=environ, stdin=PIPE, stdout=PIPE, stderr=PIPE,
    )  # fmt: skip


async def test_lines_are_sent_in_order_and_what_waits_is_printed(server: SmallServer, tmp_path: Path) -> None:
    for index in range(3):
        server.deliver("ann", b"waits %d" % index, "bob")
    process = await chat(server, tmp_path)
    lines = "".join(f"bob: line {index}\n" for index in range(300)) + "\nbob: naïve\n"
    out, err = await process.communicate(lines.encode())
    assert (process.returncode, err.decode()) == (0, "* online\n")
    assert out.decode() == "bob: waits 0\nbob: waits 1\nbob: waits 2\n"
    assert server.payloads("bob") == [b"line %d" % index for index in range(300)] + ["naïve".encode()]


async def test_a_second_run_prints_only_what_is_new_and_is_the_same_device(server: SmallServer, tmp_path: Path) -> None:
    for text in (b"one", b"two"):
        server.deliver("ann", text, "bob")
        process = await chat(server, tmp_path)
        out, _ = await process.communicate(b"")
        assert out == b"bob: " + text + b"\n"
    assert len(server.queue("ann").cursors) == 1
    (folder,) = (tmp_path / "chatd").iterdir()
    assert folder.name == f"ann@{HOST}:{server.tcp_port}"
    assert folder.stat().st_mode & 0o777 == 0o700


async def test_what_was_refused_or_not_understood_makes_the_status_1(server: SmallServer, tmp_path: Path) -> None:
    process = await chat(server, tmp_path)
    _, err = await process.communicate(b"nobody: hello\nbob: goes\nno address\n")
    assert process.returncode == 1
    assert "the receiver does not exist" in err.decode()
    assert "! to whom?" in err.decode()
    assert server.payloads("bob") == [b"goes"]


async def test_a_wrong_password_makes_the_status_3_and_bad_usage_2(server: SmallServer, tmp_path: Path) -> None:
    process = await chat(server, tmp_path, password="wrong")
    _, err = await process.communicate(b"bob: hello\n")
    assert process.returncode == 3
    assert "BAD_CREDENTIALS" in err.decode()
    process = await chat(server, tmp_path, "--device", "No Good")
    _, err = await process.communicate(b"")
    assert process.returncode == 2
    assert "'No Good'" in err.decode()


async def test_stay_goes_on_printing_until_it_is_interrupted_over_a_web_socket(
    server: SmallServer, tmp_path: Path
) -> None:
    process = await chat(server, tmp_path, "--stay", to="ws")
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    for index in range(3):
        server.deliver("ann", b"live %d" % index, "bob")
        assert await process.stdout.readline() == b"bob: live %d\n" % index
    await server.until(lambda: list(server.queue("ann").cursors.values()) == [3])
    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()
    assert process.returncode == 0, err.decode()


async def test_a_second_chat_of_the_same_device_is_refused_with_advice(server: SmallServer, tmp_path: Path) -> None:
    first = await chat(server, tmp_path, "--stay")
    await server.until(lambda: server.live)
    second = await chat(server, tmp_path)
    _, err = await second.communicate(b"")
    assert second.returncode == 2
    assert "--device NAME" in err.decode()
    first.send_signal(signal.SIGINT)
    await first.communicate()
    assert not [entry for entry in server.queue("ann").entries if isinstance(entry, Deliver)]
