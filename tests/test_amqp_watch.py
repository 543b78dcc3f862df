"""Confirms that do not come: all of them, or one that the others overtake."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from brokerd.links.amqp_watch import ConfirmWatch
from brokerd.links.amqp_window import OpenPost, Window

CONFIRM_S = 0.5
OVERTAKEN_S = 0.1


class Watched:
    """A window of three open posts and what its watch said."""

    def __init__(self) -> None:
        self.window = Window(10, 1_000)
        loop = asyncio.get_running_loop()
        self.posts = [OpenPost("q", b"", b"x", loop.create_future()) for _ in range(3)]
        for post in self.posts:
            self.window.add(post)
        self.overtaken: list[float] = []
        self.silent: list[float] = []
        self.watch = ConfirmWatch(
            self.window, CONFIRM_S,
            lambda: self.overtaken.append(loop.time()), lambda: self.silent.append(loop.time()),
            overtaken_s_max=OVERTAKEN_S,
        )  # fmt: skip
        self.watch.begin()


async def until(is_so: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not is_so():  # noqa: ASYNC110 - seen from outside, there is no event
            await asyncio.sleep(0.01)


async def test_a_post_that_later_ones_overtake_is_told_of_again_and_again_but_ever_more_seldom() -> None:
    watched = Watched()
    watched.window.settle(2, False)
    begun_s = asyncio.get_running_loop().time()
    await until(lambda: watched.overtaken)
    assert watched.overtaken[0] - begun_s >= OVERTAKEN_S
    assert watched.silent == []
    watched.watch.restart()
    await until(lambda: len(watched.overtaken) == 2 or watched.silent)
    assert watched.overtaken[1] - watched.overtaken[0] >= 2 * OVERTAKEN_S
    watched.watch.stop()


async def test_posts_that_all_wait_are_no_reason_for_a_new_channel_but_for_another_host() -> None:
    watched = Watched()
    await until(lambda: watched.silent)
    assert watched.overtaken == []
    watched.watch.stop()


async def test_a_window_with_nothing_open_is_not_watched() -> None:
    watched = Watched()
    watched.window.clear()
    quiet = Watched()
    await until(lambda: quiet.silent)  # it was begun later, so the first one had its time
    assert (watched.overtaken, watched.silent) == ([], [])
    quiet.watch.stop()
