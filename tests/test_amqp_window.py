"""The window of unconfirmed posts: who is settled by which confirm, in any order of confirms."""

from __future__ import annotations

import asyncio
import random

from brokerd.links.amqp_window import OpenPost, Window


def filled(count: int, *, posts_max: int = 1000) -> tuple[Window, list[OpenPost]]:
    loop = asyncio.get_running_loop()
    window = Window(posts_max, 1_000_000)
    posts = [OpenPost("q", b"", b"%03d" % number, loop.create_future()) for number in range(count)]
    assert [window.add(post) for post in posts] == list(range(1, count + 1))
    return window, posts


async def test_a_confirm_settles_its_own_post_only() -> None:
    window, posts = filled(3)
    assert window.settle(2, False) == [posts[1]]
    assert window.settle(2, False) == []
    assert (window.open_posts, window.open_bytes) == (2, 6)


async def test_a_multiple_confirm_settles_all_open_ones_up_to_it() -> None:
    window, posts = filled(5)
    window.settle(2, False)
    assert window.settle(4, True) == [posts[0], posts[2], posts[3]]
    assert window.settle(4, True) == []
    assert window.settle(5, False) == [posts[4]]
    assert window.open_posts == window.open_bytes == 0


async def test_a_tag_that_was_never_given_settles_nothing() -> None:
    window, _ = filled(2)
    assert [window.settle(tag, multiple) for tag in (0, 3, 99) for multiple in (False, True)] == [[]] * 6
    assert window.open_posts == 2


async def test_after_a_reconnect_the_open_ones_are_numbered_from_one_in_order() -> None:
    window, posts = filled(5)
    window.settle(1, False)
    window.settle(3, False)
    posts[1].refusal = "the queue was gone"
    assert list(window.renumber()) == [(1, posts[1]), (2, posts[3]), (3, posts[4])]
    assert posts[1].refusal == ""
    assert window.add(OpenPost("q", b"", b"", asyncio.get_running_loop().create_future())) == 4
    assert window.settle(2, True) == [posts[1], posts[3]]


async def test_it_is_full_at_either_bound() -> None:
    window, _ = filled(4, posts_max=4)
    assert window.is_full
    window.settle(3, False)
    assert not window.is_full
    small = Window(10, 3)
    small.add(OpenPost("q", b"", b"123", asyncio.get_running_loop().create_future()))
    assert small.is_full


async def test_confirms_in_any_order_settle_every_post_once() -> None:
    dice = random.Random(11)
    for _ in range(300):
        window, posts = filled(20)
        settled: list[OpenPost] = []
        while window.open_posts:
            settled += window.settle(dice.randint(1, 20), dice.random() < 0.2)
        assert sorted(settled, key=posts.index) == posts
        assert window.open_bytes == 0


async def test_cleared_it_gives_every_open_post() -> None:
    window, posts = filled(3)
    window.settle(2, False)
    assert window.clear() == [posts[0], posts[2]]
    assert window.clear() == []
