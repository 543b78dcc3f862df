"""A node as its service manager sees it (brokerd.pulse.Patient): how it is, and a reload that can not make it worse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from brokerd.daemon import StartFailed
from brokerd.logs import Logs
from brokerd.settings import SettingsError
from chatd.auth.accounts import FileAccounts
from chatd.config import ChatConfig, load_again
from chatd.node import Node
from chatd.reload import Reloaded, reloaded

CLOSE_S_MAX: Final = 15.0  # after the drain: closing what is left, leaving RabbitMQ and Redis


class Care:
    """One for a node."""

    def __init__(
        self,
        node: Node,
        config: ChatConfig,
        accounts: FileAccounts,
        logs: Logs,
        log: Any,
        read_again: Callable[[], ChatConfig] = load_again,
    ) -> None:
        self._node = node
        self.config = config
        self._accounts = accounts
        self._logs = logs
        self._log = log
        self._read_again = read_again
        self.refused: list[str] = []  # why the last reload was

    def status(self) -> str:
        """See Patient."""
        return ("The last reload was refused, see the log; " if self.refused else "") + self._node.status()

    def fault(self) -> str:
        """See Patient."""
        return self._node.fault()

    def stop_s_max(self) -> float:
        """See Patient."""
        return self.config.drain_s_max + CLOSE_S_MAX

    def set_level(self, level: str) -> None:
        """The least that is logged, until the next reload or start."""
        self.config = replace(self.config, log=replace(self.config.log, level=level))
        self._logs.set_level(level)
        self._log.warning("log_level_set", level=level)

    def reload(self) -> Reloaded | None:
        """See Patient. Nothing changes before all of it was found good; no session is touched. None: it was refused."""
        try:
            outcome = reloaded(self.config, self._read_again())
            self._node.take_over(outcome.config)
        except (SettingsError, StartFailed) as error:
            self.refused = str(error).splitlines()
            self._log.error("reload_refused", why=self.refused, kept="the configuration before")
            return None
        self.refused = []
        self.config = outcome.config
        self._logs.set_level(outcome.config.log.level)
        self._accounts.look_again()
        told = self._log.warning if outcome.restart else self._log.info
        told("reloaded", changed=outcome.changed, need_a_restart=outcome.restart)
        return outcome
