"""The peers' programs, from Debian's packages: installed ones, else unpacked into a folder of the bench. Nothing is installed
and nothing is started by a package."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final, NamedTuple

from bench.output import OUT

ROOT: Final = OUT / "peers" / "root"
SYSTEM: Final = Path("/")
# A program, and what it needs beside what RabbitMQ (its Erlang) and any Debian have.
PACKAGES: Final = {
    "mosquitto": ("mosquitto", "libmosquitto1", "libdlt2", "libcjson1", "libwrap0", "libcap2"),
    "nats-server": ("nats-server",),
    "ejabberdctl": (
        "ejabberd", "erlang-idna", "erlang-jiffy", "erlang-jose", "erlang-p1-acme", "erlang-p1-cache-tab",
        "erlang-p1-eimp", "erlang-p1-pkix", "erlang-p1-stringprep", "erlang-p1-tls", "erlang-p1-utils", "erlang-p1-xml",
        "erlang-p1-xmpp", "erlang-p1-yaml", "erlang-p1-yconf", "erlang-p1-zlib", "erlang-unicode-util-compat",
        "libexpat1", "libyaml-0-2",
    ),
    "prosody": ("prosody", "lua5.4", "lua-expat", "lua-filesystem", "lua-sec", "lua-socket", "libexpat1", "libicu72"),
}  # fmt: skip
FETCH_S_MAX: Final = 180.0


class Missing(Exception):
    """A peer is not to be had on this machine. The text says what is missing."""


class Program(NamedTuple):
    """Where it is, the folder that its package's files are under, and the environment that it needs."""

    path: str
    root: Path
    env: dict[str, str]


def is_here(name: str) -> bool:
    """Whether `program` need not fetch anything."""
    return _installed(name) is not None or _unpacked(name) is not None


def program(name: str) -> Program:
    """The installed program, or the unpacked one, fetched when it is missing. Raises Missing."""
    installed = _installed(name)
    if installed is not None:
        return Program(installed, SYSTEM, {})
    if _unpacked(name) is None:
        _fetch(name)
    path = _unpacked(name)
    if path is None:
        raise Missing(f"{name} is not in its package")
    libraries = ":".join(map(str, folders("usr/lib/*-linux-gnu", "lib/*-linux-gnu", root=ROOT)))
    return Program(str(path), ROOT, {"LD_LIBRARY_PATH": libraries})


def folders(*patterns: str, root: Path) -> list[Path]:
    """Those that are there, in the order of the patterns."""
    return [found for pattern in patterns for found in sorted(root.glob(pattern))]


def _installed(name: str) -> str | None:
    return shutil.which(name, path=os.defpath + ":/usr/sbin:/sbin")


def _unpacked(name: str) -> Path | None:
    places = (ROOT / "usr" / folder / name for folder in ("sbin", "bin"))
    return next((path for path in places if path.exists()), None)


def _fetch(name: str) -> None:
    debs = ROOT.parent / "debs"
    debs.mkdir(parents=True, exist_ok=True)
    try:
        _call("apt-get", "download", "-q", *PACKAGES[name], cwd=debs)
        for deb in debs.glob("*.deb"):
            _call("dpkg", "-x", str(deb), str(ROOT), cwd=debs)
    except (OSError, subprocess.SubprocessError) as fault:
        raise Missing(f"{name} is not installed, and cannot be fetched: {fault}") from fault


def _call(*words: str, cwd: Path) -> None:
    subprocess.run(words, cwd=cwd, check=True, capture_output=True, timeout=FETCH_S_MAX)
