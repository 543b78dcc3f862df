"""Draws docs/chat.svg: the system in one picture. `make docs` runs it; a test holds the file to it.

Plain SVG from a list of boxes and arrows, so that a change of the picture is a change of a few words here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

WIDTH: Final = 1000
HEIGHT: Final = 560


class Box(NamedTuple):
    """One part of the system."""

    x: int
    y: int
    width: int
    height: int
    title: str
    lines: tuple[str, ...]
    fill: str


class Arrow(NamedTuple):
    """What travels from one point to another; `words` stand beside its middle, moved by dx and dy."""

    x1: int
    y1: int
    x2: int
    y2: int
    words: str
    dx: int = 0
    dy: int = -8


CLIENT, OURS, THEIRS = "#eef5e9", "#e8f0fb", "#fbf2e2"

BOXES: Final = (
    Box(20, 60, 170, 90, "ann's phone", ("native client", "TCP or TLS"), CLIENT),
    Box(20, 220, 170, 90, "back end", ("POST /api/send",), CLIENT),
    Box(810, 60, 170, 90, "bob's laptop", ("browser or native", "WebSocket"), CLIENT),
    Box(810, 220, 170, 90, "bob's phone", ("away just now",), CLIENT),
    Box(
        260,
        60,
        200,
        250,
        "chatd A",
        ("session decides", "switchboard performs", "postbox: a turn's", "posts as one batch"),
        OURS,
    ),
    Box(
        540,
        60,
        200,
        250,
        "chatd B",
        ("postroom takes parcels", "feed: seq as expected?", "write, else read the gap"),
        OURS,
    ),
    Box(260, 390, 200, 120, "RabbitMQ", ("chat.in.<shard>: quorum", "chat.node.<node>: no disk", "chat.dead"), THEIRS),
    Box(540, 390, 200, 120, "brokerd", ("append + dedupe + look up", "route, hand over", "then acknowledge"), OURS),
    Box(
        810, 390, 170, 120, "Redis (AOF)", ("sent_queue by user", "register: who is where", "cursors by device"), THEIRS
    ),
)

ARROWS: Final = (
    Arrow(190, 95, 260, 95, "SEND"),
    Arrow(260, 125, 190, 125, "ACCEPTED", dy=18),
    Arrow(190, 265, 260, 265, "JSON"),
    Arrow(330, 310, 330, 390, "1 post, confirm", dx=-62, dy=4),
    Arrow(460, 430, 540, 430, "2 batch"),
    Arrow(540, 480, 460, 480, "4 parcels", dy=18),
    Arrow(740, 450, 810, 450, "3"),
    Arrow(430, 390, 560, 310, "5 parcels", dx=42, dy=12),
    Arrow(740, 95, 810, 95, "DELIVER"),
    Arrow(810, 125, 740, 125, "ACK", dy=18),
    Arrow(720, 310, 850, 390, "login, gaps", dx=56, dy=4),
)


def svg() -> str:
    """The picture."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">',
        '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L10 5 L0 10 z" fill="#444"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        '<text x="20" y="32" font-size="16" fill="#222">One message from ann to bob, in a cluster. '
        "Embedded: the same parts in one process, SQLite for Redis, memory for RabbitMQ.</text>",
    ]
    parts += [_box(box) for box in BOXES]
    parts += [_arrow(arrow) for arrow in ARROWS]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _text(x: int, y: int, words: str, *, size: int = 13, weight: str = "normal") -> str:
    escaped = words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f'<text x="{x}" y="{y}" font-size="{size}" font-weight="{weight}" text-anchor="middle" fill="#222">{escaped}</text>'


def _box(box: Box) -> str:
    middle = box.x + box.width // 2
    rows = [
        f'<rect x="{box.x}" y="{box.y}" width="{box.width}" height="{box.height}" rx="8" fill="{box.fill}" stroke="#667"/>',
        _text(middle, box.y + 26, box.title, size=17, weight="bold"),
    ]
    rows += [_text(middle, box.y + 50 + 20 * number, line) for number, line in enumerate(box.lines)]
    return "\n".join(rows)


def _arrow(arrow: Arrow) -> str:
    x, y = (arrow.x1 + arrow.x2) // 2 + arrow.dx, (arrow.y1 + arrow.y2) // 2 + arrow.dy
    line = f'<line x1="{arrow.x1}" y1="{arrow.y1}" x2="{arrow.x2}" y2="{arrow.y2}" stroke="#444" stroke-width="1.6" marker-end="url(#tip)"/>'
    return f"{line}\n{_text(x, y, arrow.words, size=13)}"


if __name__ == "__main__":
    Path(__file__).with_name("chat.svg").write_text(svg(), encoding="utf-8")
