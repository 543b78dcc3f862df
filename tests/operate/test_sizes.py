"""What the capacity table of docs/capacity.md counts with is what users and messages cost today, within a quarter."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HASH_TABLES = 90  # bytes: they double, so what a key costs depends on how many there are; and buffers, over few users
ROOT = Path(__file__).resolve().parents[2]
_FIGURE = re.compile(r"^ *(-?\d+)(?: +\d+)?  (.+)$")


def figures(text: str) -> dict[str, int]:
    """Bytes by what they are for, of the block about Redis."""
    block = text.partition("Redis:")[2].partition("SQLite:")[0]
    return {found[2].strip(): int(found[1]) for line in block.splitlines() if (found := _FIGURE.match(line))}


def test_redis_needs_as_much_for_each_user_device_and_message_as_the_capacity_table_says() -> None:
    words = [sys.executable, "-m", "tests.operate.sizes", "--users", "2500", "--sockets", "100"]
    measured = figures(subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True, timeout=100).stdout)
    printed = figures((ROOT / "docs/capacity.md").read_text(encoding="utf-8"))
    assert len(printed) == 9
    assert measured.keys() == printed.keys()
    wrong = {
        what: (measured[what], told) for what, told in printed.items() if abs(measured[what] - told) > told / 4 + 20
    }
    assert wrong == {}
