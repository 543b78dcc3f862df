"""One HTTP/1.1 connection, parsed by h11: requests in, one answer after the other out, bounded in bytes and seconds.

The same port serves WebSocket: a request that asks for it leaves this class and takes the transport with it. One
deadline runs at any time, for the phase that the connection is in; whoever is too slow is cut at it.
"""

from __future__ import annotations

import asyncio
from email.utils import formatdate
from enum import Enum
from http import HTTPStatus
from typing import Final

import h11
import structlog

from chatd.census import Stay
from chatd.tcp import peer_of
from chatd.web.exchange import Request, Response
from chatd.web.problem import problem
from chatd.web.service import HttpService

_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})
_FIXED_HEADERS: Final = (("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"))

_log = structlog.get_logger("chatd.web")


class _Phase(Enum):
    HEAD = "head"  # a request's head is awaited
    BODY = "body"
    ANSWER = "answer"  # a task works on it
    FLUSH = "flush"  # the answer waits for its reader
    FAREWELL = "farewell"  # our side is closed; what still comes is dropped
    GONE = "gone"  # lost, or a WebSocket now


class HttpConnection(asyncio.BufferedProtocol):
    """One connection on a transport that is connected."""

    def __init__(self, transport: asyncio.Transport, service: HttpService, stay: Stay) -> None:
        self._transport = transport
        self._service = service
        self._stay = stay
        self._limits = service.limits
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=service.limits.head_bytes_max)
        self._peer = peer_of(transport)
        self._phase = _Phase.HEAD
        self._is_last = False  # close after the next answer
        self._is_idle = False  # an answer is out, and nothing has come since
        self._head: h11.Request | None = None
        self._body = bytearray()
        self._discarded = 0
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.call_later(self._limits.head_s_max, self._time_is_up)
        limits = service.transport_limits
        transport.set_write_buffer_limits(high=limits.write_high_bytes, low=limits.write_low_bytes)

    # --- what a stop does

    def drain(self) -> None:
        """Close after the answer that is being made, at once when there is none."""
        self._is_last = True
        if self._phase is _Phase.HEAD:
            self._say_farewell()

    def abort(self, reason: str) -> None:
        """See census.Guest."""
        self._transport.abort()

    # --- asyncio.BufferedProtocol

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._service.view

    def buffer_updated(self, nbytes: int) -> None:
        if self._phase is _Phase.FAREWELL:
            self._discard(nbytes)
            return
        self._h11.receive_data(bytes(self._service.view[:nbytes]))
        if self._phase in (_Phase.HEAD, _Phase.BODY):
            self._advance()
        else:  # pipelined: no more of it until the answer is out
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """A client may half-close behind its request and still get the answer."""
        if self._phase is _Phase.ANSWER:
            self._is_last = True
            return self._transport.can_write_eof()
        return False

    def pause_writing(self) -> None:
        if self._phase is _Phase.ANSWER:
            self._phase = _Phase.FLUSH

    def resume_writing(self) -> None:
        if self._phase is _Phase.FLUSH:
            self._next_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._phase = _Phase.GONE
        self._deadline.cancel()
        self._stay.end()

    # --- in

    def _advance(self) -> None:
        """Take what h11 makes of the bytes, until it needs more or a request is whole."""
        while self._phase in (_Phase.HEAD, _Phase.BODY):
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as fault:
                self._respond(problem(fault.error_status_hint, str(fault)), last=True)
                return
            if event is h11.NEED_DATA:
                self._await_more()
                return
            if isinstance(event, h11.Request):
                self._take_head(event)
            elif isinstance(event, h11.Data):
                self._take_data(event.data)
            elif isinstance(event, h11.EndOfMessage):
                self._take_end()
            else:  # PAUSED or ConnectionClosed
                return

    def _await_more(self) -> None:
        if self._h11.they_are_waiting_for_100_continue:
            go_on = self._h11.send(h11.InformationalResponse(status_code=100, headers=[]))
            self._transport.write(go_on or b"")
        if self._phase is _Phase.HEAD and self._is_idle and self._h11.trailing_data[0]:
            self._is_idle = False
            self._arm(self._limits.head_s_max)

    def _take_head(self, head: h11.Request) -> None:
        self._phase = _Phase.BODY
        self._head = head
        self._body = bytearray()
        self._arm(self._limits.body_s_max)
        names = [name for name, _ in head.headers]
        length = next((int(value) for name, value in head.headers if name == b"content-length"), None)
        has_coding = b"transfer-encoding" in names
        if length is not None and has_coding:  # the classic of request smuggling
            self._respond(problem(HTTPStatus.BAD_REQUEST, "Content-Length and Transfer-Encoding"), last=True)
        elif length is None and not has_coding and head.method.decode() in _WITH_BODY:
            self._respond(problem(HTTPStatus.LENGTH_REQUIRED), last=True)
        elif length is not None and length > self._limits.body_bytes_max:
            self._refuse_body()

    def _take_data(self, data: bytes | bytearray) -> None:
        self._body += data
        if len(self._body) > self._limits.body_bytes_max:
            self._refuse_body()

    def _refuse_body(self) -> None:
        detail = f"a body has at most {self._limits.body_bytes_max} bytes"
        self._respond(problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail), last=True)

    def _take_end(self) -> None:
        assert self._head is not None
        request = _request(self._head, bytes(self._body), self._peer)
        self._deadline.cancel()
        self._phase = _Phase.ANSWER
        upgrade = self._service.upgrade
        if not upgrade.wants(request):
            self._stay.greeted()
            task = self._loop.create_task(self._answer(request))
            self._service.tasks.add(task)
            task.add_done_callback(self._service.tasks.discard)
            return
        refusal = upgrade.refuse(request)
        if refusal is not None:
            self._respond(refusal, last=True)
            return
        self._phase = _Phase.GONE
        upgrade.switch(self._transport, request, self._h11.trailing_data[0], self._stay)

    # --- out

    async def _answer(self, request: Request) -> None:
        try:
            response = await self._service.answer(request)
            if self._phase is _Phase.ANSWER:  # else the client has gone: what was done stays done
                self._respond(response, last=self._is_last)
        except Exception:  # a bug of ours (a header that cannot be written): nobody else would hear of it
            _log.exception("http_answer_failed", method=request.method, path=request.path)
            self._transport.abort()

    def _respond(self, response: Response, *, last: bool) -> None:
        """Write one answer in one write; then the next request, or the end when this was the last."""
        self._phase = _Phase.ANSWER
        is_head = self._head is not None and self._head.method == b"HEAD"
        chunks = [self._h11.send(_h11_response(response, last=last))]
        if response.body and not is_head:
            chunks.append(self._h11.send(h11.Data(data=response.body)))
        chunks.append(self._h11.send(h11.EndOfMessage()))
        self._arm(self._limits.flush_s_max)
        self._transport.write(b"".join(chunk for chunk in chunks if chunk))
        if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            self._say_farewell()
        elif self._phase is _Phase.ANSWER:  # not FLUSH: the answer has left
            self._next_request()

    def _next_request(self) -> None:
        if self._h11.our_state is not h11.DONE:
            return
        self._h11.start_next_cycle()
        self._head = None
        self._phase = _Phase.HEAD
        self._is_idle = True
        self._arm(self._limits.idle_s_max)
        self._transport.resume_reading()
        self._advance()  # never deep: whatever comes next is answered by a task of its own

    # --- the end

    def _arm(self, seconds: float) -> None:
        self._deadline.cancel()
        self._deadline = self._loop.call_later(seconds, self._time_is_up)

    def _time_is_up(self) -> None:
        began = bool(self._h11.trailing_data[0]) if self._phase is _Phase.HEAD else self._phase is _Phase.BODY
        if began:
            self._respond(problem(HTTPStatus.REQUEST_TIMEOUT), last=True)
        elif self._phase is _Phase.HEAD:
            self._say_farewell()
        else:
            self._transport.abort()

    def _say_farewell(self) -> None:
        """Half-close and drop what still comes: closing over unread bytes resets, and our answer may never be seen."""
        self._phase = _Phase.FAREWELL
        self._arm(self._service.transport_limits.close_s_max)
        self._transport.resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def _discard(self, nbytes: int) -> None:
        self._discarded += nbytes
        if self._discarded > self._service.transport_limits.discard_bytes_max:
            self._transport.abort()


def _request(head: h11.Request, body: bytes, peer: str) -> Request:
    target = head.target.decode("latin-1")
    if target.startswith(("http://", "https://")):  # absolute form, RFC 9112 §3.2.2: ours whatever the authority
        target = "/" + target.partition("://")[2].partition("/")[2]
    path, _, query = target.partition("?")
    version = head.http_version.decode()
    return Request(head.method.decode(), path, query, version, list(head.headers), body, peer, {})


def _h11_response(response: Response, *, last: bool) -> h11.Response:
    headers = [
        ("Date", formatdate(usegmt=True)),
        ("Content-Type", response.content_type),
        ("Content-Length", str(len(response.body))),
        *_FIXED_HEADERS,
        *response.headers,
    ]
    if last:
        headers.append(("Connection", "close"))
    return h11.Response(status_code=int(response.status), headers=headers, reason=HTTPStatus(response.status).phrase)
