"""A node: one running chatd. Starts its parts in order, says when it is ready, and drains in reverse.

It knows ports only; what stands behind them is put together in embedded.py and cluster.py.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from brokerd.daemon import StartFailed
from brokerd.metrics import ByLabel, Metrics, Source, Value, by_code, health_of
from brokerd.outage import Outage
from brokerd.ports import Entrance, Inbound, LinkDown, NodeInbox, Nodes, Register, SentQueue
from brokerd.tracing import HopBuffer, Sample
from chatd.auth.own import OwnUsers
from chatd.canary import Canary
from chatd.config import ChatConfig, ListenSection
from chatd.listener import ListenerConfig, Listeners, Place, server_tls
from chatd.office import Office
from chatd.ports import Accounts
from chatd.postroom import Postroom
from chatd.switchboard import Switchboard
from chatd.tracer import NodeTracer
from chatd.web.handshake import Admission
from protocol.errors import Code

TICK_S: Final = 1.0
TICK_LATE_S_MAX: Final = 10.0
LEASE_RENEWALS: Final = 3  # in one lease
LEASE_RETRY_S: Final = 0.2
GOAWAY_SESSIONS_STEP: Final = 200  # told at once; then the loop breathes
CLOSE_S: Final = 0.5  # for the last frames to leave


Inherited = Mapping[str, Sequence[socket.socket]]


@dataclass(frozen=True, slots=True)
class Links:
    """What a node needs of the outside, and how it is."""

    inbound: Inbound
    nodes: Nodes
    inbox: NodeInbox
    sent_queue: SentQueue
    register: Register
    shards: int  # that inbound has
    health: Callable[[], Mapping[str, str]]
    store_fault: Callable[[], str] = lambda: ""  # what became of the store that was known, while another answers
    store_full: Callable[[], str] = lambda: ""  # why the store takes no new messages, "" = it takes them
    statistics: Mapping[str, Source] = field(default_factory=dict)
    sample: Sample = field(default_factory=lambda: Sample(0))
    hops: HopBuffer | None = None  # None: nothing is traced
    entrance: Entrance | None = None  # of a store that has both the register and the sent_queue
    pace_s: float = 0.0  # between two posts while much is said, of links that charge for each: see chatd/pace.py


def new_node_id(name: str) -> str:
    """A name for this run: an entry of an earlier run of the same node is never taken for ours."""
    return f"{name}:{time.time_ns() // 1_000_000:x}{os.urandom(2).hex()}"


def _listening(config: ChatConfig, inherited: Inherited) -> ListenerConfig:
    limits = config.limits
    return ListenerConfig(
        tcp=_places(config.tcp, inherited.get("tcp", ())),
        http=_places(config.http, inherited.get("http", ())),
        limits=config.wire_limits(),
        admission=Admission(origins=frozenset(config.ws.allowed_origins)),
        connections_max=limits.connections_max,
        connections_per_address_max=limits.connections_per_address_max,
        strangers_max=limits.strangers_max,
        strangers_per_address_max=limits.strangers_per_address_max,
    )


def _places(section: ListenSection, inherited: Sequence[socket.socket]) -> tuple[Place, ...]:
    """Where the configuration says, unless a service manager handed sockets over."""
    if inherited:
        return tuple(Place(tls=_tls(section), inherited=sock) for sock in inherited)
    return (Place(section.host, section.port, _tls(section)),)


def _tls(section: ListenSection) -> ssl.SSLContext | None:
    if section.tls_cert is None or section.tls_key is None:
        return None
    try:
        return server_tls(section.tls_cert, section.tls_key)
    except OSError as fault:  # includes ssl.SSLError
        pair = f"{section.tls_cert} and {section.tls_key}"
        raise StartFailed(f"{pair} are no certificate with its key: {fault.strerror or fault}") from fault


@asynccontextmanager
async def _opened(listeners: Listeners) -> AsyncIterator[None]:
    """The listeners, with a reason for people when a port cannot be had."""
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(listeners)
        except OSError as fault:
            raise StartFailed(f"cannot listen: {fault.strerror or fault}; tcp.port and http.port say where") from fault
        yield


@dataclass(slots=True)
class _Open:
    """A node whose doors are open."""

    board: Switchboard
    listeners: Listeners
    metrics: Metrics
    ticked_s: float


class Node:
    """`run` is its only task."""

    def __init__(
        self, config: ChatConfig, links: Links, accounts: Accounts, log: Any, inherited: Inherited | None = None
    ) -> None:
        """`inherited` are listening sockets by name ("tcp", "http"); they stand in place of the configured ones."""
        self.id = new_node_id(config.node)
        self._config = config
        self._links = links
        self._accounts = OwnUsers(accounts)
        self._log = log.bind(node=self.id)
        every_s = config.canary.every_s
        secret = self._accounts.secret
        self._canary = Canary(config.node, self.id, every_s, secret, self._log) if every_s else None
        self._has_inbox = False
        self._is_over = False
        self._inherited = inherited or {}
        self._open: _Open | None = None

    async def run(self, stop: asyncio.Event, on_ready: Callable[[Listeners], Awaitable[None] | None]) -> None:
        """Serve until `stop` is set, then drain. `on_ready` is called when clients can connect."""
        async with asyncio.TaskGroup() as tasks:
            board = self._switchboard(tasks)
            postroom = Postroom(board, self._log)
            beside = [
                tasks.create_task(self._open_inbox(postroom)),
                tasks.create_task(self._keep_lease(board)),
                tasks.create_task(self._tick(board)),
            ]
            async with self._doors(board, postroom) as listeners:
                result = on_ready(listeners)
                if result is not None:
                    await result
                canary = [tasks.create_task(self._canary.run(listeners.inside))] if self._canary is not None else []
                await stop.wait()
                for task in canary:  # it leaves by itself while the others are told
                    task.cancel()
                await self._drain(board, listeners)
            for task in beside:
                task.cancel()
            self._is_over = True
        with suppress(LinkDown):  # then the lease runs out by itself
            await self._links.register.drop_lease(self.id)
        self._log.info("node_stopped")

    @asynccontextmanager
    async def _doors(self, board: Switchboard, postroom: Postroom) -> AsyncIterator[Listeners]:
        """Where clients and back ends come in."""
        metrics = self._metrics(board, postroom, lambda: listeners.census.statistics())
        office = Office(board, metrics, lambda: self._health(board))
        listeners = Listeners(_listening(self._config, self._inherited), board, self._accounts, office)
        async with _opened(listeners):
            self._open = _Open(board, listeners, metrics, board.now_s())
            yield listeners

    def _switchboard(self, tasks: asyncio.TaskGroup) -> Switchboard:
        config, links = self._config, self._links
        return Switchboard(
            self.id,
            shards=links.shards,
            inbound=links.inbound,
            nodes=links.nodes,
            sent_queue=links.sent_queue,
            register=links.register,
            accounts=self._accounts,
            limits=config.wire_limits(),
            outbox_bytes_max=config.limits.outbox_bytes_max,
            connections_max=config.limits.connections_max,
            tasks=tasks,
            log=self._log,
            store_fault=links.store_fault,
            entrance=links.entrance,
            pace_s=links.pace_s,
            tracer=NodeTracer(self.id, links.sample, links.hops or HopBuffer(None, self._log), Switchboard.now_ms),
        )

    async def _open_inbox(self, postroom: Postroom) -> None:
        def take(batch: bytes) -> None:
            if not self._is_over:  # the inbox closes with its link, a little later than the node
                postroom.take(batch)

        def on_gap() -> None:
            if not self._is_over:
                postroom.lost_some()

        await self._links.inbox.open(self.id, take, on_gap)
        self._has_inbox = True

    async def _keep_lease(self, board: Switchboard) -> None:
        ttl_s, outage = self._config.lease_s, Outage("lease", self._log)
        board.lease_ends_s = 0.0
        while True:
            asked_s = board.now_s()
            try:
                stood = await self._links.register.renew_lease(self.id, int(ttl_s * 1000))
            except LinkDown as down:
                outage.failed(down)
                await asyncio.sleep(LEASE_RETRY_S)
                continue
            outage.over()
            was_late, board.lease_ends_s = board.is_doubtful, asked_s + ttl_s
            if (was_late or not stood) and len(board.roster):
                self._log.warning("lease_was_lost", sessions=len(board.roster))
                board.logins.reclaim_all()
            await asyncio.sleep(ttl_s / LEASE_RENEWALS)

    async def _tick(self, board: Switchboard) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            board.gate.store_full = self._links.store_full()
            board.tick()
            if self._open is not None:
                self._open.ticked_s = board.now_s()

    # --- what its operator asks

    def take_over(self, config: ChatConfig) -> None:
        """This configuration from now on, as far as it can change (chatd/reload.py). Raises StartFailed when a certificate
        can not be used: then nothing changed."""
        listening = _listening(config, self._inherited)
        self._config = config
        if self._open is not None:
            self._open.listeners.take_over(listening)
            limits = config.limits
            self._open.board.take_over(config.wire_limits(), limits.outbox_bytes_max, limits.connections_max)

    @property
    def board(self) -> Switchboard | None:
        """The sessions, once the doors are open."""
        return self._open.board if self._open is not None else None

    def health(self) -> dict[str, str]:
        """Part → "up" or why not."""
        return self._health(self._open.board) if self._open is not None else {"node": "starts"}

    def connections(self) -> dict[str, int]:
        """How many there are."""
        return self._open.listeners.census.statistics() if self._open is not None else {}

    def samples(self, source: str) -> Mapping[str, Value]:
        """What a source of metrics says now; nothing when there is none of this name."""
        return self._open.metrics.read(source) if self._open is not None else {}

    def status(self) -> str:
        """One line for people."""
        if self._open is None:
            return "starts"
        board = self._open.board
        waiting = board.postbox.statistics()
        amiss = [f"{part}: {said}" for part, said in self._health(board).items() if said != "up"]
        return "; ".join(
            [
                f"{board.roster.people} sessions on {len(self._open.listeners.census)} connections",
                f"{waiting['waiting']:g} posts wait, {waiting['in_flight']:g} are on their way",
                *amiss,
            ]
        )

    def fault(self) -> str:
        """Why this process should be started anew, "" when it should not."""
        if self._open is None or self._open.board.now_s() - self._open.ticked_s < TICK_LATE_S_MAX:
            return ""
        return f"the sessions' clock has stood still for {TICK_LATE_S_MAX:g} s"

    # --- how it is

    def _health(self, board: Switchboard) -> dict[str, str]:
        parts = dict(self._links.health())
        parts["lease"] = "not renewed in time" if board.is_doubtful else "up"
        parts["inbox"] = "up" if self._has_inbox else "not open yet"
        parts["sending"] = "up" if board.gate.is_open else "refused: BUSY"  # it opens up to a second after the queue
        if board.is_draining:
            parts["node"] = "draining"
        return parts

    def _metrics(self, board: Switchboard, postroom: Postroom, doors: Source) -> Metrics:
        def node() -> dict[str, Value]:
            paused = [line for line in board.lines if line.paused_s is not None]
            closed = {code.name if code else "none": count for code, count in board.logins.closed.items()}
            return {
                **asdict(board.counts),
                "sessions": board.roster.people,
                "connections_open": len(board.lines),
                "connections_max": self._config.limits.connections_max,
                "paused_readers": len(paused),
                "outbox_bytes": sum(line.wire.pending_bytes() for line in paused),
                "parcels": postroom.parcels,
                "not_here": postroom.not_here,
                "refused_sends": by_code("code", board.gate.refused),
                "refused_logins": by_code("code", board.logins.refused),
                "closed_sessions": ByLabel("code", closed),
            }

        parts = {"node": node, "doors": doors, "postbox": board.postbox.samples}
        if self._canary is not None:
            parts["canary"] = self._canary.statistics
        return Metrics({**parts, "parts": health_of(lambda: self._health(board)), **self._links.statistics})

    # --- the end

    async def _drain(self, board: Switchboard, listeners: Listeners) -> None:
        """Not ready → no new connections → GOAWAY → what is in flight is finished → the rest is closed."""
        board.is_draining = True
        listeners.stop_accepting()
        window_s = self._config.drain_s_max
        self._log.info("node_draining", sessions=board.roster.people, seconds_max=window_s)
        for count, line in enumerate(board.roster):
            line.session.go_away(0, int(window_s * 500))
            board.attend(line)
            if count % GOAWAY_SESSIONS_STEP == GOAWAY_SESSIONS_STEP - 1:
                await asyncio.sleep(0)
        await self._wait(lambda: not board.lines and board.is_idle, window_s)
        for line in tuple(board.lines):
            line.session.fail(Code.GOING_AWAY, retry_after_ms=1)
            board.attend(line)
        await self._wait(lambda: not board.lines and board.is_idle, CLOSE_S)

    async def _wait(self, is_so: Callable[[], bool], s_max: float) -> None:
        """Until it is so, or until the time is over. Looked at 50 times a second: what it waits for has no one event."""
        now_s = asyncio.get_running_loop().time
        end_s = now_s() + s_max
        while not is_so():
            if now_s() >= end_s:
                return
            await asyncio.sleep(0.02)
