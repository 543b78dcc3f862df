"""A wall clock of one's own for each process, that can be stepped while it runs (libfaketime). The monotonic one is real."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

HOUR_S: Final = 3600
DAY_S: Final = 24 * HOUR_S
_LIBRARIES: Final = "*/faketime/libfaketime.so.1"


def library() -> Path | None:
    """Debian's libfaketime, if it is installed."""
    return next(Path("/usr/lib").glob(_LIBRARIES), None)


def why_no_clock() -> str:
    """Why no clock can be stepped here; "" = it can."""
    return "" if library() else "clocks are stepped by libfaketime, which is not here: apt-get install faketime"


class WrongClock:
    """`step(seconds)` sets how far the processes that were started with `env` are off. Said in `folder`/`name`."""

    def __init__(self, folder: Path, name: str) -> None:
        self._file = folder / f"clock-{name}"
        self.step(0)

    def step(self, seconds: float) -> None:
        """From now on their clock is so far off (it may be negative)."""
        draft = self._file.with_suffix(".new")
        draft.write_text(f"{seconds:+.3f}\n")
        draft.replace(self._file)

    @property
    def env(self) -> dict[str, str]:
        """What a process must be started with."""
        return {
            # the C library's malloc before jemalloc's, which asks for the time before there is one, and waits for ever
            "LD_PRELOAD": f"{library()} libc.so.6",
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",  # its name in older versions
        }

    @contextmanager
    def over_children(self) -> Iterator[None]:
        """What is started meanwhile, in whatever way, has this clock."""
        kept = {name: os.environ.get(name) for name in self.env}
        os.environ.update(self.env)
        try:
            yield
        finally:
            for name, value in kept.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
