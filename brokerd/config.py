"""What brokerd can be told: BrokerConfig, and the sections that it shares with chatd."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from brokerd import settings, settings_text
from brokerd.links.amqp_url import ALLOWED as RABBIT_ALLOWED
from brokerd.links.amqp_url import rabbit_urls
from brokerd.links.resp_url import ALLOWED as REDIS_ALLOWED
from brokerd.links.resp_url import RedisUrl
from brokerd.settings import Problem, SettingsError, setting
from brokerd.tracing import KEEP_S_DEFAULT, MESSAGES_MAX_DEFAULT, ONE_IN_DEFAULT, ONE_IN_MAX
from protocol.names import NAME_ALLOWED, is_name
from protocol.wire import BODY_BYTES_HARD_MAX

T = TypeVar("T")

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB
DAY_S: Final = 24 * 3600
SHARDS_MAX: Final = 1024
CONFIG_FILE_BYTES_MAX: Final = MIB
EXIT_USAGE: Final = 2
HOST_ALLOWED: Final = "an address or a host name"
_is_host = re.compile(r"[A-Za-z0-9.:_%-]+").fullmatch


def is_redis_url(text: str) -> bool:
    """Whether `text` names a Redis server, and the authorities it names can be read."""
    try:
        RedisUrl.parse(text).tls()
    except (ValueError, OSError):
        return False
    return True


def is_rabbit_url(text: str) -> bool:
    """Whether `text` names a RabbitMQ server, or several of one cluster."""
    try:
        rabbit_urls(text)
    except ValueError:
        return False
    return True


def is_host(text: str) -> bool:
    """Whether `text` may be an address or the name of a host."""
    return _is_host(text) is not None


def is_prefix(text: str) -> bool:
    """Whether `text` may begin our keys and queue names: a name that no separator of them can stand in."""
    return is_name(text) and text.isalnum()


@dataclass(frozen=True, slots=True)
class RedisSection:
    """[redis]"""

    url: str = setting(
        "redis://127.0.0.1:6379/0",
        "where the sent_queues and the register are (cluster)",
        check=is_redis_url,
        allowed=REDIS_ALLOWED,
        is_secret=True,
    )
    wait_replicas: int = setting(
        0, "a batch counts as saved when so many replicas have it too (WAIT)", at_least=0, at_most=9
    )


@dataclass(frozen=True, slots=True)
class RabbitSection:
    """[rabbit]"""

    url: str = setting(
        "amqp://guest:guest@127.0.0.1:5672/",
        "where the shards and the nodes' queues are (cluster)",
        check=is_rabbit_url,
        allowed=RABBIT_ALLOWED,
        is_secret=True,
    )
    quorum_size: int | None = setting(
        None,
        "on how many RabbitMQ nodes a shard lies; not set: as RabbitMQ is set to (3). It cannot be changed later",
        at_least=1,
        at_most=9,
    )


@dataclass(frozen=True, slots=True)
class QueueSection:
    """[queue]: the bounds of one user's sent_queue. A full one refuses what is new."""

    count_max: int = setting(10_000, "messages that may wait for one user", at_least=1, at_most=1_000_000)
    bytes_max: int = setting(
        64 * MIB, "bytes that may wait for one user", at_least=BODY_BYTES_HARD_MAX, at_most=16 * GIB
    )
    retention_s: int = setting(
        30 * DAY_S, "how long a message and an absent device are kept", at_least=60, at_most=400 * DAY_S
    )


@dataclass(frozen=True, slots=True)
class TracesSection:
    """[traces]: what `chatctl trace` can tell afterwards. Failures are always kept, of the rest a sample."""

    one_in: int = setting(
        ONE_IN_DEFAULT,
        "one message in so many is traced when all goes well, the same ones everywhere; 1 = each, 0 = none",
        at_least=0,
        at_most=ONE_IN_MAX,
        check=lambda number: number & (number - 1) == 0,
        allowed=f"0, or a power of two up to {ONE_IN_MAX:_}",
    )
    messages_max: int = setting(
        MESSAGES_MAX_DEFAULT, "messages whose traces are kept, 1 to 2 KiB each", at_least=1, at_most=10_000_000
    )
    keep_s: int = setting(
        KEEP_S_DEFAULT, "how long a trace is kept after its last hop", at_least=60, at_most=400 * DAY_S
    )


@dataclass(frozen=True, slots=True)
class LogSection:
    """[log]"""

    level: str = setting("info", "the least that is logged", choices=("debug", "info", "warning", "error"))
    format: str = setting(
        "auto",
        "json for machines, journal: with systemd's priorities, console for people; auto: what fits",
        choices=("auto", "json", "journal", "console"),
    )


@dataclass(frozen=True, slots=True)
class BatchSection:
    """[batch]: how much brokerd takes at once. It takes what is there and never waits for more."""

    prefetch_max: int = setting(32, "batches of a shard that RabbitMQ sends ahead", at_least=1, at_most=4096)


@dataclass(frozen=True, slots=True)
class BrokerHttpSection:
    """[http] of brokerd: for a scraper and a supervisor, without TLS and without a login; so off until it has a port."""

    host: str = setting(
        "127.0.0.1", "listens here for /metrics, /livez and /readyz", check=is_host, allowed=HOST_ALLOWED
    )
    port: int | None = setting(None, "0 takes a free one; not set: it does not listen", at_least=0, at_most=65_535)


@dataclass(frozen=True, slots=True)
class BrokerConfig:
    """All that brokerd can be told. File: --config or BROKERD_CONFIG; variables: BROKERD_…, which win."""

    name: str = setting("brokerd", "this broker's name in logs", check=is_name, allowed=NAME_ALLOWED)
    shards: int = setting(
        8, "inbound queues of a cluster; the same everywhere, for ever", at_least=1, at_most=SHARDS_MAX
    )
    prefix: str = setting(
        "chat",
        "begins every queue name in RabbitMQ (in Redis the db keeps systems apart)",
        check=is_prefix,
        allowed="1 to 64 of a-z 0-9",
    )
    redis: RedisSection = field(default_factory=RedisSection)
    rabbit: RabbitSection = field(default_factory=RabbitSection)
    queue: QueueSection = field(default_factory=QueueSection)
    batch: BatchSection = field(default_factory=BatchSection)
    traces: TracesSection = field(default_factory=TracesSection)
    http: BrokerHttpSection = field(default_factory=BrokerHttpSection)
    log: LogSection = field(default_factory=LogSection)


def load(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> BrokerConfig:
    """brokerd's config from its command line and environment (default: the process's own).

    Ends the process: 2 after saying all that is wrong, 0 after --check-config or --help."""
    options = parser("brokerd", "takes messages from the shards, keeps them, hands them on").parse_args(argv)
    return load_or_exit(BrokerConfig, "BROKERD", options, environ)


def load_again(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> BrokerConfig:
    """What load() would give now. Raises SettingsError instead of ending the process."""
    return read(BrokerConfig, "BROKERD", parser("brokerd", "").parse_args(argv).config, environ)


def parser(program: str, says: str) -> argparse.ArgumentParser:
    """The options of a daemon."""
    made = argparse.ArgumentParser(program, description=says)
    made.add_argument("--config", metavar="FILE", help=f"a TOML file (or ${program.upper()}_CONFIG)")
    made.add_argument("--check-config", action="store_true", help="say whether the settings are good, and end")
    return made


def load_or_exit(kind: type[T], prefix: str, options: argparse.Namespace, environ: Mapping[str, str] | None) -> T:
    """read(), with its errors told in words and --check-config obeyed."""
    try:
        config = read(kind, prefix, options.config, environ)
    except SettingsError as error:
        sys.stderr.write("".join(f"{prefix.lower()}: {problem}\n" for problem in error.problems))
        raise SystemExit(EXIT_USAGE) from None
    if options.check_config:
        sys.stdout.write("# ok\n" + settings_text.effective(config))
        raise SystemExit(0)
    return config


def read(kind: type[T], prefix: str, file: str | None, environ: Mapping[str, str] | None = None) -> T:
    """The config of `kind` from `file` (else $<prefix>_CONFIG, else none) and the environment. Raises SettingsError."""
    environ = os.environ if environ is None else environ
    where = file or environ.get(f"{prefix}_CONFIG", "")
    both = {**_credentials(kind, prefix, environ), **environ}
    return settings.build(kind, prefix, both, _text_of(where) if where else "", where)


def _credentials(kind: type, prefix: str, environ: Mapping[str, str]) -> dict[str, str]:
    """What a service manager laid into $CREDENTIALS_DIRECTORY, as the variables that it stands for: the file
    `<daemon>_<key>` is the value of that key, or where the key wants a file, that file."""
    folder = environ.get("CREDENTIALS_DIRECTORY", "")
    names = {f"{prefix.lower()}_{leaf.key}": leaf for leaf in settings.leaves(kind)}
    found: dict[str, str] = {}
    try:
        given = sorted(os.listdir(folder)) if folder else []
    except OSError as error:
        raise SettingsError([Problem("the credentials", folder, f"can not be read: {error.strerror}")]) from None
    for name in given:
        path = Path(folder) / name
        if leaf := names.get(name):
            found[leaf.variable(prefix)] = str(path) if leaf.kind is Path else _text_of(str(path)).strip()
        elif name.startswith(prefix.lower() + "_"):
            raise SettingsError([Problem(name, folder, "there is no key that this credential could be for")])
    return found


def _text_of(file: str) -> str:
    try:
        data = Path(file).read_bytes()
        if len(data) <= CONFIG_FILE_BYTES_MAX:
            return data.decode()
        why = f"is longer than {CONFIG_FILE_BYTES_MAX} bytes"
    except OSError as error:
        why = f"can not be read: {error.strerror}"
    except UnicodeDecodeError:
        why = "is not UTF-8"
    raise SettingsError([Problem("the file", file, why)])
