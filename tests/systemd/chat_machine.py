"""A machine on which our package is installed: what an operator would do on it."""

from __future__ import annotations

import json
import re
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

    def restarts(self, unit: str = CHATD) -> int:
        """How often the manager started it anew by itself."""
        return int(self.property(unit, "NRestarts"))

    def wait_active(self, unit: str = CHATD) -> float:
        """Until READY came; the seconds."""
        return self.wait(lambda: self.property(unit, "ActiveState") == "active", f"{unit} is active")

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
