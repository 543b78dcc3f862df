"""Finding the posts that nobody can work off: a batch that fails is worked off in halves, and their halves, in order.

What passes is done with; what fails alone is poison, and the rest of its batch (other people's messages) must not share
its fate. Every step is idempotent, so that it may be begun anew when a link was down in between.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from brokerd.ports import Delivery, LinkDown, SentQueue
from protocol.envelope import EntryPost, Post, pack_batch

Work = Callable[[Sequence[Post]], Awaitable[list[EntryPost]]]


class Bad(NamedTuple):
    """A post that failed alone, and how."""

    post: Post
    fault: Exception


async def salvage(posts: Sequence[Post], work: Work, bad: list[Bad]) -> list[EntryPost]:
    """Work off what can be; what `work` gave for it (bounces). What fails alone is then in `bad`. Raises LinkDown."""
    bad.clear()
    return await _in_halves(posts, work, bad)


async def _in_halves(posts: Sequence[Post], work: Work, bad: list[Bad]) -> list[EntryPost]:
    try:
        return await work(posts)
    except LinkDown:
        raise
    except Exception as fault:
        if len(posts) == 1:
            bad.append(Bad(posts[0], fault))
            return []
        half = len(posts) // 2
        first = await _in_halves(posts[:half], work, bad)
        return first + await _in_halves(posts[half:], work, bad)


async def keep_open(bad: Sequence[Bad], store: SentQueue, now_ms: int, log: Any) -> None:
    """Later posts of the same senders will pass these: their cids stay open, so that they can still be saved when an
    operator puts them back. Raises LinkDown."""
    for post, _ in bad:
        if isinstance(post, EntryPost):
            try:
                await store.leave_open(post.to, post.origin, post.cid, now_ms)
            except LinkDown:
                raise
            except Exception as fault:  # what is wrong with the post may be its very cid
                log.info("dead_letter_not_kept_open", error=str(fault))


def remainder(delivery: Delivery, posts: Sequence[Post], bad: Sequence[Bad], by: str) -> Delivery:
    """The delivery with nothing in it but what is bad."""
    if len(bad) == len(posts):
        return delivery
    return delivery._replace(body=pack_batch(by, [post for post, _ in bad]))


def told(bad: Sequence[Bad]) -> str:
    """The reason for the dead letters: how the first one failed."""
    fault = bad[0].fault
    return f"{type(fault).__name__}: {fault}"
