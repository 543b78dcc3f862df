"""prosody: XMPP with stream management. Its acknowledgement says that it has handled the message: written it to the receiver's
session in memory, or to an offline file (not fsynced)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.crowd import Target
from bench.peers.packages import folders, program
from bench.peers.running import running
from bench.peers.shape import pairs_of
from bench.peers.xmpp import HOST, XmppReceiver, XmppSender
from bench.ports import free_port

_CONF: Final = """
run_as_root = true
interfaces = { "127.0.0.1" }
c2s_ports = { %(port)d }
network_settings = { tcp_backlog = 1024 }
data_path = "%(home)s"
modules_enabled = { "roster", "saslauth", "register_ibr", "smacks", "offline" }
modules_disabled = { "s2s", "tls" }
allow_registration = true
c2s_require_encryption = false
allow_unencrypted_plain_auth = true
authentication = "internal_plain"
storage = "internal"
log = { error = "*console" }
VirtualHost "%(host)s"
"""


@contextmanager
def prosody(home: Path) -> Iterator[Target]:
    """A private server: its program, told of the folders where its files are here."""
    port, found = free_port(), program("prosody")
    (home / "prosody.cfg.lua").write_text(_CONF % {"port": port, "home": home, "host": HOST})
    script = Path(found.path).read_text()
    for there, here in (("'/usr/lib", f"'{found.root / 'usr/lib'}"), ("'/etc/prosody", f"'{home}"), ("'/var/lib/prosody", f"'{home}")):  # fmt: skip
        script = script.replace(there, here)
    (home / "prosody.lua").write_text(script)
    lua = shutil.which("lua5.4", path=f"{found.root / 'usr/bin'}:{os.defpath}")
    env = found.env | {
        "LUA_PATH": f"{found.root}/usr/share/lua/5.4/?.lua;;",
        "LUA_CPATH": "".join(f"{folder}/?.so;" for folder in folders("usr/lib/*-linux-gnu/lua/5.4", root=found.root))
        + ";",
    }
    words = [lua or "lua5.4", str(home / "prosody.lua"), "-F", "--config", str(home / "prosody.cfg.lua")]
    with running("prosody", words, env, home, port, pairs_of(XmppSender, XmppReceiver)) as target:
        yield target
