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


class Salvage:
    """Of one broker. `work` works off posts and gives its bounces."""

    def __init__(self, work: Work, store: SentQueue, clock_ms: Callable[[], int], log: Any) -> None:
        self._work, self._store = work, store
        self._clock_ms, self._log = clock_ms, log

    async def run(self, posts: Sequence[Post]) -> tuple[list[EntryPost], list[Bad]]:
        """Work off what can be: the bounces of that, and what failed alone. Raises LinkDown."""
        bad: list[Bad] = []
        return await self._in_halves(posts, bad), bad

    async def _in_halves(self, posts: Sequence[Post], bad: list[Bad]) -> list[EntryPost]:
        try:
            return await self._work(posts)
        except LinkDown:
            raise
        except Exception as fault:
            if len(posts) == 1:
                await self._keep_open(posts[0])
                bad.append(Bad(posts[0], fault))
                return []
        half = len(posts) // 2
        first = await self._in_halves(posts[:half], bad)
        return first + await self._in_halves(posts[half:], bad)

    async def _keep_open(self, post: Post) -> None:
        """Later posts of the same sender will pass this one: its cid stays open (before they do), so that it can still be
        saved when an operator puts it back."""
        if isinstance(post, EntryPost):
            try:
                await self._store.leave_open(post.to, post.origin, post.cid, self._clock_ms())
            except LinkDown:
                raise
            except Exception as fault:  # what is wrong with the post may be its very cid
                self._log.info("dead_letter_not_kept_open", error=str(fault))


def remainder(delivery: Delivery, posts: Sequence[Post], bad: Sequence[Bad], by: str) -> Delivery:
    """The delivery with nothing in it but what is bad."""
    if len(bad) == len(posts):
        return delivery
    return delivery._replace(body=pack_batch(by, [post for post, _ in bad]))


def told(bad: Sequence[Bad]) -> str:
    """The reason for the dead letters: how the first one failed."""
    fault = bad[0].fault
    return f"{type(fault).__name__}: {fault}"
