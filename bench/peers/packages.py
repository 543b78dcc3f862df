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
PACKAGES: Final = {
    "mosquitto": ("mosquitto", "libmosquitto1", "libdlt2", "libcjson1", "libwrap0", "libcap2"),
    "nats-server": ("nats-server",),
}
FETCH_S_MAX: Final = 180.0


class Missing(Exception):
    """A program is not there, and could not be fetched. The text says which."""


class Program(NamedTuple):
    """Where it is, and the environment that it needs."""

    path: str
    env: dict[str, str]


def program(name: str) -> Program:
    """The installed program, or the unpacked one, fetched when it is missing. Raises Missing."""
    installed = shutil.which(name, path=os.defpath + ":/usr/sbin:/sbin")
    if installed:
        return Program(installed, {})
    path = ROOT / "usr" / "sbin" / name
    if not path.exists():
        _fetch(name)
    libraries = ":".join(str(found) for found in (ROOT / "usr" / "lib").glob("*-linux-gnu"))
    return Program(str(path), {"LD_LIBRARY_PATH": libraries})


def _fetch(name: str) -> None:
    debs = ROOT.parent / "debs"
    debs.mkdir(parents=True, exist_ok=True)
    try:
        _call("apt-get", "download", "-q", *PACKAGES[name], cwd=debs)
        for deb in debs.glob("*.deb"):
            _call("dpkg", "-x", str(deb), str(ROOT), cwd=debs)
    except (OSError, subprocess.SubprocessError) as fault:
        raise Missing(f"{name} is not installed, and cannot be fetched: {fault}") from fault
    if not (ROOT / "usr" / "sbin" / name).exists():
        raise Missing(f"{name} is not in its package")


def _call(*words: str, cwd: Path) -> None:
    subprocess.run(words, cwd=cwd, check=True, capture_output=True, timeout=FETCH_S_MAX)
