"""A session without a transport: what it wants done, and what its peer hears."""

from __future__ import annotations

from brokerd.ports import Opened
from chatd.effects import (
    Effect,
    Gate,
    Login,
    PostBurst,
    PostEntry,
)
from chatd.ports import Identity
from chatd.session import Session
from protocol.codec import encode, encode_body
from protocol.connection import ServerConnection
from protocol.envelope import EntryPost, PostKind
from protocol.errors import ERRORS, Code
from protocol.messages import (
    Deliver,
    Error,
    Hello,
    Message,
)
from protocol.names import device_tag, message_id
from protocol.wire import TTL_S_MAX, Limits, Processed, Type
from tests.core.peers import GENERATION, NOW_MS, NOW_S, hello, messages_of

TAG = device_tag("ann", "laptop")
EXPIRES_MS = NOW_MS + TTL_S_MAX * 1000


class Rig:
    """A session with its gate."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.gate = Gate()
        self.session = Session(ServerConnection(limits or Limits(), now_s=NOW_S, preface=False), "5", self.gate)

    def say(self, *messages: Message, after_s: float = 0.0) -> list[Effect]:
        """What the session wants done when the peer says this in one breath, so long after the rig was made."""
        self.session.receive(b"".join(encode(message) for message in messages), NOW_S + after_s, NOW_MS)
        return singly(self.session.take_effects())

    def heard(self) -> list[Message]:
        """What the peer hears."""
        return messages_of(self.session.conn.bytes_to_send())

    def log_in(self, login: Hello | None = None, opened: Opened | None = None) -> list[Effect]:
        """Through to WELCOME, which stays to be heard."""
        login = login or hello()
        opened = opened or Opened(0, 0, GENERATION, 1)
        assert self.say(login) == [Login(login)]
        self.session.user, self.session.device = login.user, login.device
        self.session.logged_in(login, Identity("ann", None), opened, node="n1", now_s=NOW_S, now_ms=NOW_MS)
        return self.session.take_effects()


def singly(effects: list[Effect]) -> list[Effect]:
    """With each message of a burst as if it had been decided by itself."""
    single: list[Effect] = []
    for effect in effects:
        if isinstance(effect, PostBurst):
            single += [PostEntry(post.cid, post, None) for post in effect.posts]
        else:
            single.append(effect)
    return single


def opened_rig(limits: Limits | None = None, *, devices: int = 1) -> Rig:
    rig = Rig(limits)
    rig.log_in(opened=Opened(0, 0, GENERATION, devices))
    rig.heard()
    return rig


def error(ref: int, code: Code, detail: str = "", *, retry_ms: int = 0, processed: Processed = Processed.NO) -> Error:
    return Error(ref, 0, int(code), int(processed), retry_ms, detail or ERRORS[code].english)


def message(
    cid: int, to: str = "bob", payload: bytes = b"tea?", flags: int = 0, expires_ms: int = EXPIRES_MS
) -> EntryPost:
    body = encode_body(Deliver(0, 0, "ann", message_id(TAG, cid), NOW_MS, payload))
    return EntryPost(PostKind.ENTRY, to, TAG, cid, Type.DELIVER, flags, expires_ms, body)
