"""chatctl, asked as an operator asks it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from bench.processes import Chatd
from chatd.ctl import main
from protocol.client import Client


def ctl(server: Chatd, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "chatd.ctl", *words],
        env={**os.environ, **server.env},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def told(server: Chatd, *words: str) -> Any:
    """The same with --json, in this process: a new one takes half a second."""
    out = io.StringIO()
    with patch.dict(os.environ, server.env), contextlib.redirect_stdout(out):
        assert main([*words, "--json"]) == 0
    return json.loads(out.getvalue())


def client(server: Chatd, user: str, device: str, password: str) -> Client:
    return Client("127.0.0.1", server.tcp_port, user, device, password=password)


def wait_until(is_so: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < end_s
        time.sleep(0.05)
