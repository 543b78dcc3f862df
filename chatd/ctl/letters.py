"""chatctl dead: the batches that could not be worked off: list, show, put back to their shard, drop."""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any, Final

from brokerd.log_values import clean_text
from brokerd.ports import LinkDown
from brokerd.support_ports import DeadLetter, Hop, HopKind, Verdict, Walked
from chatd.config import ChatConfig
from chatd.ctl import Refused, hint, say
from chatd.ctl.entries import code_name, known
from chatd.ctl.times import utc
from chatd.stores import open_dead_letters, open_records, waiting_returns
from protocol.envelope import (
    AckPost,
    EntryPost,
    Post,
    PostKind,
    SignalPost,
    TroublePost,
    Undecodable,
    pack_batch,
    unpack_posts,
)
from protocol.names import message_id
from protocol.wire import REF_MAX, Type

HANDLE_BYTES: Final = 6
RENEWED: Final = b"r"  # begins the key of an entry that is put back as a new one
HEX_BYTES_MAX: Final = 512  # that `show` prints without --all
HEX_LINE_BYTES: Final = 16
RETURN_S_MAX: Final = 5.0  # how long a running embedded server may take to fetch what was put back
POLL_S: Final = 0.1


def handle(letter: DeadLetter) -> str:
    """What a letter is called by: it stays the same wherever the letter lies."""
    digest = blake2b(f"{letter.shard} {letter.at_ms} ".encode() + letter.body, digest_size=HANDLE_BYTES)
    return digest.hexdigest()


def list_letters(config: ChatConfig, options: argparse.Namespace) -> None:
    """chatctl dead list"""
    rows: list[dict[str, Any]] = []

    def keep(letter: DeadLetter) -> Verdict:
        rows.append(row_of(letter))
        return Verdict.KEEP

    walked = _walk(config, keep)
    if options.json:
        say(json.dumps(rows))
    else:
        for row in rows:
            shard = row["shard"] if row["shard"] >= 0 else "?"
            posts = (
                "undecodable" if row["posts"] is None else "1 post" if row["posts"] == 1 else f"{row['posts']} posts"
            )
            say(f"{row['letter']}  shard {shard}  {utc(row['at_ms'])}  {row['bytes']} bytes  {posts}  {row['reason']}")
        if not rows:
            hint("there are no dead letters")
    _say_more(walked)


def show_letter(config: ChatConfig, options: argparse.Namespace) -> None:
    """chatctl dead show"""
    found: list[DeadLetter] = []

    def keep(letter: DeadLetter) -> Verdict:
        if handle(letter) == options.letter and not found:
            found.append(letter)
        return Verdict.KEEP

    _walk(config, keep)
    if not found:
        raise Refused(f"there is no dead letter {options.letter}")
    [letter] = found
    row = row_of(letter)
    posts = _posts(letter)
    told = [_post(post) for post in posts] if posts is not None else None
    if options.json:
        say(json.dumps({**row, "contents": told, "hex": letter.body.hex() if told is None else None}))
        return
    say(f"{row['letter']}: shard {row['shard']}, {utc(row['at_ms'])}, {row['bytes']} bytes\n  {row['reason']}")
    for number, post in enumerate(told or (), 1):
        say(f"  {number}. " + "  ".join(f"{name} {value}" for name, value in post.items() if value not in ("", 0)))
    if told is None:
        for line in _hex_lines(letter.body if options.all else letter.body[:HEX_BYTES_MAX]):
            say(f"  {line}")
        if len(letter.body) > HEX_BYTES_MAX and not options.all:
            hint(f"{len(letter.body) - HEX_BYTES_MAX} bytes more with --all")


def requeue_letters(config: ChatConfig, options: argparse.Namespace) -> None:
    """chatctl dead requeue: back to the shard. What was saved before is told apart as a repeat; with --as-new it is not."""
    done = _act(config, options, Verdict.REQUEUE, HopKind.REQUEUED)
    for letter in done:
        say(f"{handle(letter)} was put back to shard {letter.shard}")
    end_s = time.monotonic() + RETURN_S_MAX
    while done and waiting_returns(config):
        if time.monotonic() > end_s:
            hint("chatd has not taken it yet: it does when it runs")
            break
        time.sleep(POLL_S)


def drop_letters(config: ChatConfig, options: argparse.Namespace) -> None:
    """chatctl dead drop: thrown away, for good."""
    for letter in _act(config, options, Verdict.DROP, HopKind.DROPPED):
        say(f"{handle(letter)} was dropped")


async def letters_with(config: ChatConfig, id_: bytes) -> list[str]:
    """The letters in which message `id_` lies. Raises LinkDown."""
    found: list[str] = []

    def keep(letter: DeadLetter) -> Verdict:
        if id_ in letter.body:  # an id stands in a body as it is, whatever is wrong round it
            found.append(handle(letter))
        return Verdict.KEEP

    await open_dead_letters(config).walk(keep)
    return found


# --- the walk


def _walk(config: ChatConfig, decide: Any) -> Walked:
    return asyncio.run(open_dead_letters(config).walk(decide))


def renewed(letter: DeadLetter) -> DeadLetter:
    """The letter with a key of its own for each entry instead of its cid: later ones of its sender may have been saved.

    The key is made of the old numbers, so that an entry is saved once however often this is done.
    """
    posts = [
        post._replace(origin=RENEWED + message_id(post.origin, post.cid), cid=0, prev=0)
        if isinstance(post, EntryPost)
        and isinstance(post.origin, bytes)
        and isinstance(post.cid, int)
        and 0 < post.cid <= REF_MAX
        else post
        for post in _posts(letter) or ()
    ]
    return letter._replace(body=pack_batch("chatctl", posts))


def _act(config: ChatConfig, options: argparse.Namespace, verdict: Verdict, kind: HopKind) -> list[DeadLetter]:
    """Do it with the letters that were named, or with all; those it was done with."""
    if bool(options.letters) == options.all:
        raise Refused("name the letters, or say --all")
    wanted, done, lost = set(options.letters), [], []

    def decide(letter: DeadLetter) -> Verdict | DeadLetter:
        if not options.all and handle(letter) not in wanted:
            return Verdict.KEEP
        if verdict is Verdict.REQUEUE and not 0 <= letter.shard < config.shards:
            lost.append(letter)
            return Verdict.KEEP
        done.append(letter)
        return renewed(letter) if getattr(options, "as_new", False) and _posts(letter) else verdict

    walked = _walk(config, decide)
    _note(config, done, kind)
    missing = sorted(wanted - {handle(letter) for letter in done + lost})
    problems = [f"there is no dead letter {name}" for name in missing]
    problems += [f"{handle(letter)} stays: it has no shard that there is (0 to {config.shards - 1})" for letter in lost]
    _say_more(walked)
    if problems and not done:
        raise Refused("; ".join(problems))
    for problem in problems:
        hint(problem)
    if not done:
        hint("there are no dead letters")
    return done


def _note(config: ChatConfig, letters: list[DeadLetter], kind: HopKind) -> None:
    """Into the traces of the messages that lie in them; as far as they can be read, and the traces reached."""
    now_ms = time.time_ns() // 1_000_000
    hops = [
        Hop(bytes.fromhex(told.id), now_ms, int(kind), "chatctl", post.to, seq=letter.shard)
        for letter in letters
        for post in _posts(letter) or ()
        if isinstance(post, EntryPost) and post.type == Type.DELIVER and (told := known(post.type, post.body)).id
    ]

    async def add() -> None:
        async with open_records(config) as records:
            await records.traces.add(hops)

    if hops:
        try:
            asyncio.run(add())
        except LinkDown as down:
            hint(f"it was done, but not noted in the traces: {down}")


def _say_more(walked: Walked) -> None:
    if walked.has_more:
        hint(f"there are more than these {walked.shown}: do it again when these are gone")


# --- what a letter says


def _posts(letter: DeadLetter) -> list[Post] | None:
    try:
        return unpack_posts(letter.body)[1]
    except Undecodable:
        return None


def row_of(letter: DeadLetter) -> dict[str, Any]:
    """What the list shows of it."""
    posts = _posts(letter)
    return {
        "letter": handle(letter),
        "shard": letter.shard,
        "at_ms": letter.at_ms,
        "bytes": len(letter.body),
        "posts": len(posts) if posts is not None else None,
        "reason": clean_text(letter.reason),
    }


def _post(post: Post) -> dict[str, Any]:
    """A post without its payload."""
    kind = PostKind(post.kind).name
    if isinstance(post, EntryPost):
        told = known(post.type, post.body) if isinstance(post.type, int) and isinstance(post.body, bytes) else None
        expires = utc(post.expires_ms) if isinstance(post.expires_ms, int) else repr(post.expires_ms)
        what = {name: value for name, value in told._asdict().items() if name != "since_ms"} if told else {}
        return {"kind": kind, "to": post.to, "cid": post.cid, **what, "expires": expires}
    if isinstance(post, SignalPost):
        return {"kind": kind, "to": post.to, "bytes": len(post.body)}
    if isinstance(post, AckPost):
        return {"kind": kind, "user": post.user, "device": post.device, "seq": post.seq}
    if isinstance(post, TroublePost):
        return {"kind": kind, "user": post.user, "device": post.device, "reason": code_name(post.reason)}
    return {"kind": kind, "user": post.user}


def _hex_lines(body: bytes) -> Iterator[str]:
    for at in range(0, len(body), HEX_LINE_BYTES):
        part = body[at : at + HEX_LINE_BYTES]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        yield f"{at:06x}  {part.hex(' '):47}  {text}"
