"""docs/capacity.md says what an engine in Redis' place must offer: no command is used that it does not name."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ERRORS = {"WRONGTYPE", "ERR", "NOSCRIPT", "LOADING"}  # stand in tuples too
OF_SENTINELS = {"SENTINEL"}


def used() -> set[str]:
    links = ROOT / "brokerd/links"
    scripts = "".join(path.read_text(encoding="utf-8") for path in (links / "lua").glob("*.lua"))
    code = "".join(
        path.read_text(encoding="utf-8") for path in links.glob("*.py") if not path.name.startswith(("amqp", "sqlite"))
    )
    found = set(re.findall(r"redis\.call\('([A-Z]+)'", scripts)) | set(re.findall(r'\(\(?"([A-Z]{2,})"', code))
    return found - ERRORS - OF_SENTINELS


def test_every_command_that_redis_is_sent_is_in_the_list_for_engines_in_its_place() -> None:
    [listed] = re.findall(r"^\| commands \| `([A-Z ]+)`", (ROOT / "docs/capacity.md").read_text(encoding="utf-8"), re.M)
    assert len(used()) > 30
    assert used() - set(listed.split()) == set()
