"""Logs: one event is one line whatever stands in it, nothing secret, and nobody waits for the reader."""

from __future__ import annotations

import io
import json
import logging
import os
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog

from brokerd.config import LogSection
from brokerd.log_values import TRACEBACK_CHARS_MAX, VALUE_CHARS_MAX
from brokerd.log_writer import LogWriter
from brokerd.logs import logging_to
from protocol.errors import Code

# What a hostile client may put where a name is expected (FAULTS B16).
FORGERIES = [
    'x\n{"event":"forged"}',
    "x\r\n<0>forged",
    "x\x1b[2K\x1b[1Aforged",
    "x\x00\x07\x08\x7f\x9b31m",
    "x\u2028forged\u2029\x85\x0b\x0c",
    "x\u202eforged\u2066",
    "x\ud800",
    "MESSAGE=forged\nPRIORITY=0\n_SYSTEMD_UNIT=x",
    "A" * 65_536,
]


@pytest.fixture
def lines(tmp_path: Path) -> Callable[..., list[str]]:
    """Runs a function while logs go to a file; gives what was written."""

    def run(act: Callable[[Any], None], form: str = "json", level: str = "info") -> list[str]:
        with (tmp_path / "log").open("w") as stream, logging_to(LogSection(level, form), stream, node="n1"):
            act(structlog.get_logger())
        return (tmp_path / "log").read_bytes().decode("ascii" if form == "json" else "utf-8").split("\n")[:-1]

    return run


def test_an_event_is_one_json_line_with_time_level_event_and_what_is_bound(lines: Callable[..., list[str]]) -> None:
    (line,) = lines(
        lambda log: log.bind(user="ann").info("session_claimed", rtt_ms=1.5, code=Code.BUSY, id=b"\x01\xff")
    )
    event = json.loads(line)
    assert list(event)[:4] == ["time", "level", "event", "node"]
    assert event["time"].endswith("Z")
    assert event | {"time": ""} == {
        "time": "",
        "level": "info",
        "event": "session_claimed",
        "node": "n1",
        "user": "ann",
        "rtt_ms": 1.5,
        "code": "BUSY",
        "id": "01ff",
    }


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("text", FORGERIES)
def test_no_value_key_or_event_can_forge_a_line(text: str, form: str, lines: Callable[..., list[str]]) -> None:
    def act(log: Any) -> None:
        log.info(text)
        log.info("e", user=text)
        log.info("e", **{text: 1})
        log.info(
            "e", names=[text, (text,)], more={text: text}, error=ValueError(text), path=Path(text.replace("\0", ""))
        )

    written = lines(act, form)
    assert len(written) == 4
    assert all(line.isprintable() for line in written)
    assert all(len(line) < 8 * VALUE_CHARS_MAX for line in written)


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("text", FORGERIES)
def test_the_text_of_an_exception_can_not_forge_a_line(text: str, form: str, lines: Callable[..., list[str]]) -> None:
    def act(log: Any) -> None:
        try:
            raise ValueError(text)
        except ValueError:
            log.exception("loop_failed")

    head, *rest = lines(act, form)
    assert "loop_failed" in head
    assert all(line.startswith("    | ") and line.isprintable() for line in rest)
    assert bool(rest) == (form == "console")
    assert sum(map(len, rest)) < 2 * TRACEBACK_CHARS_MAX


def test_a_value_with_spaces_can_not_pass_for_two_values_on_the_console(lines: Callable[..., list[str]]) -> None:
    (line,) = lines(lambda log: log.info("e", user='a level=error "x"', other=""), "console")
    assert line.endswith('info    e node=n1 user="a level=error \\"x\\"" other=""')


def test_what_a_client_says_can_not_stand_in_for_time_level_or_event(lines: Callable[..., list[str]]) -> None:
    (line,) = lines(lambda log: log.warning("e", level="debug", time="never"))
    event = json.loads(line)
    assert (event["level"], event["time"] != "never") == ("warning", True)


@pytest.mark.parametrize("form", ["json", "console"])
def test_bodies_and_secrets_are_never_written(form: str, lines: Callable[..., list[str]]) -> None:
    def act(log: Any) -> None:
        log.info("e", payload="hush", body=b"hush", secret="hush", password="hush", token="hush")
        log.info("e", frame=b"hush" * 5, error=OSError("amqp://u:hush@h:1/"))
        logging.getLogger("aiormq").warning("no way to amqp://u:hush@h:1/")

    written = lines(act, form)
    assert len(written) == 3
    assert "hush" not in "".join(written)
    assert "68757368" not in "".join(written)
    assert "<20 bytes>" in written[1]


def test_odd_values_are_written_and_break_nothing(lines: Callable[..., list[str]]) -> None:
    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    (line,) = lines(
        lambda log: log.info("e", a=Odd(), b=float("nan"), c=10**5000, d=None, e={1, 2}, exception=OSError(1))
    )
    event = json.loads(line)
    assert event["a"] == "<Odd, its repr raises RuntimeError>"
    assert (event["b"], event["c"], event["d"]) == ("<out of range>", "<out of range>", None)


def test_libraries_are_heard_from_warning_on(lines: Callable[..., list[str]]) -> None:
    def act(_log: Any) -> None:
        logging.getLogger("asyncio").info("quiet")
        logging.getLogger("asyncio").error("slow\n%s", "callback")
        logging.getLogger("odd").log(35, "a level of its own")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("old", DeprecationWarning, stacklevel=1)

    events = [json.loads(line) for line in lines(act)]
    assert [(event["level"], event["logger"]) for event in events] == [
        ("error", "asyncio"),
        ("warning", "odd"),
        ("warning", "py.warnings"),
    ]
    assert events[0]["says"] == "slow\\ncallback"


def test_less_than_the_level_is_not_written(lines: Callable[..., list[str]]) -> None:
    assert len(lines(lambda log: (log.debug("e"), log.info("e"), log.warning("e")), level="warning")) == 1


def test_auto_means_json_when_nobody_looks(lines: Callable[..., list[str]]) -> None:
    assert json.loads(lines(lambda log: log.info("e"), "auto")[0])["event"] == "e"


def test_a_terminal_gets_colours_and_still_one_line() -> None:
    ours, theirs = os.openpty()
    with io.open(theirs, "w") as stream:  # noqa: UP020 - by descriptor
        with logging_to(LogSection(format="auto"), stream):
            structlog.get_logger().info("e", user="\x1b[31mred")
        text = os.read(ours, 4096).decode()
    os.close(ours)
    assert text.endswith("\\x1b[31mred\r\n")
    assert text.startswith("\x1b[2m")
    assert text.count("\n") == 1


class Pipe:
    """A pipe whose reader can stand still."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()

    def drain(self) -> list[str]:
        """All lines until the writer's end is closed."""
        with open(self.reading, encoding="utf-8") as stream:
            return stream.read().splitlines()


@pytest.fixture
def pipe() -> Pipe:
    return Pipe()


@pytest.mark.parametrize("blocking", [True, False])
def test_a_stalled_reader_stops_nobody_and_the_loss_is_told(pipe: Pipe, blocking: bool) -> None:
    os.set_blocking(pipe.writing, blocking)
    writer = LogWriter(pipe.writing, lambda count: f"dropped {count}", lines_max=100)
    for number in range(5000):  # the pipe holds 64 KiB: about 60 of these lines
        writer.put(f"{number:01000}")
    assert writer.statistics().dropped > 0

    read: list[str] = []
    reader = threading.Thread(target=lambda: read.extend(pipe.drain()))
    reader.start()
    writer.close()
    os.close(pipe.writing)
    reader.join()
    statistics = writer.statistics()
    told = sum(int(line.split()[1]) for line in read if line.startswith("dropped"))
    written = [int(line) for line in read if not line.startswith("dropped")]
    assert told == statistics.dropped == 5000 - statistics.taken
    assert len(written) == statistics.taken
    assert written == sorted(written)


def test_a_reader_that_is_gone_ends_nothing(pipe: Pipe) -> None:
    os.close(pipe.reading)
    writer = LogWriter(pipe.writing, lambda count: f"dropped {count}")
    writer.put("a")
    writer.close()
    writer.put("too late")
    os.close(pipe.writing)
    assert writer.statistics().dropped == 2


def test_the_journal_is_told_how_bad_it_is(lines: Callable[..., list[str]]) -> None:
    def act(log: Any) -> None:
        log.info("fine")
        log.error("broken")

    first, second = lines(act, form="journal")
    assert first.startswith('<6>{"time"')
    assert second.startswith('<3>{"time"')


def test_a_level_can_change_for_loggers_that_are_in_use(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as stream, logging_to(LogSection("info", "json"), stream) as logs:
        log = structlog.get_logger().bind(session="1")
        log.debug("unheard")
        logs.set_level("debug")
        log.debug("heard")
        logs.set_level("error")
        log.warning("unheard")
    assert [json.loads(line)["event"] for line in (tmp_path / "log").read_text().splitlines()] == ["heard"]
