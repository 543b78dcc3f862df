from __future__ import annotations

import pytest

from chatd.terminal import state
from chatd.terminal.signals import TYPING_SHOWN_S, pack_typing, typing_of
from chatd.terminal.state import Chat, Tick
from protocol.messages import Deliver, Receipt
from protocol.wire import Flag, Status


def an_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


def a_message(sender: str, number: int, flags: int = Flag.READ_RECEIPT) -> Deliver:
    return Deliver(number, flags, sender, an_id(number), 0, b"x")


def a_receipt(status: Status, *numbers: int) -> Receipt:
    return Receipt(1, 0, "bob", status, tuple(map(an_id, numbers)), 0, 0)


def test_a_tick_only_ever_goes_on() -> None:
    chat = Chat("ann")
    own = chat.say("bob", "hello")
    assert (own.tick, chat.waiting) == (Tick.WAITING, 1)
    chat.accept(own, an_id(1))
    assert (own.tick, chat.waiting) == (Tick.ACCEPTED, 0)
    assert chat.hear_receipt(a_receipt(Status.READ, 1)) == [own]
    assert chat.hear_receipt(a_receipt(Status.DELIVERED, 1)) == []
    assert own.tick is Tick.READ


def test_a_receipt_that_overtakes_accepted_is_not_lost() -> None:
    chat = Chat("ann")
    own = chat.say("bob", "hello")
    assert chat.hear_receipt(a_receipt(Status.DELIVERED, 1)) == []
    chat.accept(own, an_id(1))
    assert own.tick is Tick.DELIVERED


def test_a_status_of_a_newer_server_is_ignored() -> None:
    assert Chat("ann").hear_receipt(a_receipt(9, 1)) == []  # type: ignore[arg-type]


def test_what_the_peer_sends_is_read_at_once_and_what_others_send_when_we_turn_to_them() -> None:
    chat = Chat("ann")
    chat.turn_to("bob")
    assert chat.hear(a_message("bob", 1)) == [an_id(1)]
    assert chat.hear(a_message("bob", 2, flags=0)) == []
    assert chat.hear(a_message("carol", 3)) == []
    assert chat.hear(a_message("carol", 4, flags=0)) == []
    assert chat.unread_count == 2
    assert chat.turn_to("carol") == [an_id(3)]
    assert chat.unread_count == 0


def test_what_another_device_read_is_not_unread_here() -> None:
    chat = Chat("ann")
    chat.hear(a_message("carol", 1))
    chat.hear(a_message("carol", 2))
    chat.read_elsewhere("carol", (an_id(1),))
    assert chat.unread_count == 1
    chat.read_elsewhere("carol", (an_id(2),))
    assert chat.unread == {}
    chat.read_elsewhere("dave", (an_id(2),))


def test_typing_ends_by_itself_by_word_and_by_a_message() -> None:
    chat = Chat("ann")
    chat.hear_typing("bob", True, 10.0)
    assert chat.typing(10.0 + TYPING_SHOWN_S - 0.1) == ["bob"]
    assert chat.typing(10.0 + TYPING_SHOWN_S) == []
    chat.hear_typing("bob", True, 20.0)
    chat.hear_typing("bob", False, 21.0)
    assert chat.typing(21.0) == []
    chat.hear_typing("bob", True, 22.0)
    chat.hear(a_message("bob", 1))
    assert chat.typing(22.0) == []


def test_nothing_grows_without_end() -> None:
    chat = Chat("ann")
    for number in range(3000):
        chat.accept(chat.say(f"user{number}", "x"), an_id(number))
        chat.hear_typing(f"user{number}", True, 0.0)
        chat.hear_receipt(a_receipt(Status.DELIVERED, 10_000 + number))
        chat.hear(a_message("carol", number))
    assert len(chat.known) == state.KNOWN_MAX
    assert len(chat._own) == state.OWN_MAX
    assert len(chat._early) == state.EARLY_MAX
    assert len(chat.typing(0.0)) <= state.TYPING_MAX
    assert len(chat.unread["carol"].ids) == state.UNREAD_IDS_MAX


@pytest.mark.parametrize("is_typing", [True, False])
def test_the_typing_signal_says_what_was_packed(is_typing: bool) -> None:
    assert typing_of(pack_typing(is_typing)) is is_typing


@pytest.mark.parametrize(
    "payload", [b"", b"typing", b"\x81\xa6typing\x01", b"\xc3", b"\x91\xc3", b"\x81\xc3\xc3", bytes(2000), b"\xff" * 10]
)
def test_a_signal_that_is_not_ours_says_nothing(payload: bytes) -> None:
    assert typing_of(payload) is None
