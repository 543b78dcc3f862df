"""An upgrade from a commit to this tree and back, on a real cluster, daemon by daemon while two people talk over it:
`make skew COMMIT=…`. Exit status 1 when a line was lost, doubled, out of order, or its sender not told."""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.cluster import Cluster
from bench.machine import ROOT
from bench.processes import Brokerd, Daemon
from tests.faults.talk import talking

LINES = 100  # said between two steps


@contextmanager
def tree_of(commit: str, folder: Path) -> Iterator[Path]:
    """Its files, beside ours."""
    tree = folder / "tree"
    subprocess.run(["git", "-C", str(ROOT), "worktree", "add", "--detach", str(tree), commit], check=True, capture_output=True)  # fmt: skip
    try:
        yield tree
    finally:
        subprocess.run(["git", "-C", str(ROOT), "worktree", "remove", "--force", str(tree)], check=True)


def make_it(daemon: Daemon, tree: Path, *, is_old: bool) -> None:
    """From its next start on it runs the code of this tree. An older one may not know every setting of today."""
    daemon.env |= {"PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1"}  # or the working directory would come first
    if isinstance(daemon, Brokerd):
        daemon.env.pop("BROKERD_HTTP_PORT", None)
        if not is_old:
            daemon.env["BROKERD_HTTP_PORT"] = str(daemon.http_port)


async def walk(cluster: Cluster, old: Path) -> None:
    """brokerd first, then chatd, and back in the other order."""
    async with talking(cluster.nodes[0], cluster.nodes[1]) as talk:
        up: list[Daemon] = [*cluster.brokers, *cluster.nodes]
        for tree, daemons in ((ROOT, up), (old, [*reversed(up)])):
            for daemon in daemons:
                make_it(daemon, tree, is_old=tree == old)
                code = await asyncio.to_thread(daemon.stop)
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(talk.say(LINES // 2))  # into its absence
                    await daemon.restart()
                await talk.say(LINES // 2)
                await talk.wait_all_heard()
                to = "the commit" if tree == old else "this tree"
                print(
                    f"{daemon.log_path.stem} is of {to} (it had ended with {code}): {len(talk.heard)} lines heard, once and in order"
                )


async def roll(cluster: Cluster, old: Path) -> None:
    """Everything is of the commit first."""
    for daemon in (*cluster.brokers, *cluster.nodes):
        make_it(daemon, old, is_old=True)
        await asyncio.to_thread(daemon.stop)
        await daemon.restart()
    for node in cluster.nodes:
        await asyncio.to_thread(node.wait_serving)
    await walk(cluster, old)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser("skew", description=__doc__)
    parser.add_argument("commit", help="the version to come from")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="skew-") as name,
        tree_of(options.commit, Path(name)) as old,
        Cluster(Path(name) / "cluster", lease_s=3) as cluster,
    ):
        asyncio.run(roll(cluster, old))
    return 0


if __name__ == "__main__":
    sys.exit(main())
