"""chatctl backup: what one node keeps, copied into a new folder while chatd runs. The copy is a data folder to start from."""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from chatd.config import ChatConfig
from chatd.ctl import Refused, hint
from chatd.stores import back_up


def make_backup(config: ChatConfig, options: argparse.Namespace) -> None:
    """chatctl backup DIR. The folder is whole when it is there."""
    folder = Path(options.folder)
    if folder.exists():
        raise Refused(f"{folder} is there already: a backup is a folder of its own")
    has_store = config.mode != "cluster" and config.store_file.exists()
    draft = folder.with_name(f"{folder.name}.part")
    draft.mkdir(mode=0o700)  # one that was left says so: somebody else may be at it
    try:
        if has_store:
            back_up(config, draft)
        for source, name in _files(config):
            _copy(source, draft / name)
        _sync(draft)
        draft.rename(folder)
        _sync(folder.absolute().parent)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    kept = "the accounts and the store" if has_store else "the accounts"
    hint(f"{kept} were copied to {folder}" + ("; what waits lies in Redis" if config.mode == "cluster" else ""))


def _files(config: ChatConfig) -> Iterator[tuple[Path, str]]:
    """What there is, and what a data folder calls it. Letters lie in two files and a tray."""
    wanted = [(config.keys_file, "keys.toml"), (config.passwd_file, "passwd"), (config.revoked_file, "revoked")]
    if config.mode != "cluster":
        letters = config.dead_letters_file
        around = (letters, letters.with_name(letters.name + ".1"), letters.with_name(letters.name + ".return"))
        wanted += [(path, path.name) for path in around]
    yield from ((path, name) for path, name in wanted if path.exists())


def _copy(source: Path, target: Path) -> None:
    """A file, or a folder of files, for its owner only, synced."""
    if source.is_dir():
        target.mkdir(mode=0o700)
        for file in sorted(source.glob("*.letter")):
            _copy(file, target / file.name)
        return _sync(target)
    with (
        source.open("rb") as there,
        os.fdopen(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as here,
    ):
        shutil.copyfileobj(there, here)
        here.flush()
        os.fsync(here.fileno())
    return None


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
