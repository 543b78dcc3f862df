"""Write protocol/vectors/*.json and the printed parts of protocol/SPEC.md from the case files and the code.

python -m tests.vectors.make_vectors            # writes
python -m tests.vectors.make_vectors --check    # exit status 1 when a file is not up to date
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

from tests.vectors import invalid, session, valid
from tests.vectors.case import Case
from tests.vectors.spec_parts import printed

PROTOCOL: Final = Path(__file__).parents[2] / "protocol"
SPEC: Final = PROTOCOL / "SPEC.md"
VECTORS: Final = PROTOCOL / "vectors"


def all_cases() -> list[Case]:
    """Every vector; names are unique."""
    return [*valid.cases(), *invalid.cases()]


def _lines(rows: list[dict[str, Any]]) -> str:
    """A JSON list with one vector a line: it greps and diffs."""
    return "[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n"


def files() -> dict[Path, str]:
    """Every made file and what must stand in it."""
    return {
        VECTORS / "valid.json": _lines([case.to_json() for case in valid.cases()]),
        VECTORS / "invalid.json": _lines([case.to_json() for case in invalid.cases()]),
        VECTORS / "session.json": _lines(session.to_json()),
        SPEC: printed(SPEC.read_text("utf-8")),
    }


def stale() -> list[Path]:
    """The made files that do not say what they must."""
    return [path for path, text in files().items() if not path.exists() or path.read_text("utf-8") != text]


def main(arguments: list[str]) -> int:
    """Write, or only look with --check."""
    old = stale()
    if "--check" in arguments:
        print("\n".join(f"not up to date: {path.name}" for path in old) or "up to date")
        return 1 if old else 0
    texts = files()
    VECTORS.mkdir(exist_ok=True)
    for path in old:
        path.write_text(texts[path], "utf-8")
        print(f"written: {path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
