"""Pace: nobody waits while little comes; while much does, it is taken at a pace."""

from __future__ import annotations

from bisect import bisect_right

import pytest

from chatd.pace import RATE_S, Pace

EVERY_S = 0.005
MANY = 8


def steady(pace: Pace, a_second: float, seconds: float, from_s: float = 0.0) -> list[float]:
    """One item comes after the other, and is taken as soon as the pace allows. How long each had to wait."""
    waited: list[float] = []
    arrivals = [from_s + at / a_second for at in range(int(a_second * seconds))]
    at = 0
    while at < len(arrivals):
        now_s = arrivals[at] + pace.wait_s(arrivals[at])
        end = bisect_right(arrivals, now_s)
        pace.took(end - at, now_s)
        waited += [now_s - come_s for come_s in arrivals[at:end]]
        at = end
    return waited


@pytest.mark.parametrize("a_second", [1, 100, 0.9 * MANY / EVERY_S])
def test_nobody_waits_while_little_comes(a_second: float) -> None:
    assert max(steady(Pace(EVERY_S, MANY), a_second, 2.0)) == 0.0


@pytest.mark.parametrize("a_second", [1.1 * MANY / EVERY_S, 20_000])
def test_while_much_comes_it_is_taken_at_the_pace_and_waits_no_longer_than_that(a_second: float) -> None:
    waited = steady(Pace(EVERY_S, MANY), a_second, 2.0)
    late = waited[len(waited) // 2 :]
    assert 0.3 * EVERY_S < sum(late) / len(late) < 0.7 * EVERY_S
    assert max(late) <= EVERY_S + 1e-9


def test_who_comes_after_a_silence_does_not_wait() -> None:
    pace = Pace(EVERY_S, MANY)
    steady(pace, 20_000, 1.0)
    assert pace.is_on
    assert pace.wait_s(1.0 + 2 * RATE_S) == 0.0
    assert not pace.is_on


def test_when_less_is_said_nobody_waits_any_more() -> None:
    pace = Pace(EVERY_S, MANY)
    steady(pace, 20_000, 1.0)
    waited = steady(pace, 200, 1.0, from_s=1.0)
    assert max(waited[len(waited) // 2 :]) == 0.0


def test_without_a_pace_nobody_ever_waits() -> None:
    assert max(steady(Pace(0.0, MANY), 50_000, 0.5)) == 0.0
