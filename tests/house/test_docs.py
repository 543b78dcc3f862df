"""What the documents name exists: files, links, make targets; the picture is the one that its source draws."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
_PATH = re.compile(r"`((?:protocol|brokerd|chatd|bench|tests|docs)/[\w./*-]+)`")
_TARGET = re.compile(r"`make ([a-z-]+)`|^make ([a-z-]+)$", re.MULTILINE)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_of_a_document_leads_somewhere(document: Path) -> None:
    links = [link for link in _LINK.findall(document.read_text()) if "://" not in link]
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_that_a_document_names_is_there(document: Path) -> None:
    paths = [path for path in _PATH.findall(document.read_text()) if "*" not in path]
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_make_target_that_the_readme_names_is_in_the_makefile() -> None:
    targets = {a or b for a, b in _TARGET.findall((ROOT / "README.md").read_text())}
    makefile = (ROOT / "Makefile").read_text()
    assert targets
    assert [target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []


def test_the_picture_is_what_its_source_draws() -> None:
    drawn = runpy.run_path(str(ROOT / "docs/draw.py"))["svg"]()
    assert drawn == (ROOT / "docs/chat.svg").read_text(encoding="utf-8")
