"""Logging of both daemons: structlog to stderr, JSON lines for machines or coloured lines on a terminal.

A module does `log = structlog.get_logger()` and `log.info("session_claimed", user=…, node=…)`: events are in the past
tense, ids are bound once, a message body never appears. What libraries log goes the same way, from WARNING on.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import IO, Any, Final

import structlog

from brokerd.config import LogSection
from brokerd.log_values import clean_event
from brokerd.log_writer import LogStatistics, LogWriter
from brokerd.masking import masked
from brokerd.notify import is_journal

_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_PRIORITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3}  # of syslog
_COLOURS: Final = {"debug": "\x1b[2m", "info": "\x1b[32m", "warning": "\x1b[33m", "error": "\x1b[31m"}
_BOLD: Final = "\x1b[1m"
_DIM: Final = "\x1b[2m"
_PLAIN: Final = "\x1b[0m"
_FIRST: Final = ("time", "level", "event")
_ENCODER: Final = json.JSONEncoder(separators=(",", ":"))  # made once: json.dumps makes one for each line, 3 µs


@contextmanager
def logging_to(section: LogSection, stream: IO[str] | None = None, **bound: str) -> Iterator[Logs]:
    """While it is open all logs go to `stream` (default: stderr); `bound` (node=…) stands in every line.

    Once in a process, around everything. Leaving it writes what still waits."""
    stream = sys.stderr if stream is None else stream
    render = _renderer(section.format, stream)
    writer = LogWriter(stream.fileno(), lambda count: _dropped_line(render, count))
    route = _LibraryHandler(logging.WARNING)
    logger = _logger_of(section.level)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.format_exc_info,
            _binder(bound),
            clean_event,
            lambda _logger, _method, event: render(event),
        ],
        wrapper_class=logger,
        logger_factory=lambda *_args: _Line(writer),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.addHandler(route)
    logging.captureWarnings(True)
    try:
        yield Logs(writer, logger)
    finally:
        logging.captureWarnings(False)
        root.removeHandler(route)
        structlog.reset_defaults()
        writer.close()


class Logs:
    """What is open while a process logs."""

    def __init__(self, writer: LogWriter, logger: type) -> None:
        self._writer = writer
        self._logger = logger

    def statistics(self) -> LogStatistics:
        """Lines taken and dropped so far."""
        return self._writer.statistics()

    def set_level(self, level: str) -> None:
        """The least that is logged from now on, also by loggers that exist already: they share one class."""
        _filter(self._logger, level)


def _logger_of(level: str) -> type:
    """A class of our own, because structlog's are shared by the whole process, and fixed."""
    logger = type("Logger", (structlog.make_filtering_bound_logger(0),), {})
    _filter(logger, level)
    return logger


def _filter(logger: type, level: str) -> None:
    """Give `logger` the methods of structlog's class for this level: those below it do nothing."""
    for name, member in vars(structlog.make_filtering_bound_logger(_LEVELS[level])).items():
        if not name.startswith("__"):
            setattr(logger, name, member)


class _Line:
    """What structlog calls with the rendered line, under the name of the level."""

    def __init__(self, writer: LogWriter) -> None:
        self.debug = self.info = self.warning = self.error = self.critical = writer.put


class _LibraryHandler(logging.Handler):
    """Hands records of the standard library's logging to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = masked(record.getMessage())
        except (TypeError, ValueError):  # the library's own format string is wrong
            text = str(record.msg)
        level = logging.ERROR if record.levelno >= logging.ERROR else logging.WARNING
        structlog.get_logger().log(level, "library_spoke", logger=record.name, says=text, exc_info=record.exc_info)


def _binder(bound: Mapping[str, str]) -> Any:
    def bind(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        first = {name: event.pop(name) for name in _FIRST if name in event}
        return {**first, **bound, **event}

    return bind


def _renderer(form: str, stream: IO[str]) -> Any:
    if form == "auto" and not stream.isatty():
        form = "journal" if is_journal(stream.fileno()) else "json"
    if form in ("json", "journal"):
        return _as_json if form == "json" else _as_journal
    return _as_colours if stream.isatty() else _as_text


def _as_json(event: Mapping[str, Any]) -> str:
    return _ENCODER.encode(event)


def _as_journal(event: Mapping[str, Any]) -> str:
    return f"<{_PRIORITIES.get(event.get('level', ''), 6)}>{_as_json(event)}"


def _as_text(event: Mapping[str, Any]) -> str:
    return _line(event, dict.fromkeys(_COLOURS, ""), "", "", "")


def _as_colours(event: Mapping[str, Any]) -> str:
    return _line(event, _COLOURS, _BOLD, _DIM, _PLAIN)


def _line(event: Mapping[str, Any], colours: Mapping[str, str], bold: str, dim: str, plain: str) -> str:
    level = event.get("level", "")
    clock = str(event.get("time", ""))[11:23]
    head = f"{dim}{clock}{plain} {colours.get(level, '')}{level:<7}{plain} {bold}{event.get('event', '')}{plain}"
    exception = event.get("exception")
    trace = exception if isinstance(exception, list) else []
    rest = {key: value for key, value in event.items() if key not in _FIRST and value is not trace}
    pairs = [f"{dim}{key}={plain}{_quoted(value)}" for key, value in rest.items()]
    # Every line of a traceback is indented: no text in it can pass for a line of its own.
    return "\n    | ".join([" ".join([head, *pairs]), *trace])


def _quoted(value: Any) -> str:
    if isinstance(value, str):
        return value if value and not set(' "=') & set(value) else json.dumps(value, ensure_ascii=False)
    return str(value)


def _dropped_line(render: Any, count: int) -> str:
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True, key="time")
    return str(render(stamp(None, "", {"level": "warning", "event": "log_lines_dropped", "count": count})))
