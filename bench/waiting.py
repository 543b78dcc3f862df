"""Waiting for a server that was just started."""

from __future__ import annotations

import socket
import time
from typing import Final

START_S_MAX: Final = 30.0
LOOK_S: Final = 0.02


def wait_port(port: int, s_max: float = START_S_MAX) -> None:
    """Until somebody listens on the port of loopback. Raises TimeoutError."""
    end_s = time.monotonic() + s_max
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > end_s:
                raise TimeoutError(f"nobody listens on port {port}") from None
            time.sleep(LOOK_S)
        else:
            return
