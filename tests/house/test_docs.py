"""What the documents name exists: files, links, headings, make targets, functions; the picture is the one that its source draws."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from chatd.switchboard import Counts

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
ARCHITECTURE = ROOT / "docs/architecture.md"
SPEC = ROOT / "protocol/SPEC.md"
DOCUMENTS = [README, SPEC, *sorted((ROOT / "docs").glob("*.md"))]
CARD = ("**What**", "**Why**", "**Consequence**", "**Revisit**")
_LINK = re.compile(r"\]\(([^)#\s]*)(?:#([\w-]+))?\)")
_PATH = re.compile(r"`((?:protocol|brokerd|chatd|bench|tests|docs)/[\w./*-]+)`")
_TARGET = re.compile(r"`make ([a-z-]+)`|^make ([a-z-]+)$", re.MULTILINE)
_NAME = re.compile(r"`(?:\w+\.)?(_?\w+)`")
_STEP = re.compile(r"^\| \d+ \|.*$", re.MULTILINE)
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def prose(document: Path) -> str:
    """The text of a document without its blocks of code."""
    return _FENCE.sub("", document.read_text(encoding="utf-8"))


def anchors(document: Path) -> set[str]:
    """What a link behind # may name: the headings, as GitHub writes them."""
    headings = re.findall(r"^#+ (.*)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_of_a_document_leads_somewhere(document: Path) -> None:
    wrong = []
    for link, anchor in _LINK.findall(prose(document)):
        target = (document.parent / link).resolve() if link else document
        if "://" not in link and (not target.exists() or (anchor and anchor not in anchors(target))):
            wrong.append(f"{link}#{anchor}")
    assert wrong == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_that_a_document_names_is_there(document: Path) -> None:
    paths = [path for path in _PATH.findall(document.read_text(encoding="utf-8")) if "*" not in path]
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_make_target_that_a_document_names_is_in_the_makefile(document: Path) -> None:
    targets = {a or b for a, b in _TARGET.findall(document.read_text(encoding="utf-8"))}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert [target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []


def test_the_tour_names_functions_that_are_in_the_files_beside_them() -> None:
    steps = [step for step in _STEP.findall(README.read_text(encoding="utf-8")) if _PATH.search(step)]
    assert len(steps) == 10
    for step in steps:
        paths = _PATH.findall(step)
        names = _NAME.findall(step.rsplit("|", 2)[-2])
        code = "\n".join((ROOT / path).read_text(encoding="utf-8") for path in [*paths, "chatd/session.py"])
        code += (ROOT / "protocol/envelope.py").read_text(encoding="utf-8")
        missing = [name for name in names if not re.search(rf"\b(class|def) {name}\b", code)]
        assert missing == [], step


def test_the_walk_names_functions_that_there_are() -> None:
    walk = ARCHITECTURE.read_text(encoding="utf-8").partition("## Data")[0]
    sources = [path for package in ("protocol", "brokerd", "chatd") for path in (ROOT / package).rglob("*.py")]
    code = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    dotted = re.findall(r"`([A-Z]\w+)\.(_?\w+)", walk)
    assert len(dotted) >= 10
    wrong = [
        name for name in dotted if not all(re.search(rf"\b((class|def) {part}\b|{part}: )", code) for part in name)
    ]
    assert wrong == []


def test_every_decision_says_what_why_with_which_consequence_and_when_to_think_again() -> None:
    cards = ARCHITECTURE.read_text(encoding="utf-8").partition("\n## Decisions\n")[2].split("\n### ")[1:]
    assert len(cards) > 10
    assert [card.partition("\n")[0] for card in cards if not all(part in card for part in CARD)] == []


def test_every_promise_of_the_readme_has_tests() -> None:
    promised = prose(README).partition("\n## What is promised\n")[2].partition("\n## ")[0]
    rows = _STEP.findall(promised)
    assert len(rows) == 13
    assert [row for row in rows if "](tests/" not in row.rsplit("|", 2)[-2]] == []


def test_the_readme_sends_for_the_errors_to_the_section_that_has_them() -> None:
    [number] = re.findall(r"\[SPEC §(\d+)\]", README.read_text(encoding="utf-8"))
    assert f"\n## {number}. Errors\n" in SPEC.read_text(encoding="utf-8")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_counter_of_the_node_that_a_document_names_is_counted(document: Path) -> None:
    named = re.findall(r"`chatd_node_(\w+)_total`", document.read_text(encoding="utf-8"))
    assert [name for name in named if name not in Counts.__dataclass_fields__] == []


def test_the_picture_is_what_its_source_draws() -> None:
    drawn = runpy.run_path(str(ROOT / "docs/draw.py"))["svg"]()
    assert drawn == (ROOT / "docs/chat.svg").read_text(encoding="utf-8")


def test_every_fault_of_the_list_has_a_test_that_is_named_after_it() -> None:
    ids = re.findall(r"^\| ([FLO]\d\d) \|", (ROOT / "docs/faults.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert ids == [
        f"{kind}{number:02}" for kind, last in (("F", 19), ("L", 6), ("O", 8)) for number in range(1, last + 1)
    ]
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    named = {
        id_.upper() for name in re.findall(r"def test_(\w+)", tests) for id_ in re.findall(r"[flo]\d\d(?=_)", name)
    }
    assert sorted(set(ids) - named) == []
