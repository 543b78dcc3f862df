"""ejabberd: XMPP with stream management. Its acknowledgement says that it has handled the message: passed it to the receiver's
session in memory, or to the offline store (Mnesia, not fsynced)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.crowd import Target
from bench.peers.packages import Missing, folders, program
from bench.peers.running import running
from bench.peers.shape import pairs_of
from bench.peers.xmpp import HOST, XmppReceiver, XmppSender
from bench.ports import free_port

# Debian's has a backlog of 5 and limits of rates, which are for the internet.
_CONF: Final = """
hosts: [{host}]
loglevel: error
default_db: mnesia
auth_password_format: plain
registration_timeout: infinity
listen:
  - {{port: {port}, ip: "127.0.0.1", module: ejabberd_c2s, backlog: 1024}}
modules:
  mod_roster: {{}}
  mod_offline: {{}}
  mod_register: {{}}
  mod_stream_mgmt: {{max_ack_queue: 100000, resend_on_timeout: if_offline}}
"""
# No busy waiting, as the bench's RabbitMQ, and no distribution: one node needs no epmd.
_ERLANG: Final = ["+K", "true", "+P", "250000", "+S", "2:2", "+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none"]


@contextmanager
def ejabberd(home: Path) -> Iterator[Target]:
    """A private node. Its Erlang is the installed one; what else it needs may come from unpacked packages."""
    port, found, erlang = free_port(), program("ejabberdctl"), shutil.which("erl")
    if erlang is None:
        raise Missing("Erlang is not installed: apt-get install rabbitmq-server")
    (home / "ejabberd.yml").write_text(_CONF.format(host=HOST, port=port))
    env = found.env | {
        "PATH": os.defpath,
        "HOME": str(home),
        "ERL_LIBS": ":".join(map(str, folders("usr/lib/erlang/lib", "usr/lib/*-linux-gnu", root=found.root))),
        "EJABBERD_CONFIG_PATH": str(home / "ejabberd.yml"),
        "EJABBERD_LOG_PATH": str(home / "ejabberd.log"),
    }
    words = [erlang, "-noinput", *_ERLANG, "-mnesia", "dir", f'"{home / "mnesia"}"', "-s", "ejabberd"]
    with running("ejabberd", words, env, home, port, pairs_of(XmppSender, XmppReceiver)) as target:
        yield target
