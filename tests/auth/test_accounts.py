"""Accounts: passwords and tokens on real files, real argon2 (cheap), and clocks that the test moves."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher
from argon2.profiles import CHEAPEST

from chatd.auth import accounts as accounts_module
from chatd.auth import passwords
from chatd.auth.accounts import PROVED_S, Clocks, FileAccounts, ProvedPasswords
from chatd.auth.files import FileBroken, WatchedFile, replace_text, writing
from chatd.auth.keys import generated, parse_keys, render_keys
from chatd.auth.passwords import PasswordChecker, change_passwords, owasp_hasher, parse_passwords
from chatd.auth.throttle import ADDRESS_RATE
from chatd.auth.tokens import Expected, mint
from chatd.ports import Accounts, Identity, LoginRefused
from protocol.errors import Code
from protocol.wire import SECRET_BYTES_MAX, Scheme


class CountingHasher(PasswordHasher):
    """Argon2 at its cheapest; counts the verifications, which a gate can hold up."""

    def __init__(self) -> None:
        super().__init__(**_cheapest())
        self.verified = 0
        self.gate = threading.Event()
        self.gate.set()

    def verify(self, hash: str | bytes, password: str | bytes) -> Any:
        self.gate.wait(10)
        self.verified += 1
        return super().verify(hash, password)


def _cheapest() -> dict[str, Any]:
    names = ("time_cost", "memory_cost", "parallelism", "hash_len", "salt_len")
    return {name: value for name, value in dataclasses.asdict(CHEAPEST).items() if name in names}


class House:
    """An account folder, its accounts, and the two clocks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hasher = CountingHasher()
        self.monotonic_s = 1000.0
        self.now_s = 1_800_000_000.0
        self.expected = Expected("chatd")
        self.put_users(ann="ann's own", bob="bob's own")
        table = {"active": "k", "keys": {"k": generated("HS256", "s" * 32)}}
        self.ring = parse_keys(render_keys(table), folder)
        replace_text(folder / "keys", render_keys(table))
        self.accounts = self.open()

    def open(self) -> FileAccounts:
        clocks = Clocks(lambda: self.now_s, lambda: self.monotonic_s)
        files = (self.folder / name for name in ("keys", "passwd", "revoked"))
        return FileAccounts(*files, self.expected, self.hasher, clocks)

    def put_users(self, **users: str | None) -> None:
        def change(file: dict[str, str]) -> None:
            for user, password in users.items():
                if password is None:
                    del file[user]
                else:
                    file[user] = self.hasher.hash(password)

        change_passwords(self.folder / "passwd", change)

    def a_second_later(self) -> None:
        self.monotonic_s += 1
        self.now_s += 1

    async def password(self, user: str, secret: str, peer: str = "10.0.0.1:5") -> Identity:
        return await self.accounts.prove(Scheme.PASSWORD, user, secret, peer)

    async def token(self, user: str) -> Identity:
        token = mint(self.ring.keys["k"], user, self.expected, self.now_s, 60)
        return await self.accounts.prove(Scheme.TOKEN, "", token, "10.0.0.1:5")


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.hasher.gate.set()
    made.accounts.close()


async def _refused(attempt: Any) -> LoginRefused:
    with pytest.raises(LoginRefused) as caught:
        await attempt
    return caught.value


async def test_the_right_password_proves_who_one_is_and_has_no_end(house: House) -> None:
    port: Accounts = house.accounts
    identity = await port.prove(Scheme.PASSWORD, "ann", "ann's own", "::1")
    assert identity == Identity("ann", None, identity.proof)


async def test_wrong_password_unknown_user_and_bad_name_get_the_same_answer(house: House) -> None:
    attempts = [("ann", "wrong"), ("nobody", "wrong"), ("nobody", "ann's own"), ("Ann", "ann's own"), ("", "x")]
    attempts += [("ann", ""), ("ann", "\ud800"), ("ann", "x" * (SECRET_BYTES_MAX + 1)), ("ann\n", "ann's own")]
    refusals = [await _refused(house.password(*attempt)) for attempt in attempts]
    assert {(refusal.code, refusal.retry_after_ms) for refusal in refusals} == {(Code.BAD_CREDENTIALS, 0)}


async def test_an_unknown_user_costs_one_verification_like_a_known_one(house: House) -> None:
    for user in ("ann", "nobody"):
        before = house.hasher.verified
        await _refused(house.password(user, "wrong"))
        assert house.hasher.verified == before + 1


async def test_an_unknown_scheme_is_refused(house: House) -> None:
    assert (await _refused(house.accounts.prove(9, "ann", "ann's own", "x"))).code == Code.BAD_CREDENTIALS


async def test_it_does_not_matter_how_a_keyboard_composes_a_letter(house: House) -> None:
    house.put_users(eve="caf\u00e9 au lait")
    house.a_second_later()
    assert (await house.password("eve", "cafe\u0301 au lait")).user == "eve"


async def test_a_password_that_was_right_is_right_again_for_a_minute_without_argon2(house: House) -> None:
    await house.password("ann", "ann's own")
    await house.password("ann", "ann's own")
    assert house.hasher.verified == 1
    assert (await _refused(house.password("ann", "wrong"))).code == Code.BAD_CREDENTIALS
    house.monotonic_s += PROVED_S
    await house.password("ann", "ann's own")
    assert house.hasher.verified == 3


async def test_a_changed_password_ends_the_old_one_within_a_second(house: House) -> None:
    await house.password("ann", "ann's own")
    house.put_users(ann="a new one")
    house.a_second_later()
    assert (await _refused(house.password("ann", "ann's own"))).code == Code.BAD_CREDENTIALS
    assert (await house.password("ann", "a new one")).user == "ann"


async def test_what_was_proved_is_bounded_and_is_no_password() -> None:
    proved = ProvedPasswords(count_max=2)
    for user in ("a", "b", "c"):
        proved.put(user, b"hush-hush", 0)
    assert [proved.has(user, b"hush-hush", 0) for user in ("a", "b", "c")] == [False, True, True]
    assert not proved.has("b", b"other", 0)
    assert b"hush" not in repr(vars(proved)).encode()


async def test_beyond_the_bound_of_waiting_checks_a_login_is_busy_at_once(house: House) -> None:
    house.hasher.gate.clear()
    waiting = [asyncio.ensure_future(house.password("ann", "ann's own")) for _ in range(passwords.CHECKS_MAX)]
    await asyncio.sleep(0)  # each has begun
    refusal = await _refused(house.password("bob", "bob's own"))
    assert refusal.code == Code.BUSY
    assert refusal.retry_after_ms > 0
    house.hasher.gate.set()
    assert {identity.user for identity in await asyncio.gather(*waiting)} == {"ann"}
    assert (await house.password("bob", "bob's own")).user == "bob"


async def test_who_went_away_frees_the_place_only_when_the_check_is_over() -> None:
    hasher = CountingHasher()
    checker = PasswordChecker(hasher, checks_max=1)
    hasher.gate.clear()
    gone = asyncio.ensure_future(checker.is_right({}, "ann", b"x"))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    assert (await _refused(checker.is_right({}, "ann", b"x"))).code == Code.BUSY
    hasher.gate.set()
    checker.close()


async def test_guessing_is_stopped_with_the_time_to_wait_and_the_true_user_gets_in_from_elsewhere(house: House) -> None:
    codes = [(await _refused(house.password("ann", f"guess {n}"))).code for n in range(int(ADDRESS_RATE.burst) + 5)]
    assert codes[0] == Code.BAD_CREDENTIALS
    refusal = await _refused(house.password("ann", "ann's own"))
    assert codes[-1] == refusal.code == Code.RATE_LIMITED
    assert 0 < refusal.retry_after_ms < 10 * 60 * 1000
    spent = house.hasher.verified
    await _refused(house.password("ann", "guess"))
    assert house.hasher.verified == spent, "no hash work for who is limited"
    assert (await house.password("ann", "ann's own", "10.0.0.2:5")).user == "ann"
    house.monotonic_s += refusal.retry_after_ms / 1000
    assert (await house.password("ann", "ann's own")).user == "ann"


async def test_locked_known_and_unknown_users_answer_alike(house: House) -> None:
    refusals = []
    for user, peer in (("ann", "10.1.0.1"), ("nobody", "10.1.0.2")):
        told = [await _refused(house.password(user, f"guess {n}", peer)) for n in range(int(ADDRESS_RATE.burst) + 5)]
        refusals.append([(refusal.code, refusal.retry_after_ms) for refusal in told])
    assert refusals[0] == refusals[1]


async def test_a_deleted_password_user_is_closed_also_with_a_token_and_open_when_added_again(house: House) -> None:
    await house.password("ann", "ann's own")
    house.put_users(ann=None)
    house.a_second_later()
    assert not house.accounts.is_open("ann")
    assert house.accounts.is_open("bob")
    assert (await _refused(house.token("ann"))).code == Code.REVOKED
    assert (await _refused(house.password("ann", "ann's own"))).code == Code.BAD_CREDENTIALS
    house.put_users(ann="back again")
    house.a_second_later()
    assert house.accounts.is_open("ann")
    assert (await house.password("ann", "back again")).user == "ann"


async def test_who_never_had_a_password_is_open_until_revoked(house: House) -> None:
    assert (await house.token("carl")).user == "carl"
    assert house.accounts.is_open("carl")
    replace_text(house.folder / "revoked", "# left us\ncarl  # in May\n\nann\n")
    house.a_second_later()
    assert not house.accounts.is_open("carl")
    assert (await _refused(house.token("carl"))).code == Code.REVOKED
    assert (await _refused(house.password("ann", "ann's own"))).code == Code.REVOKED
    assert (await _refused(house.password("ann", "wrong"))).code == Code.BAD_CREDENTIALS, (
        "who proves nothing learns nothing"
    )
    (house.folder / "revoked").write_text("")
    house.a_second_later()
    assert house.accounts.is_open("carl")


@pytest.mark.parametrize("kid", ["new", "k"])
async def test_a_key_that_was_added_or_changed_a_moment_ago_counts(house: House, kid: str) -> None:
    table = {"active": kid, "keys": {kid: generated("HS256", "n" * 32)}}
    ring = parse_keys(render_keys(table), house.folder)
    token = mint(ring.keys[kid], "ann", house.expected, house.now_s, 60)
    with pytest.raises(LoginRefused):
        await house.accounts.prove(Scheme.TOKEN, "ann", token, "10.0.0.1:1")
    replace_text(house.folder / "keys", render_keys(table))
    assert (await house.accounts.prove(Scheme.TOKEN, "ann", token, "10.0.0.1:1")).user == "ann"


async def test_who_was_added_again_a_moment_ago_may_log_in(house: House) -> None:
    token = mint(house.ring.keys["k"], "ann", house.expected, house.now_s, 60)
    house.put_users(ann=None)
    replace_text(house.folder / "revoked", "ann\n")
    house.monotonic_s += 2
    with pytest.raises(LoginRefused):
        await house.accounts.prove(Scheme.TOKEN, "ann", token, "10.0.0.1:1")
    house.put_users(ann="ann's new one")
    replace_text(house.folder / "revoked", "")
    assert (await house.accounts.prove(Scheme.TOKEN, "ann", token, "10.0.0.1:1")).user == "ann"


async def test_a_file_that_is_broken_later_keeps_what_was_good(house: House) -> None:
    for name in ("keys", "passwd", "revoked"):
        (house.folder / name).write_text("= broken :")
    house.a_second_later()
    assert (await house.password("ann", "ann's own")).user == "ann"
    assert (await house.token("carl")).user == "carl"
    (house.folder / "passwd").unlink()
    house.put_users(dave="dave's own")
    house.a_second_later()
    assert (await house.password("dave", "dave's own")).user == "dave"


@pytest.mark.parametrize("name", ["keys", "passwd", "revoked"])
def test_a_file_that_is_broken_at_the_start_is_an_error(name: str, house: House) -> None:
    (house.folder / name).write_text("= broken :")
    with pytest.raises(FileBroken):
        house.open()


async def test_without_any_file_nobody_gets_in_and_nothing_breaks(tmp_path: Path) -> None:
    files = (tmp_path / name for name in ("a", "b", "c"))
    accounts = FileAccounts(*files, Expected("chatd"), CountingHasher())
    for scheme in Scheme:
        await _refused(accounts.prove(scheme, "ann", "x", "y"))
    assert accounts.is_open("ann")
    accounts.close()


def test_a_file_is_looked_at_once_a_second_at_most(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("1")
    now_s = 0.0
    watched = WatchedFile(tmp_path / "f", str, "", lambda: now_s)
    replace_text(tmp_path / "f", "2")
    assert (watched.value(), watched.version) == ("1", 1)
    now_s = 1.0
    assert (watched.value(), watched.version) == ("2", 2)
    (tmp_path / "f").unlink()
    now_s = 2.0
    assert (watched.value(), watched.version) == ("2", 2), "a file that is gone is taken for a slip"


@pytest.mark.parametrize(
    "text",
    ["ann", "ann:", ":x", "ann:plain", "ann:$argon2id$", "Ann:{0}", "ann:{0}\nann:{0}", "ann :{0}", "ann:$argon2id$v=19$m=1048576,t=3,p=4$c2FsdHNhbHQ$aGFzaGhhc2g", "ann:$2b$12$abcdefghijklmnopqrstuv"],
)  # fmt: skip
def test_a_password_file_with_a_bad_line_is_refused_by_its_number(text: str) -> None:
    good = CountingHasher().hash("x")
    with pytest.raises(FileBroken, match=r"^line \d: "):
        parse_passwords("# comment\n\n" + text.replace("{0}", good))


def test_a_written_file_is_private_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "passwd"
    path.parent.mkdir()
    path.write_text("# old\n")
    path.chmod(0o644)
    change_passwords(path, lambda users: users.update(ann=CountingHasher().hash("x")))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert set(os.listdir(path.parent)) == {"passwd", "passwd.lock"}
    before = path.read_text()
    with pytest.raises(ZeroDivisionError):
        change_passwords(path, lambda users: users.update(bob=str(1 / 0)))
    assert path.read_text() == before


def test_writers_wait_for_one_another_and_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "passwd"
    hashed = CountingHasher().hash("x")

    def add(name: str) -> None:
        change_passwords(path, lambda users: users.update({name: hashed}))

    with writing(path):
        threads = [threading.Thread(target=add, args=(f"u{number}",)) for number in range(8)]
        for thread in threads:
            thread.start()
        assert not path.exists()
    for thread in threads:
        thread.join()
    assert len(parse_passwords(path.read_text())) == 8


def test_the_product_hashes_as_owasp_says() -> None:
    assert owasp_hasher().hash("x").startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert accounts_module.PROVED_S == 60
