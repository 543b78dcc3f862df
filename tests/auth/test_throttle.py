"""The throttle: guessing is slow, and nobody can lock anybody out."""

from __future__ import annotations

import pytest

from chatd.auth.throttle import ADDRESS_RATE, PAIR_RATE, USER_RATE, Buckets, Rate, Throttle, address_of


def _fail(throttle: Throttle, user: str, address: str, times: int, now_s: float = 0) -> None:
    for _ in range(times):
        throttle.fail(user, address, now_s)


def test_an_address_that_guesses_waits_whatever_user_it_tries() -> None:
    throttle = Throttle()
    for number in range(int(ADDRESS_RATE.burst)):
        assert throttle.wait_ms(f"u{number}", "a", 0) == 0
        throttle.fail(f"u{number}", "a", 0)
    assert throttle.wait_ms("fresh", "a", 0) == ADDRESS_RATE.refill_s * 1000
    assert throttle.wait_ms("fresh", "b", 0) == 0
    assert throttle.wait_ms("fresh", "a", ADDRESS_RATE.refill_s) == 0


def test_a_user_who_is_guessed_from_many_addresses_still_gets_in_from_a_clean_one() -> None:
    throttle = Throttle()
    for number in range(1000):
        throttle.fail("ann", f"a{number}", 0)
    assert throttle.wait_ms("ann", "a1", 0) > 0
    assert throttle.wait_ms("ann", "home", 0) == 0
    throttle.fail("ann", "home", 0)
    assert throttle.wait_ms("ann", "home", 0) == PAIR_RATE.refill_s * 1000, "one try, then it waits like the others"


def test_a_user_may_mistype_a_few_times() -> None:
    throttle = Throttle()
    _fail(throttle, "ann", "home", int(USER_RATE.burst) - 1)
    assert throttle.wait_ms("ann", "home", 0) == 0


def test_attempts_that_were_under_way_leave_a_debt_that_has_an_end() -> None:
    throttle = Throttle()
    _fail(throttle, "ann", "a", 1000)
    most_ms = (ADDRESS_RATE.burst + 1) * ADDRESS_RATE.refill_s * 1000
    assert throttle.wait_ms("bob", "a", 0) == most_ms


def test_the_tables_are_bounded_and_the_longest_untouched_goes_first() -> None:
    throttle = Throttle(entries_max=10)
    for number in range(1000):
        throttle.fail(f"u{number}", f"a{number}", 0)
    assert len(throttle) == 30
    buckets = Buckets(Rate(1, 1), entries_max=2)
    for name in ("a", "b", "a", "c"):
        buckets.take(name, 0)
    assert buckets.wait_s("b", 0) == 0
    assert buckets.wait_s("a", 0) > 0


def test_a_clock_that_steps_back_gives_nothing() -> None:
    buckets = Buckets(Rate(1, 1))
    buckets.take("a", 100)
    assert buckets.wait_s("a", 50) == 1


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("127.0.0.1:5000", "127.0.0.1"),
        ("127.0.0.1", "127.0.0.1"),
        ("[2001:db8:1:2:3::4]:5000", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:9::9", "2001:db8:1:2::/64"),
        ("[fe80::1%eth0]:1", "fe80::/64"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("[::ffff:10.0.0.1]:99", "10.0.0.1"),
        ("unix", "unix"),
        ("", ""),
    ],
)
def test_a_peer_stands_for_one_party(peer: str, address: str) -> None:
    assert address_of(peer) == address
