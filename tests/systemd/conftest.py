from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.tokens import Mint
from tests.systemd.chat_machine import ChatMachine
from tests.systemd.machine import make_root, missing


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChatMachine]:
    """A machine with systemd, on which nothing of ours is installed."""
    if lacks := missing():
        pytest.skip(lacks)
    root, package = Path(os.environ["SYSTEMD_ROOT"]), Path(os.environ["CHATD_DEB"])
    make_root(root)
    folder = tmp_path_factory.mktemp("machine")
    shared = folder / "shared"
    shared.mkdir()
    shutil.copy(package, shared / "chatd.deb")
    with ChatMachine(root, folder, shared, Mint(folder / "keys")) as machine:
        yield machine


@pytest.fixture(scope="session")
def machine(bare: ChatMachine) -> ChatMachine:
    """The same with the package installed, and one embedded chatd that runs."""
    bare.install()
    bare.configure()
    return bare
