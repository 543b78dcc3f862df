"""Users that are chatd's own (the canary): nobody becomes one from outside, whatever the password file says or a token names."""

from __future__ import annotations

import hmac
import secrets
from hashlib import blake2b
from typing import Final

from chatd.ports import Accounts, Identity, LoginRefused
from protocol.errors import Code
from protocol.wire import NAME_BYTES_MAX, Scheme

OWN_PREFIX: Final = "chatd-canary."
_HASH_BYTES: Final = 4
_NODE_BYTES_MAX: Final = NAME_BYTES_MAX - len(OWN_PREFIX) - len(".a")


def is_own(user: str) -> bool:
    """Whether a user is chatd's own."""
    return user.startswith(OWN_PREFIX)


def own_names(node: str) -> tuple[str, str]:
    """The two users of a node: the same after every start, so that they leave nothing behind in the store. Of a name that is
    too long the end is a hash."""
    if len(node) > _NODE_BYTES_MAX:
        tail = blake2b(node.encode(), digest_size=_HASH_BYTES).hexdigest()
        node = f"{node[: _NODE_BYTES_MAX - len(tail) - 1]}-{tail}"
    return f"{OWN_PREFIX}{node}.a", f"{OWN_PREFIX}{node}.b"


class OwnUsers:
    """chatd.ports.Accounts before those of people: opens the own users to `secret`, and to nothing else."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        self.secret: Final = secrets.token_urlsafe(32)  # of this process alone: nobody has it to lose it

    async def prove(self, scheme: int, user: str, secret: str, peer: str) -> Identity:
        """See Accounts."""
        if is_own(user):
            given = secret.encode(errors="replace")
            if scheme != Scheme.TOKEN or not hmac.compare_digest(given, self.secret.encode()):
                raise LoginRefused(Code.BAD_CREDENTIALS, "the user is chatd's own")
            return Identity(user, None)
        identity = await self._accounts.prove(scheme, user, secret, peer)
        if is_own(identity.user):  # a token may say by itself whose it is
            raise LoginRefused(Code.BAD_CREDENTIALS, "the token's subject is chatd's own")
        return identity

    def is_open(self, user: str, proof: str = "") -> bool:
        """See Accounts."""
        return is_own(user) or self._accounts.is_open(user, proof)
