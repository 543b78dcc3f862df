"""The ledger finds each broken promise; a ledger that finds nothing would make every run of chaos good."""

from __future__ import annotations

import pytest

from protocol.messages import Deliver, Gone, Receipt, Send, Sent
from protocol.names import device_tag, message_id
from protocol.wire import Flag, Status
from tests.chaos.ledger import DeviceName, Ledger, Message
from tests.chaos.nemesis import PACK, schedule

ANN, BOB, TABLET = DeviceName("ann", "phone"), DeviceName("bob", "phone"), DeviceName("bob", "tablet")


@pytest.fixture
def ledger() -> Ledger:
    return Ledger([ANN, BOB, TABLET])


def post(ledger: Ledger, cid: int, flags: int = 0) -> Message:
    message = ledger.posted(ANN, f"ann#{cid}", Send(0, flags, "bob", b""))
    ledger.accepted(message, message_id(device_tag("ann", "phone"), cid))
    return message


def deliver(seq: int, cid: int, sender: str = "ann") -> Deliver:
    return Deliver(seq, 0, sender, message_id(device_tag("ann", "phone"), cid), 0, b"ann#%d\0" % cid)


def kinds(ledger: Ledger) -> list[str]:
    return [breach.kind for breach in ledger.breaches]


def test_a_message_is_finished_when_every_device_saw_it_and_its_end_was_told(ledger: Ledger) -> None:
    message = post(ledger, 1, Flag.RECEIPT)
    ledger.saw(BOB, deliver(1, 1))
    assert ledger.unfinished() == {"ann#1": ["the sight of bob/tablet", "its end told to ann/phone"]}
    ledger.saw(TABLET, deliver(1, 1))
    ledger.saw(ANN, Receipt(1, 0, "bob", Status.DELIVERED, (message.id,), 0, 0))
    assert ledger.unfinished() == {}
    assert kinds(ledger) == []


def test_a_second_sight_is_a_duplicate_also_under_another_id(ledger: Ledger) -> None:
    post(ledger, 1)
    ledger.saw(BOB, deliver(1, 1))
    ledger.saw(BOB, deliver(2, 2)._replace(payload=b"ann#1\0"))
    assert kinds(ledger) == ["duplicate", "phantom"]


def test_an_order_other_than_that_of_the_sender_is_found(ledger: Ledger) -> None:
    post(ledger, 1)
    post(ledger, 2)
    ledger.saw(BOB, deliver(1, 2))
    ledger.saw(BOB, deliver(2, 1))
    assert kinds(ledger) == ["misordered"]


def test_two_devices_that_see_another_thing_at_one_place_are_found(ledger: Ledger) -> None:
    post(ledger, 1)
    post(ledger, 2)
    ledger.saw(BOB, deliver(1, 1))
    ledger.saw(TABLET, deliver(1, 2))
    assert kinds(ledger) == ["misordered"]


def test_a_seq_that_is_left_out_is_a_gap_and_gone_is_not(ledger: Ledger) -> None:
    for cid in (1, 2, 3):
        post(ledger, cid)
    ledger.saw(BOB, deliver(1, 1))
    ledger.saw(BOB, Gone(2, 0, 4, 0))
    ledger.saw(BOB, deliver(5, 2))
    assert kinds(ledger) == []
    ledger.saw(BOB, deliver(7, 3))
    assert kinds(ledger) == ["gap"]


def test_what_nobody_sent_or_somebody_else_sent_is_a_phantom(ledger: Ledger) -> None:
    ledger.saw(BOB, deliver(1, 9))
    post(ledger, 1)
    ledger.saw(BOB, deliver(2, 1, sender="eve"))
    ledger.saw(ANN, Sent(1, 0, "eve", message_id(device_tag("ann", "phone"), 1), 0, b"ann#1\0"))
    assert kinds(ledger) == ["phantom"] * 3


def test_a_receipt_before_anybody_saw_the_message_is_early(ledger: Ledger) -> None:
    message = post(ledger, 1, Flag.RECEIPT)
    ledger.saw(ANN, Receipt(1, 0, "bob", Status.DELIVERED, (message.id,), 0, 0))
    assert kinds(ledger) == ["early"]


def test_an_end_told_before_accepted_came_is_no_phantom_unless_nobody_sent_it(ledger: Ledger) -> None:
    message = ledger.posted(ANN, "ann#1", Send(0, Flag.RECEIPT, "bob", b"", 1))
    id_ = message_id(device_tag("ann", "phone"), 1)
    ledger.saw(ANN, Receipt(1, 0, "bob", Status.EXPIRED, (id_, b"x" * 16), 0, 0))
    ledger.accepted(message, id_)
    assert ledger.unfinished() == {}
    assert kinds(ledger) == []
    assert [text.split(",")[0] for text in ledger.strangers()] == [
        f"ann/phone was told status 3 of {(b'x' * 16).hex()}"
    ]


def test_an_end_that_the_message_did_not_deserve_is_a_loss(ledger: Ledger) -> None:
    message = post(ledger, 1)
    ledger.saw(ANN, Receipt(1, 0, "bob", Status.EXPIRED, (message.id,), 0, 0))
    ledger.saw(ANN, Receipt(2, 0, "bob", Status.FAILED, (message.id,), 0, 0))
    assert kinds(ledger) == ["lost", "lost"]


def test_a_trace_tells_the_life_of_a_message(ledger: Ledger) -> None:
    post(ledger, 1)
    ledger.saw(BOB, deliver(7, 1))
    text = "\n".join(ledger.trace("ann#1"))
    assert "posted by ann/phone to bob" in text
    assert "seen by bob/phone, seq 7" in text


def test_a_seed_gives_the_same_faults_and_a_minute_has_every_kind() -> None:
    faults = schedule(7, 120.0, 3, 2)
    assert faults == schedule(7, 120.0, 3, 2)
    assert faults != schedule(8, 120.0, 3, 2)
    assert {fault.what for fault in faults} >= {what for what, _ in PACK}
    assert all(fault.at_s + fault.hold_s <= 120.0 for fault in faults)
