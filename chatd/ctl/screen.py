"""Where `chatctl top` shows its frames: a terminal that is given back as it was, or lines one after another."""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Final, Protocol

from chatd.ctl import say

QUIT_KEYS: Final = b"qQ"
KEYS_READ_MAX: Final = 64
_ENTER: Final = "\x1b[?1049h\x1b[?25l"  # the other screen, no cursor
_LEAVE: Final = "\x1b[?25h\x1b[?1049l"
_HOME: Final = "\x1b[H"
_REST_OF_LINE: Final = "\x1b[K"
_REST_OF_SCREEN: Final = "\x1b[J"
_ENDINGS: Final = (signal.SIGTERM, signal.SIGHUP)


class Place(Protocol):
    """Where frames are shown."""

    def show(self, lines: Sequence[str]) -> None:
        """One frame."""

    def wait(self, seconds: float) -> bool:
        """Until it is time for the next one. False: no more are wanted."""


class Paper:
    """Frames one after another."""

    def __init__(self) -> None:
        self._has_shown = False

    def show(self, lines: Sequence[str]) -> None:
        """See Place."""
        if self._has_shown and len(lines) > 1:
            say("")
        for line in lines:
            say(line.rstrip())
        sys.stdout.flush()  # whoever reads a pipe of ours waits for it
        self._has_shown = True

    def wait(self, seconds: float) -> bool:
        """See Place."""
        time.sleep(seconds)
        return True


class Screen:
    """One frame at a time, cut to the size of the terminal as it is now."""

    def __init__(self, keys: int | None) -> None:
        """`keys` is the file that keys come from."""
        self._keys = keys

    def show(self, lines: Sequence[str]) -> None:
        """See Place."""
        width, height = shutil.get_terminal_size()
        shown = [line[:width] + _REST_OF_LINE for line in lines[:height]]
        sys.stdout.write(_HOME + "\n".join(shown) + _REST_OF_SCREEN)
        sys.stdout.flush()

    def wait(self, seconds: float) -> bool:
        """See Place."""
        end_s = time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0:
            if self._keys is None:
                time.sleep(left_s)
            elif select.select([self._keys], [], [], left_s)[0]:
                typed = os.read(self._keys, KEYS_READ_MAX)
                if not typed or any(key in QUIT_KEYS for key in typed):
                    return False
        return True


@contextmanager
def screen() -> Iterator[Screen]:
    """The terminal on standard output, while it is open; then it is as before, also after SIGTERM."""

    def end(number: int, _: FrameType | None) -> None:
        sys.exit(128 + number)

    keys = sys.stdin.fileno() if sys.stdin.isatty() else None
    before = termios.tcgetattr(keys) if keys is not None else None
    handlers = {number: signal.signal(number, end) for number in _ENDINGS}
    # a script that runs in the background hands SIGINT on as ignored; who sees the screen ends it with Ctrl-C all the same
    handlers[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        if keys is not None:
            _listen_to_keys(keys)
        sys.stdout.write(_ENTER)
        yield Screen(keys)
    finally:
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()
        if keys is not None and before is not None:
            termios.tcsetattr(keys, termios.TCSADRAIN, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _listen_to_keys(keys: int) -> None:
    """Each key at once and not shown; Ctrl-C as always; no Ctrl-Z, which would leave a shell on the other screen."""
    tty.setcbreak(keys)
    mode = termios.tcgetattr(keys)
    mode[6][termios.VSUSP] = b"\0"
    termios.tcsetattr(keys, termios.TCSADRAIN, mode)
