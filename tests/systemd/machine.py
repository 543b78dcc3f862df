"""A machine with a real systemd for a test: systemd-nspawn on a Debian root, with a network of its own and a root file
system that is thrown away at the end. Needs root, debootstrap and systemd-container.

No systemd need run outside, so the container is not registered anywhere; it gets a cgroup of its own by hand.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVar

T = TypeVar("T")

BOOT_S_MAX: Final = 60.0
COMMAND_S_MAX: Final = 120.0
POLL_S: Final = 0.05
PACKAGES: Final = (
    "systemd", "systemd-sysv", "dbus", "libpam-systemd", "python3", "procps", "iproute2", "curl", "openssl",
    "redis-server", "rabbitmq-server", "python3-venv", "ca-certificates",
)  # fmt: skip
CLONE_NEWNET: Final = 0x40000000
CGROUPS: Final = Path("/sys/fs/cgroup")


def make_root(root: Path) -> None:
    """A Debian root file system, once; it is kept for the next time."""
    if (root / "usr/bin/redis-server").exists():
        return
    mirror = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)"], check=True, capture_output=True, text=True
    ).stdout.split()[0]
    root.parent.mkdir(parents=True, exist_ok=True)
    command = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", "bookworm", str(root), mirror]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


class Machine:
    """`with Machine(root, folder) as machine:` boots it and switches it off. `shared` folders are seen inside, read-only."""

    def __init__(self, root: Path, folder: Path, shared: Sequence[Path] = ()) -> None:
        self._root = root
        self._folder = folder
        self._shared = shared
        self._name = f"chatd-test-{os.getpid()}"
        hierarchies = [CGROUPS / name for name in ("systemd", "unified") if (CGROUPS / name).is_dir()]
        self._cgroups = [hierarchy / self._name for hierarchy in hierarchies or [CGROUPS]]
        self._process: subprocess.Popen[bytes] | None = None
        self.leader = 0

    def __enter__(self) -> Machine:
        try:
            self._boot()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _boot(self) -> None:
        for cgroup in self._cgroups:
            cgroup.mkdir()
        join = " && ".join(f"echo $$ > {cgroup}/cgroup.procs" for cgroup in self._cgroups)
        nspawn = [
            "systemd-nspawn", "--quiet", f"--directory={self._root}", f"--machine={self._name}", "--register=no",
            "--keep-unit", "--private-network", "--link-journal=no", "--volatile=overlay", "--hostname=chatbox",
            "--console=read-only", *(f"--bind-ro={path}" for path in self._shared), "--boot", "systemd.log_target=journal",
        ]  # fmt: skip
        script = f'{join} && mount -t tmpfs -o mode=755 none /run/systemd && exec "$@"'
        with (self._folder / "console").open("wb") as console:
            self._process = subprocess.Popen(
                ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *nspawn],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        self.wait(self._find_leader, "the machine has an init", BOOT_S_MAX)
        self.wait(self._is_up, "the machine is up", BOOT_S_MAX)

    def _find_leader(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "console").read_text(errors="replace")
        for procs in self._cgroups[0].rglob("cgroup.procs"):
            for pid in procs.read_text().split():
                if len(inside := _pids(int(pid))) > 1 and inside[-1] == 1:
                    self.leader = int(pid)
                    return True
        return False

    def _is_up(self) -> bool:
        return self.run("systemctl", "is-system-running", check=False).strip() in ("running", "degraded")

    def close(self) -> None:
        """Switch it off, and leave nothing behind."""
        if self.leader:
            self.run("systemctl", "poweroff", "--no-wall", check=False)
            try:
                self.wait(lambda: not _pids(self.leader), "the machine is off", BOOT_S_MAX)
            except AssertionError:
                os.kill(self.leader, 9)
        if self._process is not None:
            if not self.leader:
                self._process.kill()
            self._process.wait(BOOT_S_MAX)
        for cgroup in self._cgroups:
            for folder in [*sorted(cgroup.rglob("*/"), reverse=True), cgroup]:
                if folder.is_dir():
                    folder.rmdir()

    def run(self, *words: str, check: bool = True, text: str | None = None) -> str:
        """Run a command inside, as root; what it printed. Fails with its standard error."""
        done = subprocess.run(
            ["nsenter", f"--target={self.leader}", "--all", "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", *words],
            input=text,
            capture_output=True,
            text=True,
            timeout=COMMAND_S_MAX,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{' '.join(words)}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    def write(self, path: str, text: str, mode: str = "644") -> None:
        """Put a file there."""
        self.run("mkdir", "-p", str(Path(path).parent))
        self.run("sh", "-c", f"umask 077; cat > {path}; chmod {mode} {path}", text=text)

    def property(self, unit: str, name: str) -> str:
        """Of a unit."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).strip()

    def journal(self, unit: str) -> str:
        """What a unit logged, and what the manager said of it."""
        return self.run("journalctl", "--no-pager", "--output=cat", f"--unit={unit}")

    def inside(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run `work()` of this very process in a loop of its own, in the machine's network."""
        return run_in_network(self.leader, work)

    def wait(self, is_so: Callable[[], bool], what: str, s_max: float = 30.0) -> float:
        """Until it is so; the seconds that it took. Fails after `s_max`."""
        begin_s = time.monotonic()
        while not is_so():
            assert time.monotonic() - begin_s < s_max, f"not within {s_max} s: {what}"
            time.sleep(POLL_S)
        return time.monotonic() - begin_s


def run_in_network(pid: int, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run `work()` in a loop of its own, in the network namespace of process `pid`."""

    def enter_and_run() -> T:
        with Path(f"/proc/{pid}/ns/net").open() as net:
            # of this thread alone; os.setns comes with Python 3.12
            if ctypes.CDLL(None, use_errno=True).setns(net.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
        return asyncio.run(work())

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(enter_and_run).result()


def _pids(pid: int) -> list[int]:
    """Of a process in its nested pid namespaces, the outermost first; none when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    if "\nState:\tZ" in status:
        return []
    return next([int(word) for word in line.split()[1:]] for line in status.splitlines() if line.startswith("NSpid"))


def missing() -> str:
    """What this machine lacks to be a host of such machines; "" when it lacks nothing."""
    if os.geteuid() != 0:
        return "needs root"
    programs = [name for name in ("debootstrap", "systemd-nspawn", "nsenter", "unshare") if not shutil.which(name)]
    return f"not installed: {', '.join(programs)}" if programs else ""
