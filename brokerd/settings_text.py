"""Settings as text: what is in effect (--check-config) and the reference table of all keys (the documentation)."""

from __future__ import annotations

from typing import Any

from brokerd.masking import masked
from brokerd.settings import leaves


def effective(config: Any) -> str:
    """The whole config as TOML, secrets masked: what --check-config prints."""
    lines: list[str] = []
    section = ""
    for leaf in sorted(leaves(type(config)), key=lambda one: "." in one.key):
        owner, _, name = leaf.key.rpartition(".")
        if owner != section:
            lines += ["", f"[{owner}]"]
            section = owner
        value = getattr(getattr(config, owner) if owner else config, name)
        lines.append(f"# {name} is not set" if value is None else f"{name} = {_toml(value, leaf.rule.is_secret)}")
    return "\n".join(lines) + "\n"


def _toml(value: Any, is_secret: bool) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(one, is_secret) for one in value) + "]"
    text = masked(str(value)) if is_secret else str(value)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def reference(kind: type, prefix: str) -> str:
    """All keys of a config dataclass as a Markdown table."""
    rows = ["| key | variable | default | allowed | meaning |", "|---|---|---|---|---|"]
    for leaf in leaves(kind):
        default = "not set" if leaf.default is None else f"`{_toml(leaf.default, leaf.rule.is_secret)}`"
        cells = (f"`{leaf.key}`", f"`{leaf.variable(prefix)}`", default, leaf.allowed(), leaf.rule.says)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"
