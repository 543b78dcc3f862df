"""Where an overload takes place: an embedded chatd or a whole cluster, and who watches while it happens."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.cluster import Cluster
from bench.processes import Chatd
from bench.tokens import Mint
from protocol.errors import Code
from tests.overload.bounds import (
    ACCEPTED_MS_P99_MAX,
    BROKERD_MIB_MAX,
    CHATD_MIB_MAX,
    DELIVERED_MS_P99_MAX,
    KEPT_FACTOR,
    RABBITMQ_MIB_MAX,
    REDIS_MIB_MAX,
)
from tests.overload.bystander import Bystanders, Phase, bystanders
from tests.overload.watch import Memory, Sampler, until

GROWTH_MIB_MAX = {
    "chatd": CHATD_MIB_MAX,
    "brokerd": BROKERD_MIB_MAX,
    "redis": REDIS_MIB_MAX,
    "rabbitmq": RABBITMQ_MIB_MAX,
}


@dataclass(slots=True)
class Site:
    """Servers that run, and the key that their tokens are signed with."""

    name: str
    nodes: list[Chatd]
    mint: Mint
    cluster: Cluster | None = None
    before_s: float = 3.0  # how long bystanders are watched before an overload

    @property
    def pids(self) -> dict[str, int]:
        """Of all server processes."""
        return self.cluster.pids if self.cluster is not None else {"chatd": self.nodes[0].pid}

    def spec(self, kind: str, stem: str, net: int, **more: Any) -> dict[str, Any]:
        """For a crowd: senders at the first node, receivers at the last."""
        ports = {"port": self.nodes[0].tcp_port, "to_port": self.nodes[-1].tcp_port}
        return {"kind": kind, "stem": stem, "net": net, "mint": str(self.mint.path), **ports, **more}


@contextmanager
def embedded_site(folder: Path, env: Mapping[str, str] | None = None) -> Iterator[Site]:
    """One chatd alone."""
    mint = Mint(folder / "chatd")
    server = Chatd(folder / "chatd", env=dict(env or {}))
    server.start()
    try:
        yield Site("embedded", [server], mint)
    finally:
        server.stop()


@contextmanager
def cluster_site(folder: Path, env: Mapping[str, str] | None = None) -> Iterator[Site]:
    """Two chatd, two brokerd, Redis, RabbitMQ."""
    with Cluster(folder, lease_s=5, env=dict(env or {})) as cluster:
        yield Site("cluster", cluster.nodes, Mint(cluster.nodes[0].data_dir), cluster)


@dataclass(slots=True)
class Row:
    """What came of one overload."""

    name: str
    told: list[str] = field(default_factory=list)  # what clients and operators heard
    memory: dict[str, Memory] = field(default_factory=dict)
    cpu_s: dict[str, float] = field(default_factory=dict)
    before: Phase | None = None
    during: Phase | None = None
    late_ms: float = 0.0
    wrong: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def check(self, is_so: bool, words: str) -> None:
        """Note a bound that is broken."""
        if not is_so:
            self.wrong.append(words)


@dataclass(slots=True)
class Watched:
    """An overload while it lasts."""

    row: Row
    pair: Bystanders
    sampler: Sampler


@asynccontextmanager
async def watched(site: Site, name: str, *, served: bool = True, kept_mib: float = 0.0) -> AsyncIterator[Watched]:
    """Bystanders before, during (the block) and after; memory all the time; then the bounds. `served`: bystanders are to be
    served all the while (not when nobody can be: an alarm, a full disk). `kept_mib`: so much is to be kept by the store, in
    memory when that is Redis."""
    row = Row(f"{name} ({site.name})")
    async with bystanders(site.nodes[0].tcp_port, site.nodes[-1].tcp_port, site.mint) as pair:
        await until(lambda: len(pair.heard) >= 5, 10.0)
        async with Sampler(site.pids) as sampler:
            row.before = pair.begin("before")
            await asyncio.sleep(site.before_s)
            row.during = pair.begin("during")
            yield Watched(row, pair, sampler)
            pair.begin("after")
            row.wrong += await pair.settle()
        row.memory, row.cpu_s, row.late_ms = sampler.memory, sampler.cpu_s, pair.late_ms_max
    _judge(row, served=served, kept_mib=kept_mib)


def _judge(row: Row, *, served: bool, kept_mib: float) -> None:
    for name, memory in row.memory.items():
        most = GROWTH_MIB_MAX[name.rstrip("0123456789")] + (KEPT_FACTOR * kept_mib if name == "redis" else 0)
        row.check(memory.growth <= most, f"{name} grew by {memory.growth:.0f} MiB; {most:.0f} is allowed")
    if served and row.during is not None:
        for what, most in (("accepted", ACCEPTED_MS_P99_MAX), ("delivered", DELIVERED_MS_P99_MAX)):
            p99 = row.during.ms(what, 99)
            row.check(p99 <= most, f"bystanders: {what} p99 {p99:.0f} ms; {most:.0f} is allowed")


def check_ledger(row: Row, figures: Mapping[str, Any]) -> None:
    """Of a flood that has ended: everything accepted has its end, nothing came twice."""
    row.check(figures["missing"] == 0, f"{figures['missing']} accepted messages have no end")
    row.check(figures["duplicates"] == 0, f"{figures['duplicates']} messages came twice")
    row.check(figures["both"] == 0, f"{figures['both']} messages were delivered and told as failed")
    # SPEC: who resends what was refused more than ten seconds ago may be passed by what came behind it
    is_plain = str(int(Code.BUSY)) not in figures["codes"]
    row.check(not (is_plain and figures["misordered"]), f"{figures['misordered']} messages came out of order")
    row.check(figures["gaps"] == 0, f"{figures['gaps']} gaps in the seqs")


def readyz(node: Chatd) -> tuple[int, dict[str, str]]:
    """Status and parts; 0 when nobody answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{node.http_port}/readyz", timeout=5) as answer:
            return answer.status, json.loads(answer.read())["parts"]
    except urllib.error.HTTPError as refused:
        return refused.code, json.loads(refused.read())["parts"]
    except OSError:
        return 0, {}


async def wait_readyz(node: Chatd, part: str | None, words: str, s_max: float) -> tuple[bool, float]:
    """Until this part says these words (None: all is well again); whether it did, and after how long."""
    loop = asyncio.get_running_loop()
    begun_s = loop.time()
    while loop.time() - begun_s < s_max:
        status, parts = await asyncio.to_thread(readyz, node)
        if (status == 200) if part is None else words in parts.get(part, ""):
            return True, loop.time() - begun_s
        await asyncio.sleep(0.05)
    return False, s_max
