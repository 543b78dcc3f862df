"""Logging in and out: prove, claim the register entry, open the queue (in that order: promise 4), and the other way.

Also what keeps the entry true afterwards: every PING looks up the newest seq and our own entry together, so a session
whose entry was overwritten learns that it was replaced, and one whose entry was lost puts it back.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections import Counter, deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final
from zlib import crc32

from brokerd.ports import LinkDown, Opened, Seat, StoreChanged
from chatd.auth.throttle import Buckets, Rate
from chatd.line import login_ms_of
from chatd.ports import Accounts, LoginRefused
from protocol.envelope import DevicesParcel, EvictParcel, ParcelKind, pack_batch
from protocol.errors import Code
from protocol.messages import Hello
from protocol.names import is_name
from protocol.wire import GENERATION_BYTES

if TYPE_CHECKING:
    from chatd.line import Line
    from chatd.switchboard import Switchboard

LOGINS_MAX: Final = 512  # on their way; the others wait their turn, and their LOGIN_S_MAX runs
LOGINS_WAITING_MAX: Final = 4096  # who comes then hears BUSY at once, instead of LOGIN_TIMEOUT after ten seconds
BUSY_RETRY_MS: Final = 2000
STORE_RETRY_MS: Final = 1000
RETRY_SPREAD_MS: Final = 2000  # on top: who was refused together does not come back together
# Logins of one device that end a session of that device which still lives: two places with one device id replace each
# other for ever. (A client that obeys REPLACED does not come back.)
REPLACING_RATE: Final = Rate(10, 5)
RECLAIMS_AT_ONCE: Final = 200
SEEN_OFF_AT_ONCE: Final = 32
CREDENTIALS_CHECK_LINES: Final = 2000  # looked at in one second, round robin


class Logins:
    """One for a switchboard."""

    def __init__(self, board: Switchboard, accounts: Accounts) -> None:
        self._board = board
        self._accounts = accounts
        self.refused: Counter[Code] = Counter()
        self.closed: Counter[Code | None] = Counter()  # sessions by why they ended; None: the client left
        self._turns = asyncio.Semaphore(LOGINS_MAX)
        self._waiting = 0
        self._replacing = Buckets(REPLACING_RATE)
        self._reclaims = asyncio.Semaphore(RECLAIMS_AT_ONCE)
        self._to_check: list[Line] = []
        self._gone: deque[tuple[Line, Code | None, str]] = deque()  # as many as there were sessions, at most
        self._is_seeing_off = False

    async def login(self, line: Line, hello: Hello) -> None:
        """HELLO came: WELCOME or an error follows."""
        if self._waiting >= LOGINS_WAITING_MAX:
            self._board.counts.logins_refused += 1
            self.refused[Code.BUSY] += 1
            line.session.fail(Code.BUSY, retry_after_ms=BUSY_RETRY_MS + _spread_ms(line))
            return self._board.attend(line)
        self._waiting += 1
        try:
            async with self._turns:
                if not line.is_gone():
                    await self._login(line, hello)
        except LoginRefused as refused:
            self._board.counts.logins_refused += 1
            line.log.info("login_refused", user=hello.user, code=refused.code, why=str(refused))
            self.refused[refused.code] += 1
            line.session.fail(refused.code, retry_after_ms=refused.retry_after_ms)
        except LinkDown as down:
            line.log.warning("login_put_off", user=hello.user, error=str(down))
            self._board.roster.remove(line)
            code = Code.STORE_CHANGED if isinstance(down, StoreChanged) else Code.STORE_DOWN
            self.refused[code] += 1
            line.session.fail(code, retry_after_ms=STORE_RETRY_MS + _spread_ms(line))
        finally:
            self._waiting -= 1
        return self._board.attend(line)

    async def _login(self, line: Line, hello: Hello) -> None:
        identity = await self._accounts.prove(hello.scheme, hello.user, hello.secret, line.peer)
        session, board = line.session, self._board
        if line.is_gone():
            return
        if fault := board.store_fault():
            raise StoreChanged(fault)
        if not is_name(identity.user):
            raise LoginRefused(Code.BAD_NAME, "the token's subject is not a name")
        if wait_s := self._replacing.wait_s(_place(identity.user, hello.device), board.now_s()):
            raise LoginRefused(Code.RATE_LIMITED, "two places use this device name", math.ceil(wait_s * 1000))
        session.user, session.device = identity.user, hello.device
        line.proof = identity.proof
        line.login_ms = board.now_ms()
        older = board.roster.add(line)  # before the claim: a hand-over that comes now must find us
        if older is not None:
            self._replacing.take(_place(session.user, session.device), board.now_s())
            self._replace(older)
        opened = await self.claim(line)
        if line.is_gone():
            return
        board.counts.logins += 1
        session.logged_in(hello, identity, opened, node=board.node, now_s=board.now_s(), now_ms=board.now_ms())
        line.log.info("session_opened", head=opened.head, cursor=opened.cursor, devices=opened.devices)

    async def claim(self, line: Line) -> Opened:
        """Put our entry in, open the queue behind it, and tell the user's other sessions. Raises LinkDown."""
        board, user = self._board, line.session.user
        replaced, opened = await self._take_seat(line, None)
        if replaced is not None and replaced.node != board.node:
            # when we are gone by now, it lost its seat all the same: but it may be the newer one, and is to come back
            self._replacing.take(_place(user, replaced.device), board.now_s())
            self._evict(user, replaced, Code.INTERNAL if line.is_gone() else Code.REPLACED)
        return opened

    def _evict(self, user: str, seat: Seat, code: Code) -> None:
        parcel = EvictParcel(ParcelKind.EVICT, user, seat.device, seat.session.partition(".")[0], int(code))
        self._board.nodes.hand(seat.node, pack_batch(self._board.node, [parcel]))

    async def _take_seat(self, line: Line, former: Seat | None) -> tuple[Seat | None, Opened]:
        """Whose place we took and, with a `former` seat of ours, whose newer session holds it now, on a node that lives:
        then nothing was done. And where the device stands."""
        board, user = self._board, line.session.user
        seat = line.next_seat(board.node)
        fresh = os.urandom(GENERATION_BYTES)
        other, opened, seats = await board.entrance.enter(user, seat, former, fresh, board.now_ms())
        if former is not None and other is not None:
            if other.node != board.node and other in seats:
                if login_ms_of(other) >= line.login_ms:
                    return other, opened
                self._evict(user, other, Code.REPLACED)  # a session that was away took our place back
            other = None
            await board.register.claim(user, seat)
        line.seat = seat
        if line.is_gone():
            await board.register.release(user, seat)
        else:
            self._tell_devices(user, opened.devices, seats)
        return other, opened

    def _tell_devices(self, user: str, devices: int, seats: Sequence[Seat]) -> None:
        for other in self._board.roster.of(user):
            other.session.hear_devices(devices)
        for node in {seat.node for seat in seats} - {self._board.node}:
            parcel = DevicesParcel(ParcelKind.DEVICES, user, devices)
            self._board.nodes.hand(node, pack_batch(self._board.node, [parcel]))

    def _replace(self, older: Line) -> None:
        self._board.counts.replaced += 1
        older.session.fail(Code.REPLACED)
        self._board.attend(older)

    def see_off(self, line: Line, code: Code | None, detail: str) -> None:
        """The session is over. Thousands may be lost in one turn of the loop (a network that breaks), so the rest is done some
        at a time: in one turn, 6,000 of them stopped everybody else for 5 s (`make overload`)."""
        self.closed[code] += 1
        self._gone.append((line, code, detail))
        if not self._is_seeing_off:
            self._is_seeing_off = True
            self._board.spawn(self._see_off())

    async def _see_off(self) -> None:
        while self._gone:
            some = [self._gone.popleft() for _ in range(min(SEEN_OFF_AT_ONCE, len(self._gone)))]
            for line, code, detail in some:
                line.log.info("session_closed", code=code, detail=detail[:200])
            await self._leave([line for line, _, _ in some])
            await asyncio.sleep(0)
        self._is_seeing_off = False

    async def _leave(self, lines: Sequence[Line]) -> None:
        """Take the entries of sessions that are over out, unless newer ones stand there already."""
        places = [(line.session.user, seat) for line in lines for seat in line.own_seats()]
        try:
            if places:
                await self._board.entrance.leave(places)
        except LinkDown:  # found and released at the next message for each, or with the lease
            self._board.log.info("releases_put_off", seats=len(places))

    async def reclaim(self, line: Line) -> None:
        """Our entry may be gone (the register lost it, or we were away): put it back, and look for what we missed. When the
        device has logged in elsewhere meanwhile, that session is the newer one, and ours ends."""
        try:
            async with self._reclaims:
                if line.is_gone() or line.seat is None:
                    return
                newer, opened = await self._take_seat(line, line.seat)
        except LinkDown:
            return  # the next PING finds it
        if newer is not None:
            self._replace(line)
        else:
            line.session.reopened(opened)
            self._board.attend(line)

    def reclaim_all(self) -> None:
        """As `reclaim`, for everybody."""
        for line in self._board.roster:
            self._board.spawn(self.reclaim(line))

    async def look_up(self, lines: list[Line]) -> None:
        """Answer PINGs: the newest seq, and whether our entry still stands."""
        board = self._board
        users = [line.session.user for line in lines]
        try:
            heads, seats = await asyncio.gather(board.sent_queue.heads(users), board.register.seats(users))
        except LinkDown:
            for line in lines:
                line.session.head_told(None, board.now_ms())
                board.attend(line)
            return
        for line, head, found in zip(lines, heads, seats, strict=True):
            line.session.hear_devices(len(found))  # the parcel that told us of one may have been lost
            line.session.head_told(head, board.now_ms())
            board.attend(line)
            self._check_seat(line, found)

    def _check_seat(self, line: Line, found: Sequence[Seat]) -> None:
        if line.is_lost or line.seat is None or line.seat in found:
            return
        ours = [seat for seat in found if seat.device == line.session.device and seat.node != self._board.node]
        if ours and login_ms_of(ours[0]) >= line.login_ms:
            self._replace(line)  # the eviction that we should have had was lost on its way
        else:
            self._board.spawn(self.reclaim(line))

    def check_credentials(self, unix_s: float) -> None:
        """Once a second: sessions whose token expired or whose account was closed end, some lines at a time."""
        if not self._to_check:
            self._to_check = list(self._board.roster)
        some, self._to_check = self._to_check[:CREDENTIALS_CHECK_LINES], self._to_check[CREDENTIALS_CHECK_LINES:]
        for line in some:
            expires_s = line.session.expires_s
            if expires_s is not None and unix_s > expires_s:
                line.session.fail(Code.TOKEN_EXPIRED)
            elif not self._accounts.is_open(line.session.user, line.proof):
                line.session.fail(Code.REVOKED)
            else:
                continue
            self._board.attend(line)


def _spread_ms(line: Line) -> int:
    return crc32(line.session.id.encode()) % RETRY_SPREAD_MS


def _place(user: str, device: str) -> str:
    return f"{user} {device}"
