"""Power cuts, without a machine to unplug: what a server wrote and did not fsync is gone.

A server's folder lies on an ext4 file system in an image file. At the cut its processes are killed and the image is
copied at once: the copy has what went through the loop device (fsynced, or written back), and nothing of the page cache
above it. The copy is mounted in its place, and its journal is replayed as after any power cut.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final

MIB: Final = 1024 * 1024
COMMAND_S_MAX: Final = 60.0
# The journal is committed by an fsync, or after this time: never by itself during a test.
MOUNT_OPTIONS: Final = "loop,commit=900"
_LOST, _KEPT = "not-synced", "synced"


class NoPower(Exception):
    """This machine cannot cut the power; the text says why."""


class Disk:
    """`with Disk(folder, mib=200) as disk:` an empty file system at `disk.path`, until the end.

    `cut` ends the processes by `kill` and goes back to what was safe; the folder's path stays the same. It proves itself
    each time: a file that was fsynced is there afterwards, one that was not is gone. Needs root.
    """

    def __init__(self, folder: Path, *, mib: int = 100) -> None:
        self.path = folder / "disk"
        self._image = folder / "image"
        self._mib = mib
        self._cuts = 0

    def __enter__(self) -> Disk:
        self.path.mkdir(parents=True)
        with self._image.open("wb") as image:
            image.truncate(self._mib * MIB)
        lazy = "lazy_itable_init=0,lazy_journal_init=0"  # or the kernel writes in the background
        _run("mkfs.ext4", "-q", "-F", "-m", "0", "-E", lazy, str(self._image))
        self._mount()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._unmount()

    def _mount(self) -> None:
        _run("mount", "-t", "ext4", "-o", MOUNT_OPTIONS, str(self._image), str(self.path))

    def _unmount(self) -> None:
        _run("umount", "--lazy", str(self.path))  # a log may be open still

    def settle(self) -> None:
        """Everything up to now is on the disk, as on a server that was set up long ago."""
        _run("sync", "--file-system", str(self.path))

    def mark(self) -> None:
        """Just before a cut: one file that must be lost, one that must be kept."""
        with (self.path / _KEPT).open("wb", buffering=0) as kept:
            kept.write(b"%d" % self._cuts)
            os.fsync(kept.fileno())
        folder = os.open(self.path, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
        (self.path / _LOST).write_bytes(b"x")

    def freeze(self) -> None:
        """What is safe at this moment, aside."""
        self._cuts += 1
        self._image = _copied(self._image, self._image.with_name(f"image-{self._cuts}"))

    def return_to_frozen(self) -> None:
        """The disk as it was at `freeze`. Nobody uses it at this moment."""
        self._unmount()
        self._mount()
        assert (self.path / _KEPT).read_bytes() == b"%d" % (self._cuts - 1), "what was fsynced is lost"
        lost = self.path / _LOST  # another file's fsync may have kept its name, but never its content
        assert not (lost.exists() and lost.read_bytes()), "what was not fsynced is there: this was no power cut"


def cut_power(disks: Iterable[Disk], kill: Callable[[], None]) -> None:
    """All disks at one moment. `kill` ends by SIGKILL whoever writes to them, and waits for their ends."""
    disks = list(disks)
    for disk in disks:
        disk.mark()
    kill()
    for disk in disks:
        disk.freeze()
    for disk in disks:
        disk.return_to_frozen()


def why_no_power() -> str:
    """Why there can be no power cut here; "" = there can."""
    if os.geteuid() != 0:
        return "a power cut needs root: it mounts a file system"
    missing = [name for name in ("mkfs.ext4", "mount", "umount", "cp") if shutil.which(name) is None]
    if missing:
        return f"a power cut needs {', '.join(missing)}"
    with tempfile.TemporaryDirectory(prefix="chatd-power-") as folder:
        try:
            with Disk(Path(folder), mib=8):
                return ""
        except NoPower as fault:
            return f"no file system can be mounted here: {fault}"


def _copied(source: Path, target: Path) -> Path:
    _run("cp", "--sparse=always", str(source), str(target))
    source.unlink()  # its loop device holds it until it is unmounted
    return target


def _run(*command: str) -> None:
    words: Sequence[str] = command
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=COMMAND_S_MAX)
    if done.returncode:
        raise NoPower(f"{' '.join(words)}: {done.stderr.strip()}")
