"""What of an outage is in the log."""

from __future__ import annotations

from structlog.testing import CapturingLogger

from brokerd.outage import TOLD_EVERY_S, Outage

TRY_S = 0.25


def test_an_outage_is_told_at_its_begin_once_a_minute_and_at_its_end() -> None:
    now_s, log = 5.0, CapturingLogger()
    outage = Outage("store", log, lambda: now_s)
    outage.over()
    for _ in range(int(2.5 * TOLD_EVERY_S / TRY_S)):
        outage.failed(OSError("no route"))
        now_s += TRY_S
    outage.over()
    outage.over()
    told = [(call.args[0], call.kwargs["seconds"]) for call in log.calls]
    assert told == [("store_down", 0.0), ("store_down", 60.0), ("store_down", 120.0), ("store_back", 150.0)]


def test_the_next_outage_is_told_at_once() -> None:
    log = CapturingLogger()
    outage = Outage("store", log, lambda: 5.0)
    for _ in range(3):
        outage.failed(OSError("no route"))
        outage.over()
    assert [call.args[0] for call in log.calls] == ["store_down", "store_back"] * 3
