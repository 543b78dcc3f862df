"""The Register in Redis: a hash of seats for each user, one lease key for each node.

u:{USER}:r   device → "node session"        n:{NODE}   "1", gone when the lease is over
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from brokerd.links.redis_scripts import Script, ask, is_broken
from brokerd.links.resp import RespLink
from brokerd.links.resp_stream import Command
from brokerd.ports import LinkDown, Row, Seat


class RedisRegister:
    """Register behind a RespLink. See ports.Register for the contract."""

    def __init__(self, link: RespLink) -> None:
        self._link = link
        self._claim = Script(link, "claim", keys=1, frees=True)
        self._release = Script(link, "release", keys=1, frees=True)
        self._lease = Script(link, "lease", keys=1, frees=True)

    async def claim(self, user: str, seat: Seat, former: Seat | None = None) -> Seat | None:
        """Put the seat in for its device; give the one it replaced (None: none, this very one, or one that was torn)."""
        old = await ask(self._link, self._claim_command(user, seat, former))
        standing = None if old is None else seat_of(seat.device, old)
        if former is not None and old is not None and standing is None:
            return await self.claim(user, seat)  # what stands in the way is no seat
        return standing

    async def release(self, user: str, seat: Seat) -> bool:
        """Take the seat out if it is still exactly this one."""
        return bool(await ask(self._link, self._release_command(user, seat)))

    async def seats(self, users: Sequence[str]) -> list[list[Seat]]:
        """The seats of each user on nodes whose lease lives. A second round trip asks for the leases, if any sits."""
        replies = await self._link.pipeline([seats_command(user) for user in users])
        for reply in replies:
            if is_broken(reply):  # not knowing is not absence
                raise LinkDown(f"redis: {reply}")
        all_seats = [seats_of(flat) for flat in replies]
        living = await self._living({seat.node for seats in all_seats for seat in seats})
        return [[seat for seat in seats if seat.node in living] for seats in all_seats]

    async def rows(self, user: str) -> list[Row]:
        """All that is written of a user, by device."""
        flat = await ask(self._link, seats_command(user))
        rows = sorted(_row_of(flat[at].decode(errors="replace"), flat[at + 1]) for at in range(0, len(flat), 2))
        left_ms = {node: await ask(self._link, ("PTTL", _lease_key(node))) for node in {row.node for row in rows}}
        return [row._replace(lease_ms=max(0, left_ms[row.node])) for row in rows]

    async def _living(self, nodes: Collection[str]) -> set[str]:
        """Those whose lease lives."""
        if not nodes:
            return set()
        leases = await ask(self._link, ("MGET", *map(_lease_key, nodes)))
        return {node for node, lease in zip(nodes, leases, strict=True) if lease is not None}

    def _claim_command(self, user: str, seat: Seat, former: Seat | None) -> Command:
        was = () if former is None else (_value(former),)
        return self._claim(_key(user), seat.device, _value(seat), *was)

    def _release_command(self, user: str, seat: Seat) -> Command:
        return self._release(_key(user), seat.device, _value(seat))

    async def renew_lease(self, node: str, ttl_ms: int) -> bool:
        """Say that the node lives for another ttl; whether its lease still stood."""
        return bool(await ask(self._link, self._lease(_lease_key(node), ttl_ms)))

    async def drop_lease(self, node: str) -> None:
        """Say that the node is gone."""
        await ask(self._link, ("DEL", _lease_key(node)))


def seats_command(user: str) -> Command:
    """Asks for what seats_of reads."""
    return ("HGETALL", _key(user))


def seats_of(flat: Sequence[bytes]) -> list[Seat]:
    """The seats in a HGETALL of a register hash, without what cannot be read: its device is as good as absent, and the
    next claim puts it right."""
    seats = (seat_of(flat[at].decode(errors="replace"), flat[at + 1]) for at in range(0, len(flat), 2))
    return [seat for seat in seats if seat is not None]


def seat_of(device: str, value: Any) -> Seat | None:
    """A seat from a field's value; None when it is torn."""
    parts = value.decode(errors="replace").split(" ")
    return Seat(device, *parts) if len(parts) == 2 and all(parts) else None


def _row_of(device: str, value: Any) -> Row:
    seat = seat_of(device, value)
    return Row(device, seat.node, seat.session, 0) if seat is not None else Row(device, "", "", 0)


def _value(seat: Seat) -> str:
    return f"{seat.node} {seat.session}"


def _key(user: str) -> str:
    return f"u:{{{user}}}:r"


def _lease_key(node: str) -> str:
    return f"n:{{{node}}}"
