"""The units as a machine would have them: copies under an instance's name, with a program that exists."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "systemd"
SERVICES = ("chatd@.service", "brokerd@.service")
PROGRAMS = "/usr/lib/chatd/bin/"
ANALYZE = shutil.which("systemd-analyze")


def placed(folder: Path, instance: str = "1") -> list[Path]:
    """All units in `folder`. A template can only be verified as an instance."""
    made = []
    for unit in sorted(UNITS.glob("*.*")):
        if unit.suffix in (".service", ".socket", ".target"):
            copy = folder / unit.name.replace("@.", f"@{instance}.")
            text = unit.read_text(encoding="utf-8").replace(PROGRAMS + "chatd", "/bin/true")
            copy.write_text(text.replace(PROGRAMS + "brokerd", "/bin/true"), encoding="utf-8")
            made.append(copy)
    return made


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze without a manager; never fails by itself."""
    assert ANALYZE is not None
    return subprocess.run([ANALYZE, *words], capture_output=True, text=True, timeout=60)
