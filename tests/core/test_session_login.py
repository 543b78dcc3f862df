"""How a session begins: names, WELCOME, and where a device that comes back goes on."""

from __future__ import annotations

import pytest

from brokerd.ports import Opened
from chatd.effects import (
    Acknowledge,
    Close,
    Login,
    ReadQueue,
)
from protocol.errors import Code
from protocol.messages import (
    Drained,
    Welcome,
)
from protocol.names import NAME_ALLOWED
from protocol.wire import Limits
from tests.core.peers import GENERATION, NOW_MS, hello
from tests.core.session_rig import TAG, Rig, error


def test_hello_asks_for_a_login_and_welcome_says_what_was_settled() -> None:
    rig = Rig(Limits(body_bytes_max=2000, keepalive_s=7, unaccepted_max=9, credit_max=50))
    effects = rig.log_in(hello(credit=80)._replace(features=("read", "magic")), Opened(3, 3, GENERATION, 1))
    assert effects == []
    assert rig.heard() == [
        Welcome(3, 0, 0, ("read",), "n1", "5", NOW_MS, TAG, 3, GENERATION, 2000, 7000, 9, 50),
        Drained(3, 0),
    ]


@pytest.mark.parametrize(("user", "device"), [("Ann", "laptop"), ("ann", "lap top"), ("ann", ""), ("a" * 65, "laptop")])
def test_a_name_that_is_none_ends_the_login(user: str, device: str) -> None:
    rig = Rig()
    detail = f"user and device are {NAME_ALLOWED}"
    assert rig.say(hello(user, device)) == [Close(Code.BAD_NAME, detail)]
    assert rig.heard() == [error(0, Code.BAD_NAME, detail)]


def test_a_user_may_be_left_to_the_token() -> None:
    login = hello("")
    assert Rig().say(login) == [Login(login)]


def test_a_resume_in_the_same_generation_goes_on_behind_what_the_client_kept() -> None:
    rig = Rig()
    effects = rig.log_in(hello(ref=5, generation=GENERATION), Opened(3, 8, GENERATION, 1))
    assert effects == [Acknowledge(5), ReadQueue(5, 512)]
    [welcome] = rig.heard()
    assert isinstance(welcome, Welcome)
    assert (welcome.ref, welcome.cursor) == (8, 5)


@pytest.mark.parametrize(
    ("ref", "generation"),
    [(5, b"another!"), (5, b""), (9, GENERATION)],
    ids=["another generation", "no generation", "beyond the head"],
)
def test_a_position_that_does_not_count_here_goes_on_where_the_server_stands(ref: int, generation: bytes) -> None:
    rig = Rig()
    effects = rig.log_in(hello(ref=ref, generation=generation), Opened(3, 8, GENERATION, 1))
    assert effects == [ReadQueue(3, 512)]
    [welcome] = rig.heard()
    assert isinstance(welcome, Welcome)
    assert (welcome.cursor, welcome.generation) == (3, GENERATION)


def test_a_client_that_is_behind_the_server_is_not_told_twice() -> None:
    rig = Rig()
    effects = rig.log_in(hello(ref=2, generation=GENERATION), Opened(6, 8, GENERATION, 1))
    assert effects == [ReadQueue(6, 512)]


def test_a_refused_login_says_why_once_and_closes() -> None:
    rig = Rig()
    rig.say(hello())
    rig.session.fail(Code.BAD_CREDENTIALS, retry_after_ms=3)
    rig.session.fail(Code.INTERNAL)
    assert rig.session.take_effects() == [Close(Code.BAD_CREDENTIALS, "")]
    assert rig.heard() == [error(0, Code.BAD_CREDENTIALS, retry_ms=3)]
