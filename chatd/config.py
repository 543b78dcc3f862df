"""What chatd (and chatctl) can be told: ChatConfig. `python -m chatd.config` prints docs/configuration.md from it."""

# ruff: noqa: RUF009 - `setting` is a dataclasses.field
from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from brokerd import settings_text
from brokerd.config import (
    GIB,
    HOST_ALLOWED,
    KIB,
    MIB,
    SHARDS_MAX,
    BrokerConfig,
    LogSection,
    QueueSection,
    RabbitSection,
    RedisSection,
    TracesSection,
    is_host,
    is_prefix,
    load_or_exit,
    parser,
)
from brokerd.config import read as read_config
from brokerd.settings import Conflict, setting
from protocol import wire
from protocol.names import NAME_ALLOWED, is_name

CANARY_S_MIN: Final = 0.1
_is_origin = re.compile(r"\*|https?://[^/\s]+").fullmatch


def _origin_check(text: str) -> bool:
    return _is_origin(text) is not None


@dataclass(frozen=True, slots=True)
class ListenSection:
    """What [tcp] and [http] share: an address, and TLS when both files are named."""

    host: str
    port: int
    tls_cert: Path | None = setting(None, "certificate chain (PEM): TLS is on")
    tls_key: Path | None = setting(None, "private key (PEM) of the certificate")

    def conflicts(self) -> Iterator[Conflict]:
        """Rules between keys; the files must be there."""
        if (self.tls_cert is None) != (self.tls_key is None):
            yield ("tls_cert", "tls_key"), "tls_cert and tls_key go together: name both or none"
        for key, path in (("tls_cert", self.tls_cert), ("tls_key", self.tls_key)):
            if path is not None and not path.is_file():
                yield (key,), f"there is no file {str(path)!r}"


@dataclass(frozen=True, slots=True)
class TcpSection(ListenSection):
    """[tcp]"""

    host: str = setting("127.0.0.1", "listens here for frames", check=is_host, allowed=HOST_ALLOWED)
    port: int = setting(7400, "0 takes a free one", at_least=0, at_most=65_535)


@dataclass(frozen=True, slots=True)
class HttpSection(ListenSection):
    """[http]"""

    host: str = setting("127.0.0.1", "listens here for HTTP and WebSocket", check=is_host, allowed=HOST_ALLOWED)
    port: int = setting(7480, "0 takes a free one", at_least=0, at_most=65_535)


@dataclass(frozen=True, slots=True)
class WsSection:
    """[ws]"""

    allowed_origins: tuple[str, ...] = setting(
        (),
        "web pages that may connect; a client without an Origin always may (comma between them in the variable)",
        check=_origin_check,
        allowed="a list of https://host[:port], or *",
    )


@dataclass(frozen=True, slots=True)
class LimitsSection:
    """[limits]: what one client may take."""

    body_bytes_max: int = setting(
        wire.BODY_BYTES_MAX_DEFAULT,
        "the longest frame body",
        at_least=wire.GREETING_BODY_BYTES_MAX,
        at_most=wire.BODY_BYTES_HARD_MAX,
    )
    keepalive_s: float = setting(
        wire.KEEPALIVE_S_DEFAULT,
        f"a client that is silent for {wire.KEEPALIVE_MISSES} of these is gone",
        at_least=1,
        at_most=3600,
    )
    unaccepted_max: int = setting(
        wire.UNACCEPTED_MAX, "SENDs of a session without an answer", at_least=1, at_most=wire.UNACCEPTED_MAX
    )
    credit_max: int = setting(
        wire.CREDIT_MAX, "deliveries to a session without an ACK", at_least=1, at_most=wire.CREDIT_MAX
    )
    login_s_max: float = setting(wire.LOGIN_S_MAX, "from the first byte to WELCOME", at_least=1, at_most=60)
    connections_max: int = setting(20_000, "connections in all", at_least=1, at_most=1_000_000)
    connections_per_address_max: int = setting(1000, "connections of one address", at_least=1, at_most=1_000_000)
    strangers_max: int = setting(
        4096, "connections that have not yet said HELLO (or a whole HTTP request); the oldest goes", at_least=1, at_most=1_000_000
    )  # fmt: skip
    strangers_per_address_max: int = setting(512, "the same, of one address", at_least=1, at_most=1_000_000)
    outbox_bytes_max: int = setting(MIB, "bytes that wait for one slow reader", at_least=16 * KIB, at_most=GIB)

    def conflicts(self) -> Iterator[Conflict]:
        """Rules between keys."""
        if self.outbox_bytes_max <= self.body_bytes_max + wire.HEAD_BYTES:
            yield (
                ("outbox_bytes_max", "body_bytes_max"),
                (
                    f"{self.outbox_bytes_max} must be larger than limits.body_bytes_max + {wire.HEAD_BYTES} = "
                    f"{self.body_bytes_max + wire.HEAD_BYTES}, or the longest frame could never leave"
                ),
            )
        if self.connections_per_address_max > self.connections_max:
            yield ("connections_per_address_max", "connections_max"), "must not be larger than limits.connections_max"


@dataclass(frozen=True, slots=True)
class AuthSection:
    """[auth]: a file that is not named is looked for in the data folder; none need be there."""

    keys_file: Path | None = setting(None, "keys of signed tokens; not set: `keys.toml` in data_dir")
    passwd_file: Path | None = setting(None, "users and password hashes; not set: `passwd` in data_dir")
    revoked_file: Path | None = setting(None, "users who may not log in at all; not set: `revoked` in data_dir")
    audience: str = setting("chatd", "what a token's aud must name", check=bool, allowed="text, not empty")
    issuer: str | None = setting(None, "what a token's iss must be; not set: any", check=bool, allowed="text")


@dataclass(frozen=True, slots=True)
class CanarySection:
    """[canary]: see chatd/canary.py."""

    every_s: float = setting(
        0.0,
        "two users of this node's own send each other a message so often, and /metrics says how long it takes; 0 = off",
        at_least=0,
        at_most=30,
        check=lambda seconds: seconds == 0 or seconds >= CANARY_S_MIN,
        allowed=f"0, or a number {CANARY_S_MIN:g} to 30",
    )


@dataclass(frozen=True, slots=True)
class ChatConfig:
    """All that chatd can be told. File: --config or CHATD_CONFIG; variables: CHATD_…, which win."""

    node: str = setting("chatd", "this node's name", check=is_name, allowed=NAME_ALLOWED)
    mode: str = setting(
        "embedded",
        "embedded: one process alone; cluster: with RabbitMQ, Redis and brokerd",
        choices=("embedded", "cluster"),
    )
    data_dir: Path = setting(Path(".data"), "folder for the embedded store and the account files")
    shards: int = setting(
        8, "inbound queues of a cluster; the same everywhere, for ever", at_least=1, at_most=SHARDS_MAX
    )
    prefix: str = setting(
        "chat",
        "begins every queue name in RabbitMQ (in Redis the db keeps systems apart)",
        check=is_prefix,
        allowed="1 to 64 of a-z 0-9",
    )
    lease_s: float = setting(
        15.0, "after a node's death its sessions stay in the register for at most this long", at_least=3, at_most=300
    )
    control_socket: Path | None = setting(
        None, "where chatctl reaches a running chatd (mode 0600); not set: `<node>.sock` in data_dir"
    )
    drain_s_max: float = setting(10.0, "how long a stop may take", at_least=0, at_most=600)
    tcp: TcpSection = field(default_factory=TcpSection)
    http: HttpSection = field(default_factory=HttpSection)
    ws: WsSection = field(default_factory=WsSection)
    limits: LimitsSection = field(default_factory=LimitsSection)
    redis: RedisSection = field(default_factory=RedisSection)
    rabbit: RabbitSection = field(default_factory=RabbitSection)
    queue: QueueSection = field(default_factory=QueueSection)
    auth: AuthSection = field(default_factory=AuthSection)
    canary: CanarySection = field(default_factory=CanarySection)
    traces: TracesSection = field(default_factory=TracesSection)
    log: LogSection = field(default_factory=LogSection)

    def conflicts(self) -> Iterator[Conflict]:
        """Rules between keys of different sections."""
        if self.tcp.port and (self.tcp.host, self.tcp.port) == (self.http.host, self.http.port):
            yield ("http.port", "tcp.port"), f"{self.http.port} is tcp.port as well: they need two ports"

    @property
    def keys_file(self) -> Path:
        """Where the keys of tokens are."""
        return self.auth.keys_file or self.data_dir / "keys.toml"

    @property
    def passwd_file(self) -> Path:
        """Where the password hashes are."""
        return self.auth.passwd_file or self.data_dir / "passwd"

    @property
    def revoked_file(self) -> Path:
        """Where the closed accounts are listed."""
        return self.auth.revoked_file or self.data_dir / "revoked"

    @property
    def control_path(self) -> Path:
        """The socket of a running chatd for chatctl."""
        return self.control_socket or self.data_dir / f"{self.node}.sock"

    @property
    def store_file(self) -> Path:
        """The embedded sent_queue."""
        return self.data_dir / "queue.sqlite"

    @property
    def traces_file(self) -> Path:
        """The embedded traces."""
        return self.data_dir / "traces.sqlite"

    @property
    def dead_letters_file(self) -> Path:
        """The embedded dead letters."""
        return self.data_dir / "dead-letters"

    def wire_limits(self) -> wire.Limits:
        """What WELCOME tells a client."""
        limits = self.limits
        return wire.Limits(
            body_bytes_max=limits.body_bytes_max,
            keepalive_s=limits.keepalive_s,
            unaccepted_max=limits.unaccepted_max,
            credit_max=limits.credit_max,
            login_s_max=limits.login_s_max,
            unread_max=self.queue.count_max,
        )


def load(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> ChatConfig:
    """chatd's config from its command line and environment (default: the process's own).

    Ends the process: 2 after saying all that is wrong, 0 after --check-config or --help."""
    options = parser("chatd", "the chat server: takes connections, moves messages").parse_args(argv)
    return load_or_exit(ChatConfig, "CHATD", options, environ)


def load_again(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> ChatConfig:
    """What load() would give now. Raises SettingsError instead of ending the process."""
    return read(parser("chatd", "").parse_args(argv).config, environ)


def read(file: str | None, environ: Mapping[str, str] | None = None, data_dir: str | None = None) -> ChatConfig:
    """The same without a command line; `data_dir` overrides both sources. Raises SettingsError."""
    config = read_config(ChatConfig, "CHATD", file, environ)
    return config if data_dir is None else replace(config, data_dir=Path(data_dir).expanduser())


def document() -> str:
    """docs/configuration.md. A test holds the file to it."""
    return (
        "# Configuration\n\n"
        "<!-- Printed by `python -m chatd.config > docs/configuration.md`; do not edit. -->\n\n"
        "A key `section.name` is `name = …` under `[section]` in the TOML file (`--config FILE`, `CHATD_CONFIG`,\n"
        "`BROKERD_CONFIG`); a key without a dot stands above the first section. The variable wins over the file.\n"
        "An empty variable un-sets what may be not set. Relative paths begin at the working directory.\n"
        "Unknown keys and unknown `CHATD_…` / `BROKERD_…` variables are refused. `--check-config` says whether all is\n"
        "good and prints what is in effect, without secrets. Bytes and seconds are plain numbers.\n\n"
        "## chatd and chatctl\n\n"
        + settings_text.reference(ChatConfig, "CHATD")
        + "\n## brokerd\n\n"
        + "`shards` and `prefix` must be those of chatd, `queue.*` is what brokerd keeps to in a cluster.\n\n"
        + settings_text.reference(BrokerConfig, "BROKERD")
    )


if __name__ == "__main__":
    sys.stdout.write(document())
