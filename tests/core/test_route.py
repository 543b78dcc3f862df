"""Routing: what a batch asks of the store, and the parcels and bounces that follow from its answer."""

from __future__ import annotations

from brokerd.ports import FULL, NO_USER, REPEAT, Ack, Append, Appended, Entry, Owed, Seat
from brokerd.route import (
    Handed,
    Plan,
    Routed,
    delivered_posts,
    expired_posts,
    plan,
    route,
    sender_of,
)
from protocol.codec import decode, encode_body
from protocol.envelope import (
    AckPost,
    EntryPost,
    FramesParcel,
    FullParcel,
    HeadParcel,
    ParcelKind,
    PostKind,
    SignalParcel,
    SignalPost,
    SweepPost,
    TroublePost,
)
from protocol.errors import Code
from protocol.messages import Deliver, Receipt, Signalled
from protocol.names import device_tag, message_id
from protocol.wire import RECEIPT_IDS_MAX, TTL_S_MAX, Flag, Status, Type
from tests.core.peers import NOW_MS, messages_of

TAG = device_tag("ann", "laptop")
PHONE, TABLET, AWAY = Seat("phone", "n1", "1.1"), Seat("tablet", "n1", "2.1"), Seat("desk", "n2", "1.1")
EXPIRES_MS = NOW_MS + TTL_S_MAX * 1000


def body(cid: int, sender: str = "ann") -> bytes:
    return encode_body(Deliver(0, 0, sender, message_id(TAG, cid), NOW_MS, b"payload %d" % cid))


def post(cid: int, to: str = "bob", type_: int = Type.DELIVER, flags: int = 0) -> EntryPost:
    return EntryPost(PostKind.ENTRY, to, TAG, cid, type_, flags, 9, body(cid))


def entry(cid: int) -> Entry:
    return Entry(TAG, cid, Type.DELIVER, 0, 9, body(cid))


def delivered(seq: int, cid: int, flags: int = 0) -> Deliver:
    return Deliver(seq, flags, "ann", message_id(TAG, cid), NOW_MS, b"payload %d" % cid)


def routed(results: list[int], head: int, seats: list[Seat], *, type_: int = Type.DELIVER, flags: int = 0) -> Routed:
    work = plan([post(cid, type_=type_, flags=flags) for cid in range(1, len(results) + 1)])
    return route(work, [Appended(results, head, seats)], NOW_MS)


# --- the plan -----------------------------------------------------------------------------------------------------


def test_posts_are_sorted_by_what_they_ask_and_entries_stay_in_order_per_user() -> None:
    trouble, signal = (
        TroublePost(PostKind.TROUBLE, "bob", "phone", 106, 5),
        SignalPost(PostKind.SIGNAL, "eve", Type.SIGNALLED, b"s"),
    )
    work = plan(
        [post(1), post(2, "cid"), trouble, signal, post(3), SweepPost(PostKind.SWEEP, "bob"), signal]
    )  # fmt: skip
    assert work == Plan(
        appends=[
            Append("bob", [entry(1), entry(3)]),
            Append("cid", [entry(2)]),
            Append("eve", ()),  # only looked up
        ],
        signals={"eve": [signal, signal]},
        troubles=[trouble],
        sweeps={"bob"},
    )


def test_a_user_with_entries_and_signals_is_asked_for_once() -> None:
    work = plan([SignalPost(PostKind.SIGNAL, "bob", Type.SIGNALLED, b"s"), post(1)])
    assert work.appends == [Append("bob", [entry(1)])]


def test_acknowledgements_of_one_device_are_folded_into_the_furthest() -> None:
    acks = [("bob", "phone", 4), ("bob", "tablet", 2), ("bob", "phone", 3)]
    work = plan(AckPost(PostKind.ACK, *ack) for ack in acks)
    assert work.acks == [Ack("bob", "phone", 4, 0), Ack("bob", "tablet", 2, 0)]


def test_acknowledgements_of_a_queue_that_was_made_anew_are_not_folded_into_those_of_the_new_one() -> None:
    work = plan(
        AckPost(PostKind.ACK, "bob", "phone", seq, generation) for seq, generation in ((9, b"old"), (2, b"new"))
    )
    assert work.acks == [Ack("bob", "phone", 9, 0, b"old"), Ack("bob", "phone", 2, 0, b"new")]


# --- frames -------------------------------------------------------------------------------------------------------


def test_what_was_stored_becomes_the_very_frames_that_a_client_reads() -> None:
    out = routed([7, 8], 8, [PHONE], flags=Flag.RECEIPT)
    [parcel] = out.parcels["n1"]
    assert isinstance(parcel, FramesParcel)
    assert parcel[:4] == (ParcelKind.FRAMES, "bob", 7, 8)
    assert messages_of(parcel.frames) == [delivered(7, 1, Flag.RECEIPT), delivered(8, 2, Flag.RECEIPT)]
    assert (out.stored, out.repeats, out.bounces) == (2, 0, [])


def test_several_devices_on_one_node_get_one_parcel_and_each_node_its_own() -> None:
    out = routed([1], 1, [PHONE, AWAY, TABLET])
    assert {node: len(parcels) for node, parcels in out.parcels.items()} == {"n1": 1, "n2": 1}
    assert out.handed == {"n1": [Handed("bob", PHONE), Handed("bob", TABLET)], "n2": [Handed("bob", AWAY)]}


def test_nobody_there_means_no_parcel_and_nothing_else_changes() -> None:
    out = routed([1], 1, [])
    assert (out.parcels, out.handed, out.stored) == ({}, {}, 1)


def test_repeats_alone_become_a_nudge_for_whoever_missed_them() -> None:
    out = routed([REPEAT, REPEAT], 12, [PHONE])
    assert out.parcels == {"n1": [HeadParcel(ParcelKind.HEAD, "bob", 12)]}
    assert (out.stored, out.repeats) == (0, 2)


def test_repeats_beside_something_new_need_no_nudge() -> None:
    out = routed([REPEAT, 13], 13, [PHONE])
    [parcel] = out.parcels["n1"]
    assert isinstance(parcel, FramesParcel)
    assert messages_of(parcel.frames) == [delivered(13, 2)]


def test_a_repeat_for_a_queue_that_is_empty_nudges_nobody() -> None:
    assert routed([REPEAT], 0, [PHONE]).parcels == {}


def test_signals_go_behind_the_messages_of_their_batch_as_frames_without_a_seq() -> None:
    signalled = Signalled(0, 0, "ann", b"typing")
    signal = SignalPost(PostKind.SIGNAL, "bob", Type.SIGNALLED, encode_body(signalled))
    out = route(plan([signal, post(1)]), [Appended([1], 1, [PHONE])], NOW_MS)
    frames, ephemeral = out.parcels["n1"]
    assert isinstance(frames, FramesParcel)
    assert isinstance(ephemeral, SignalParcel)
    assert messages_of(ephemeral.frames) == [signalled]


def test_a_signal_for_nobody_goes_nowhere() -> None:
    work = plan([SignalPost(PostKind.SIGNAL, "bob", Type.SIGNALLED, b"s")])
    out = route(work, [Appended([], 3, [])], NOW_MS)
    assert out == Routed()


# --- bounces ------------------------------------------------------------------------------------------------------


def failed(cid: int, reason: Code) -> EntryPost:
    """The bounce of message `cid` to bob, for ann."""
    id_ = message_id(TAG, cid)
    receipt = encode_body(Receipt(0, 0, "bob", int(Status.FAILED), (id_,), NOW_MS, int(reason)))
    return EntryPost(PostKind.ENTRY, "ann", b"s\x04" + id_, 0, Type.RECEIPT, 0, EXPIRES_MS, receipt)


def test_a_message_that_was_not_stored_comes_back_to_its_sender_as_failed_with_the_reason() -> None:
    assert routed([NO_USER], 0, []).bounces == [failed(1, Code.NO_SUCH_USER)]
    assert routed([4, FULL], 4, []).bounces == [failed(2, Code.QUEUE_FULL)]


def test_messages_that_come_back_together_are_told_in_one_receipt_for_each_sender_and_reason() -> None:
    ids = [message_id(TAG, cid) for cid in range(1, RECEIPT_IDS_MAX + 3)]
    work = plan([post(cid) for cid in range(1, len(ids) + 1)] + [post(7)._replace(body=body(7, "cid"))])
    out = route(work, [Appended([FULL] * (len(ids) + 1), 4, [])], NOW_MS)
    told = [(post.to, decode(post.type, 0, 0, post.body)) for post in out.bounces]
    assert [(to, it.ids) for to, it in told if isinstance(it, Receipt)] == [
        ("ann", tuple(ids[:RECEIPT_IDS_MAX])),
        ("ann", tuple(ids[RECEIPT_IDS_MAX:])),
        ("cid", (message_id(TAG, 7),)),
    ]
    assert out.bounced == {Code.QUEUE_FULL: len(ids) + 1}
    assert len({post.origin for post in out.bounces}) == 3


def test_bounces_that_are_cut_otherwise_at_a_repeat_are_no_repeats_of_each_other() -> None:
    work = plan([post(cid) for cid in (1, 2, 3)])
    [all_three] = route(work, [Appended([FULL] * 3, 4, [])], NOW_MS).bounces
    [first_two] = route(work, [Appended([FULL, FULL, 5], 5, [])], NOW_MS).bounces
    assert all_three.origin != first_two.origin, "else the third would never be told"


def test_a_bounce_has_one_name_however_often_it_is_made() -> None:
    first, second = routed([FULL], 4, []).bounces + routed([FULL], 9, []).bounces
    assert (first.origin, first.cid) == (second.origin, second.cid)


def test_a_receipt_that_does_not_fit_is_dropped_and_never_bounced() -> None:
    out = routed([FULL], 4, [], type_=Type.RECEIPT)
    assert (out.bounces, out.dropped) == ([], 1)


# --- receipts -----------------------------------------------------------------------------------------------------


def test_the_sender_and_the_id_are_read_out_of_a_body() -> None:
    assert sender_of(body(3, "cid")) == ("cid", message_id(TAG, 3))


def test_delivered_is_told_once_a_sender_with_all_its_ids_numbered_by_the_last_seq() -> None:
    owed = [Owed(5, 1, body(1)), Owed(6, 1, body(2, "cid")), Owed(8, 1, body(3))]
    ours, theirs = delivered_posts("bob", owed, NOW_MS, b"g" * 8)
    ids = (message_id(TAG, 1), message_id(TAG, 3))
    receipt = encode_body(Receipt(0, 0, "bob", int(Status.DELIVERED), ids, NOW_MS, 0))
    origin = device_tag("bob", "#" + (b"g" * 8).hex())
    assert ours == EntryPost(PostKind.ENTRY, "ann", origin, 8, Type.RECEIPT, 0, EXPIRES_MS, receipt)
    assert (theirs.to, theirs.cid) == ("cid", 6)


def test_more_ids_than_a_receipt_may_hold_are_told_in_several_that_are_numbered_in_order() -> None:
    owed = [Owed(seq, 1, body(seq)) for seq in range(1, RECEIPT_IDS_MAX + 3)]
    posts = delivered_posts("bob", owed, NOW_MS, b"g" * 8)
    assert [post.cid for post in posts] == [RECEIPT_IDS_MAX, RECEIPT_IDS_MAX + 2]


def test_expired_is_told_to_those_who_asked() -> None:
    owed = [Owed(5, Flag.RECEIPT, body(1)), Owed(6, Flag.READ_RECEIPT, body(2))]
    [told] = expired_posts("bob", owed, NOW_MS)
    id_ = message_id(TAG, 1)
    receipt = encode_body(Receipt(0, 0, "bob", int(Status.EXPIRED), (id_,), NOW_MS, int(Code.TTL_PASSED)))
    assert told == EntryPost(PostKind.ENTRY, "ann", b"s\x03" + id_, 0, Type.RECEIPT, 0, EXPIRES_MS, receipt)


def test_a_bounce_tells_the_nodes_of_its_sender_which_queue_is_full_also_when_it_finds_no_room_itself() -> None:
    [bounce] = routed([FULL], 4, []).bounces
    work = plan([bounce])
    for result in (1, FULL):
        out = route(work, [Appended([result], 1, [Seat("phone", "n1", "s")])], NOW_MS)
        assert FullParcel(ParcelKind.FULL, "ann", "bob") in out.parcels["n1"]
    [other] = routed([NO_USER], 4, []).bounces
    out = route(plan([other]), [Appended([1], 1, [Seat("phone", "n1", "s")])], NOW_MS)
    assert not any(isinstance(parcel, FullParcel) for parcel in out.parcels["n1"])
