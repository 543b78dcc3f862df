"""The specification holds together: its rules are numbered once, tests cite rules that exist, and nothing printed is old."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from protocol import codec, messages, wire
from tests.vectors.make_vectors import SPEC
from tests.vectors.spec_parts import PARTS, parts_in

TESTS = Path(__file__).parents[1]
TEXT = SPEC.read_text("utf-8")
RULE = re.compile(r"^- `\[CHAT-(\d+)\]`", re.MULTILINE)
CITED = re.compile(r"\[CHAT-(\d+)\]")
RULES = [int(number) for number in RULE.findall(TEXT)]


def test_every_rule_has_its_own_number_and_they_go_up() -> None:
    """A number that stood twice would make two rules of one test."""
    assert sorted(set(RULES)) == RULES
    assert len(RULES) > 60


def test_tests_cite_rules_that_exist() -> None:
    """Every [CHAT-n] of a test is a rule of SPEC.md."""
    cited = {
        (path.name, int(number))
        for path in TESTS.rglob("test_*.py")
        for number in CITED.findall(path.read_text("utf-8"))
    }
    assert {(name, number) for name, number in cited if number not in RULES} == set()


def test_every_part_that_the_code_can_print_is_printed_once() -> None:
    """The tables of types, states, errors, limits, constants and the worked session."""
    assert sorted(parts_in(TEXT)) == sorted(PARTS)


@pytest.mark.parametrize("kind", list(codec.TYPE_OF), ids=lambda kind: kind.__name__)
def test_every_message_and_every_field_of_it_is_described(kind: type) -> None:
    """§4, against protocol/messages.py: the number, the name, and each field's name in its paragraph."""
    type_ = codec.TYPE_OF[kind]
    assert f"**{type_.name}** ({int(type_)}, " in TEXT
    part = TEXT.split(f"**{type_.name}** ({int(type_)}, ")[1].split("\n**")[0]
    if kind is messages.Sent:  # "the fields of DELIVER, with `to` in place of `sender`"
        assert "`to`" in part
        return
    missing = [field for field in kind._fields[2:] if not re.search(rf"\b{field}\b", part)]  # type: ignore[attr-defined]
    assert missing == []


def test_no_limit_of_the_wire_is_left_out_of_the_table() -> None:
    """§8, against protocol/wire.py: every number that ends in a unit or _MAX."""
    left_out = {"HEAD_BYTES", "PREFACE_BYTES"}  # §2 and §3 draw them
    names = {name for name in vars(wire) if name.isupper() and re.search(r"_(MAX|BYTES|S_DEFAULT|MISSES)$", name)}
    assert {name for name in names - left_out if f"| {name} |" not in TEXT} == set()
