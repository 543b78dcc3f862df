"""A Docker of our own: Debian's dockerd with its data in a folder, without a registry, and without a trace on this machine.

It runs twice. To build, in this machine's network (pip needs it), with no bridge and no packet filter. To run, in a
network namespace of its own, where it may have bridges, names and published ports without anybody seeing them.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.systemd.machine import make_root

START_S_MAX: Final = 60.0
IMAGES: Final = Path(__file__).parent / "images"
BASE: Final = "chat-test-base"
CERTIFICATES: Final = "/etc/ssl/certs/ca-certificates.crt"
STANDS_FOR: Final = {"python": "python:3.11-slim-bookworm", "redis": "redis:7", "rabbitmq": "rabbitmq:3-management"}
NO_NETWORK: Final = ("--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false")
# Its runtime files are its own, and it sees an /etc that it may write.
SCRIPT: Final = """
mount -t tmpfs -o mode=755 none /run && mkdir -p /run/lock "$0/etc-upper" "$0/etc-work"
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$0/etc-upper,workdir=$0/etc-work" /etc
if [ -n "$1" ]; then ip link set lo up && mount -t sysfs none /sys/class/net 2>/dev/null || true; fi
shift
exec dockerd --data-root "$0/data" --exec-root /run/docker --pidfile "$0/pid" --host "unix://$0/socket" \
    --storage-driver overlay2 --log-level warn "$@"
"""


class DockerHost:
    """`start(private=…)`, `stop()`; between them docker and docker-compose work on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of dockerd, whose network namespace is the host's."""
        return int((self.folder / "pid").read_text())

    def start(self, *, private: bool) -> None:
        """Start dockerd, in a network of its own or in this machine's."""
        self.folder.mkdir(parents=True, exist_ok=True)
        unshare = ["unshare", "--mount", "--propagation", "private", *(["--net"] if private else [])]
        flags = () if private else NO_NETWORK
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*unshare, "sh", "-c", SCRIPT, str(self.folder), "private" if private else "", *flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            )
        end_s = time.monotonic() + START_S_MAX
        while subprocess.run([*self.docker("version")], env=self.env(), capture_output=True).returncode:
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < end_s, self.log()
            time.sleep(0.1)

    def stop(self) -> None:
        """End it, with all containers."""
        if self._process is not None and self._process.poll() is None:
            os.kill(self.pid, signal.SIGTERM)
            self._process.wait(60)
        self._process = None
        for hierarchy in Path("/sys/fs/cgroup").glob("*/docker"):
            for folder in [*sorted(hierarchy.rglob("*/"), reverse=True), hierarchy]:
                if folder.is_dir():
                    folder.rmdir()

    def log(self) -> str:
        """The end of dockerd's own log."""
        return (self.folder / "log").read_text(errors="replace")[-2000:]

    def env(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """For docker and docker-compose."""
        ours = {"DOCKER_HOST": f"unix://{self.folder}/socket", "DOCKER_BUILDKIT": "0", "COMPOSE_DOCKER_CLI_BUILD": "0"}
        return {**os.environ, **ours, **(more or {})}

    def docker(self, *words: str) -> list[str]:
        """A docker command line."""
        return ["docker", *words]

    def run(self, *words: str, check: bool = True, text: str | None = None, s_max: float = 300) -> str:
        """Run a command with its environment; what it printed."""
        done = subprocess.run(words, env=self.env(), input=text, capture_output=True, text=True, timeout=s_max)
        assert not check or done.returncode == 0, f"{' '.join(words)}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout

    def make_images(self, root: Path) -> None:
        """The images that compose.yaml names, from a Debian root, when they are not there yet."""
        if not self.run("docker", "images", "-q", BASE).strip():
            make_root(root)
            pack = f"tar -C {root} --exclude=./dev --exclude=./proc --exclude=./sys -c . | docker import - {BASE}"
            self.run("sh", "-c", pack, s_max=600)
        context = self.folder / "images"
        shutil.copytree(IMAGES, context, dirs_exist_ok=True)
        shutil.copy(CERTIFICATES, context)
        for name, image in STANDS_FOR.items():
            self.run(
                "docker",
                "build",
                "--network=host",
                "-q",
                "-t",
                image,
                "-f",
                str(context / f"{name}.Dockerfile"),
                str(context),
            )
