"""A peer's server as one child process, from its start until it listens to its end."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.crowd import MakesPairs, Target
from bench.peers.packages import Missing
from bench.processes import end_with_parent
from bench.transports import Door
from bench.waiting import START_S_MAX, wait_port

POLL_S: Final = 0.2
SAID_CHARS_MAX: Final = 300


@contextmanager
def running(
    name: str, words: Sequence[str], env: Mapping[str, str], home: Path, port: int, pairs: MakesPairs
) -> Iterator[Target]:
    """What `words` start, in `home`. Its data may go: it is ended by a kill. Raises Missing when it ends by itself."""
    log = home / "stdout"
    with log.open("wb") as out, subprocess.Popen(
        words, env=env, cwd=home, stdin=subprocess.DEVNULL, stdout=out, stderr=out, preexec_fn=end_with_parent
    ) as process:  # fmt: skip
        try:
            _wait_listening(process, port, log)
            yield Target([Door(port)], {name: process.pid}, dict, lambda user: user, pairs=pairs)
        finally:
            process.kill()


def _wait_listening(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    for _ in range(int(START_S_MAX / POLL_S)):
        try:
            return wait_port(port, POLL_S)
        except TimeoutError:
            if process.poll() is not None:  # a library that it needs is not there, or another version of it
                said = log.read_text(errors="replace").strip()[:SAID_CHARS_MAX]
                raise Missing(f"it ended at its start: {said}") from None
    raise TimeoutError(f"nobody listens on port {port}")
