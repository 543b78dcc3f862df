"""Every play of the folder `plays`, performed on one process alone and on a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.cluster import Cluster
from bench.processes import Chatd
from tests.stories.houses import ClusterHouse, OneHouse
from tests.stories.stage import Stage, WrongLine

PLAYS = {path.stem: path.read_text() for path in sorted((Path(__file__).parent / "plays").glob("*.play"))}


@pytest.mark.parametrize("play", PLAYS)
async def test_the_play_on_one_process(embedded_server: Chatd, play: str) -> None:
    await Stage(OneHouse(embedded_server)).perform(PLAYS[play])


@pytest.mark.cluster
@pytest.mark.parametrize("play", PLAYS)
async def test_the_play_on_a_cluster(cluster: Cluster, play: str) -> None:
    await Stage(ClusterHouse(cluster)).perform(PLAYS[play])


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("Ann sings.", "no such sentence"),
        ('Bob receives "coffee?" from Ann.', "AssertionError"),
        ("Nobody receives anything else.", "AssertionError"),
        ("Bob leaves.\nBob leaves.", "it is not here"),
    ],
)
async def test_a_line_that_does_not_happen_stops_the_play(embedded_server: Chatd, line: str, why: str) -> None:
    begin = 'Ann and Bob are here.\nAnn sends Bob "tea?" as 1.\nAnn is told 1 is accepted.\n'
    with pytest.raises(WrongLine, match=why):
        await Stage(OneHouse(embedded_server)).perform(begin + line)
