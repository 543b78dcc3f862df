"""chatctl store: what an operator decides about the store as a whole."""

from __future__ import annotations

import argparse
import asyncio

from chatd.auth.files import read_text
from chatd.auth.passwords import parse_passwords
from chatd.config import ChatConfig
from chatd.ctl import hint
from chatd.stores import accept_store


def accept_the_store(config: ChatConfig, options: argparse.Namespace) -> None:
    """chatctl store accept: the store lost what it held, or is another, and is to be used as it is."""
    users = parse_passwords(read_text(config.passwd_file)) if config.passwd_file.exists() else {}
    asyncio.run(accept_store(config, users))
    hint(
        f"the store is accepted as it is, {len(users)} users with passwords are known in it; the daemons go on by themselves"
    )
