"""Users of chatd's own: open to the secret of the process alone, and their names are nobody else's."""

from __future__ import annotations

import pytest

from chatd.auth.own import OwnUsers, is_own, own_names
from chatd.ports import Identity, LoginRefused
from protocol.errors import Code
from protocol.names import is_name
from protocol.wire import Scheme

ONE, OTHER = own_names("n1")


class Credulous:
    """Accounts that believe everybody; a secret of a token is the name of its user."""

    async def prove(self, scheme: int, user: str, secret: str, peer: str) -> Identity:
        return Identity(user or secret, None)

    def is_open(self, user: str, proof: str = "") -> bool:
        return user == "ann"


async def test_people_are_proved_and_closed_by_their_own_accounts() -> None:
    accounts = OwnUsers(Credulous())
    assert (await accounts.prove(Scheme.PASSWORD, "ann", "hush", "1.2.3.4:5")).user == "ann"
    assert accounts.is_open("ann")
    assert not accounts.is_open("bob")


async def test_the_secret_of_the_process_opens_its_own_users_and_nobody_else() -> None:
    accounts = OwnUsers(Credulous())
    assert await accounts.prove(Scheme.TOKEN, ONE, accounts.secret, "unknown") == Identity(ONE, None)
    assert accounts.is_open(ONE)
    assert accounts.secret != OwnUsers(Credulous()).secret


@pytest.mark.parametrize(
    ("scheme", "user", "secret"),
    [
        (Scheme.PASSWORD, ONE, "hush"),
        (Scheme.TOKEN, ONE, OTHER),
        (Scheme.TOKEN, "", ONE),  # the token says whose it is
        (Scheme.TOKEN, OTHER, ""),
        (Scheme.TOKEN, ONE, "h\u00fcsh\ud800"),
    ],
)
async def test_nothing_else_opens_them(scheme: Scheme, user: str, secret: str) -> None:
    with pytest.raises(LoginRefused) as refused:
        await OwnUsers(Credulous()).prove(scheme, user, secret, "1.2.3.4:5")
    assert refused.value.code is Code.BAD_CREDENTIALS


async def test_the_secret_is_no_password() -> None:
    accounts = OwnUsers(Credulous())
    with pytest.raises(LoginRefused):
        await accounts.prove(Scheme.PASSWORD, ONE, accounts.secret, "1.2.3.4:5")


def test_each_node_has_names_of_its_own_however_long_its_own_is() -> None:
    nodes = ["n1", "n2", "n" * 64, "n" * 63 + "1", "n" * 49, "n" * 50]
    names = [name for node in nodes for name in own_names(node)]
    assert len(set(names)) == 2 * len(nodes)
    assert [name for name in names if not (is_name(name) and is_own(name))] == []
    assert own_names("n1") == (ONE, OTHER) == ("chatd-canary.n1.a", "chatd-canary.n1.b")
    assert not is_own("chatd-canary")
