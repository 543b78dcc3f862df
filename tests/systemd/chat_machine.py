"""A machine on which our package is installed: what an operator would do on it."""

from __future__ import annotations

import json
import re
import secrets
from pathlib import Path
from typing import Any, Final

from bench.tokens import Mint
from tests.systemd.machine import Machine

CHATD: Final = "chatd@1.service"
DROP_IN: Final = "/etc/systemd/system/chatd@.service.d/test.conf"
WATCHDOG_S: Final = 3
LIMITS: Final = "[limits]\nconnections_per_address_max = 10000\nstrangers_per_address_max = 4096\n"
# A hung loop, made from outside: the product has no switch for it. Every Python of the virtual environment reads this.
HANG: Final = "import signal; signal.signal(signal.SIGUSR2, lambda *_: __import__('time').sleep(600))\n"


class ChatMachine(Machine):
    """See the module."""

    def __init__(self, root: Path, folder: Path, shared: Path, mint: Mint) -> None:
        super().__init__(root, folder, [shared])
        self.package = shared / "chatd.deb"
        self.mint = mint
        self.password = secrets.token_hex(16)  # of Redis

    def install(self) -> None:
        """The package, as `apt install ./chatd.deb` does it; also an upgrade."""
        self.run("dpkg", "--install", str(self.package))

    def configure(self) -> None:
        """Keys as a credential, a short watchdog, room for a crowd from one address, and a way to hang the loop."""
        self.write("/etc/chatd/credentials/auth.keys_file", self.mint.path.read_text(), "600")
        self.write("/etc/chatd/chatd.toml", self.run("cat", "/etc/chatd/chatd.toml") + "\n" + LIMITS)
        self.write(DROP_IN, f"[Service]\nWatchdogSec={WATCHDOG_S}\n")
        packages = self.run("sh", "-c", "echo /usr/lib/chatd/lib/python3.*/site-packages").strip()
        self.write(f"{packages}/hang.pth", HANG)
        self.run("systemctl", "daemon-reload")
        self.run("systemctl", "restart", CHATD)

    def pid(self, unit: str = CHATD) -> int:
        """Of the unit's main process, 0 = there is none."""
        return int(self.property(unit, "MainPID"))

    def make_cluster(self) -> None:
        """Two chatd and two brokerd with the machine's own Redis (which asks for a password) and RabbitMQ."""
        self.write(
            "/etc/redis/chat-test.conf", f"requirepass {self.password}\nappendonly yes\nappendfsync always\n", "644"
        )
        self.run(
            "sh",
            "-c",
            "grep -q chat-test.conf /etc/redis/redis.conf || echo include /etc/redis/chat-test.conf >> /etc/redis/redis.conf",
        )
        self.run("systemctl", "restart", "redis-server")
        for daemon in ("chatd", "brokerd"):
            self.write(f"/etc/{daemon}/credentials/redis.url", f"redis://:{self.password}@127.0.0.1:6379/0\n", "600")
            self.write(f"/etc/{daemon}/credentials/rabbit.url", "amqp://guest:guest@127.0.0.1:5672/\n", "600")
        config = self.run("cat", "/etc/chatd/chatd.toml")
        self.write("/etc/chatd/chatd.toml", config.replace('"embedded"', '"cluster"'))
        self.write("/etc/systemd/system/brokerd@.service.d/test.conf", f"[Service]\nWatchdogSec={WATCHDOG_S}\n")
        self.run("systemctl", "daemon-reload")
        self.run("systemctl", "stop", CHATD)
        self.run(
            "systemctl",
            "enable",
            "--now",
            "brokerd@1",
            "brokerd@2",
            "chatd@2.socket",
            "chatd-http@2.socket",
            "chatd@2",
            "chatd@1",
        )
        for number in (1, 2):
            self.wait(lambda: '"ready":true' in self.ask(number, "/readyz"), "the cluster serves", 60)  # noqa: B023

    def ask(self, instance: int, path: str) -> str:
        """What an instance answers on its own HTTP port."""
        return self.run("curl", "-s", f"http://127.0.0.1:748{instance}{path}", check=False)

    def restarts(self, unit: str = CHATD) -> int:
        """How often the manager started it anew by itself."""
        return int(self.property(unit, "NRestarts"))

    def wait_active(self, unit: str = CHATD) -> float:
        """Until READY came; the seconds."""
        return self.wait(lambda: self.property(unit, "ActiveState") == "active", f"{unit} is active")

    def wait_backlog_empty(self, port: int = 7400) -> None:
        """Until everybody who knocked was let in."""

        def is_empty() -> bool:
            lines = self.run("ss", "-Hltn", f"sport = :{port}").splitlines()
            return all(line.split()[1] == "0" for line in lines)

        self.wait(is_empty, "the backlog is empty")

    def events(self, unit: str = CHATD) -> list[dict[str, Any]]:
        """Its structured log."""
        return [json.loads(line) for line in self.journal(unit).splitlines() if line.startswith("{")]

    def ready_ms(self, unit: str = CHATD) -> float:
        """From the start of the process to READY, the last time."""
        started = int(self.property(unit, "ExecMainStartTimestampMonotonic"))
        return (int(self.property(unit, "ActiveEnterTimestampMonotonic")) - started) / 1000

    def crash_dump(self, unit: str = CHATD) -> str:
        """What the last SIGABRT left in the journal: where each thread was."""
        return re.split(r"Fatal Python error: Aborted", self.journal(unit))[-1]
