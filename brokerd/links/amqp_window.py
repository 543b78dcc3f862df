"""The posts that the broker has not confirmed yet, in order. Pure but for their futures.

A delivery tag is a place in this window, so a confirm finds its post without a search, and one that covers several tags
costs as much as the posts it covers. After a reconnect the open posts close up, and their tags begin at 1 again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator


class OpenPost:
    """A batch on its way to `queue`. `refusal` is why the broker found no place for it, `nacks` how often it said no."""

    __slots__ = ("body", "done", "headers", "nacks", "queue", "refusal")

    def __init__(self, queue: str, headers: bytes, body: bytes, done: asyncio.Future[None]) -> None:
        self.queue, self.headers, self.body, self.done = queue, headers, body, done
        self.refusal = ""
        self.nacks = 0

    def end(self, error: Exception | None) -> None:
        """Answer the poster, who may have gone away."""
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)


class Window:
    """At most `posts_max` open posts of together `bytes_max` bytes; the last one taken may go over the bytes."""

    __slots__ = ("_bytes_max", "_first_tag", "_posts", "_posts_max", "open_bytes", "open_posts")

    def __init__(self, posts_max: int, bytes_max: int) -> None:
        self._posts_max, self._bytes_max = posts_max, bytes_max
        self._posts: deque[OpenPost | None] = deque()  # None: confirmed before one that came earlier
        self._first_tag = 1
        self.open_posts = 0
        self.open_bytes = 0

    @property
    def is_full(self) -> bool:
        """Whether another post would go over a bound."""
        return self.open_posts >= self._posts_max or self.open_bytes >= self._bytes_max

    @property
    def oldest(self) -> OpenPost | None:
        """The post that waits longest."""
        return self._posts[0] if self._posts else None

    @property
    def is_overtaken(self) -> bool:
        """Whether later posts were settled and the oldest was not."""
        return self.open_posts < len(self._posts)

    def add(self, post: OpenPost) -> int:
        """Take a post in; give its delivery tag."""
        self._posts.append(post)
        self.open_posts += 1
        self.open_bytes += len(post.body)
        return self._first_tag + len(self._posts) - 1

    def find(self, tag: int) -> OpenPost | None:
        """The open post of a tag."""
        place = tag - self._first_tag
        return self._posts[place] if 0 <= place < len(self._posts) else None

    def up_to(self, tag: int, multiple: bool) -> list[tuple[int, OpenPost]]:
        """The open post of this tag, or all open ones up to it, with their tags. They stay open."""
        first = self._first_tag if multiple else tag
        found = ((one, self.find(one)) for one in range(first, tag + 1))
        return [(one, post) for one, post in found if post is not None]

    def settle(self, tag: int, multiple: bool) -> list[OpenPost]:
        """Take out the post of this tag, or all open ones up to it; empty for a tag that is not open."""
        posts, place = self._posts, tag - self._first_tag
        if not 0 <= place < len(posts):
            return []
        if multiple or place == 0:
            settled = [post for _ in range(place + 1) if (post := posts.popleft()) is not None]
            self._first_tag = tag + 1
            while posts and posts[0] is None:
                posts.popleft()
                self._first_tag += 1
        else:
            post = posts[place]
            posts[place] = None
            settled = [] if post is None else [post]
        self.open_posts -= len(settled)
        for post in settled:
            self.open_bytes -= len(post.body)
        return settled

    def renumber(self) -> Iterator[tuple[int, OpenPost]]:
        """Begin again on a new channel: the open posts in order, with their new tags 1, 2, 3 …"""
        self._posts = deque(post for post in self._posts if post is not None)
        self._first_tag = 1
        for tag, post in enumerate(tuple(self._posts), 1):
            assert post is not None
            post.refusal = ""
            yield tag, post

    def clear(self) -> list[OpenPost]:
        """Take out every open post."""
        return self.settle(self._first_tag + len(self._posts) - 1, True) if self._posts else []
