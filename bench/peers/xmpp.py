"""The XMPP client, for ejabberd and prosody: plain TCP, stream management (XEP-0198) both ways.

A sender counts a message as acknowledged when the server's <a/> covers it, and asks for one behind each write; a receiver
acknowledges once a read. Every user registers (XEP-0077) and logs in before anything is measured. The payload is a message's
body: the counter in decimal digits, filled up with letters.
"""

from __future__ import annotations

import base64
import re
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from bench.peers.shape import Party, Receiving, Sending

HOST: Final = "localhost"
DIGITS: Final = 20
PASSWORD: Final = "bench"
_OPEN: Final = (
    f"<stream:stream to='{HOST}' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
).encode()
_BIND: Final = b"<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>"
_ENABLE: Final = b"<enable xmlns='urn:xmpp:sm:3'/>"
_REQUEST: Final = b"<r xmlns='urn:xmpp:sm:3'/>"
_ACK: Final = b"<a xmlns='urn:xmpp:sm:3' h='%d'/>"
_MESSAGE, _MESSAGE_END, _BODY = b"<message ", b"</message>", b"<body>"
_TAG: Final = re.compile(rb"\s*<(/?[?\w:]+)([^>]*)>")
_NEVER_CLOSED: Final = (b"stream:stream", b"/stream:stream")  # while it lasts, and behind its end
_COUNTED: Final = (b"presence", b"iq")  # and messages: what an acknowledgement counts
_HANDLED: Final = re.compile(rb"\bh=['\"](\d+)")


class _Stream(Party):
    """One client: cuts the stream's elements, registers, logs in, acknowledges what it was sent."""

    def __init__(self, *words: object) -> None:
        super().__init__(*words)  # type: ignore[arg-type]  # those of the class beside it
        self._is_proved = False
        self._handled = 0
        self._told = 0
        self._is_asked = False

    def greet(self) -> None:
        self.transport.write(_OPEN)

    def take(self, data: bytes) -> int:
        at = 0
        while True:
            if data.startswith(_MESSAGE, at):
                stop = data.find(_MESSAGE_END, at)
                if stop < 0:
                    return at
                self._handled += 1
                self.message(data, at, stop)
                at = stop + len(_MESSAGE_END)
                continue
            tag = _TAG.match(data, at)
            if tag is None:
                return at
            name, stop = tag[1], tag.end()
            if tag[2][-1:] not in (b"/", b"?") and name not in _NEVER_CLOSED:
                end = b"</%b>" % name
                stop = data.find(end, stop) + len(end)
                if stop < len(end):
                    return at
            self._element(name, data[at:stop])
            at = stop

    def _element(self, name: bytes, text: bytes) -> None:
        self._handled += name in _COUNTED
        if name == b"a":
            self.acknowledged(_number(text))
        elif name == b"r":
            self._is_asked = True
        elif name == b"stream:features":
            self.transport.write(self.settle() if self._is_proved else self._register())
        elif name == b"iq" and not self._is_proved:
            self.transport.write(self._prove())
        elif name == b"success":
            self._is_proved = True
            self.transport.write(_OPEN)
        elif name == b"enabled":
            self._handled = 0
            self.welcome()
        elif name in (b"failure", b"failed", b"stream:error"):
            self.errors.append(text.decode())

    def _register(self) -> bytes:
        form = f"<username>{escape(self.user)}</username><password>{PASSWORD}</password>"
        return f"<iq type='set' id='new'><query xmlns='jabber:iq:register'>{form}</query></iq>".encode()

    def _prove(self) -> bytes:
        proof = base64.b64encode(f"\0{self.user}\0{PASSWORD}".encode())
        return b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>%b</auth>" % proof

    def settle(self) -> bytes:
        """What is asked for behind the proof; the answer to the last of it ends the login."""
        return _BIND + _ENABLE

    def message(self, data: bytes, at: int, stop: int) -> None:
        """One message, without its end tag."""
        self.errors.append(data[at:stop].decode())

    def acknowledged(self, count: int) -> None:
        """The server has handled so many stanzas of ours."""

    def turn(self) -> None:
        if self.ready.done() and (self._is_asked or self._handled > self._told):
            self._is_asked, self._told = False, self._handled
            self.transport.write(_ACK % self._handled)
        super().turn()


class XmppSender(_Stream, Sending):
    """Sends chat messages to a user's bare address, and asks behind each write how many were handled."""

    behind = _REQUEST

    def greet(self) -> None:
        self._head = f"<message to={quoteattr(f'{self.to}@{HOST}')} type='chat' id='".encode()
        self._tail = b"x" * (self.payload_bytes - DIGITS) + b"</body></message>"
        super().greet()

    def pack(self, number: int) -> bytes:
        return b"%b%d'><body>%020d%b" % (self._head, number, number, self._tail)

    def acknowledged(self, count: int) -> None:
        for number in range(self.accepted, count):
            self.took(number)


class XmppReceiver(_Stream, Receiving):
    """Is present, so that messages come."""

    def settle(self) -> bytes:
        return _BIND + b"<presence/>" + _ENABLE

    def message(self, data: bytes, at: int, stop: int) -> None:
        body = data.find(_BODY, at, stop) + len(_BODY)
        if body < len(_BODY):
            super().message(data, at, stop)
        else:
            self.note(int(data[body : body + DIGITS]))

    def turn(self) -> None:
        self.reads += self._handled > self._told
        super().turn()


def _number(text: bytes) -> int:
    found = _HANDLED.search(text)
    return int(found[1]) if found else 0
