"""A brokerd as its service manager sees it (brokerd.pulse.Patient)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from brokerd.broker import Broker
from brokerd.config import BrokerConfig, load_again
from brokerd.logs import Logs
from brokerd.settings import SettingsError, differences

STOP_S_MAX: Final = 15.0  # to close three links


class Care:
    """One for a brokerd."""

    def __init__(
        self,
        config: BrokerConfig,
        broker: Broker,
        parts: Callable[[], Mapping[str, str]],
        logs: Logs,
        log: Any,
        read_again: Callable[[], BrokerConfig] = load_again,
    ) -> None:
        """`parts` says of each link "up", or why not."""
        self._config = config
        self._broker = broker
        self._parts = parts
        self._logs = logs
        self._log = log
        self._read_again = read_again
        self._refused = False

    def status(self) -> str:
        """See Patient."""
        refused = ["The last reload was refused, see the log"] if self._refused else []
        amiss = [f"{part}: {said}" for part, said in self._parts().items() if said != "up"]
        return "; ".join([*refused, f"{self._broker.counts.posts} posts worked off", *amiss])

    def fault(self) -> str:
        """See Patient. A task of brokerd that fails ends it; what else can be stuck is the loop."""
        return ""

    def stop_s_max(self) -> float:
        """See Patient."""
        return STOP_S_MAX

    def reload(self) -> None:
        """See Patient. Only the log's level can change: all else is built into what is running."""
        try:
            new = self._read_again()
        except SettingsError as error:
            self._refused = True
            self._log.error("reload_refused", why=str(error).splitlines(), kept="the configuration before")
            return
        self._refused = False
        old = self._config
        self._config = replace(old, log=replace(old.log, level=new.log.level))
        self._logs.set_level(new.log.level)
        need_a_restart = differences(self._config, new)
        told = self._log.warning if need_a_restart else self._log.info
        told("reloaded", changed=differences(old, self._config), need_a_restart=need_a_restart)
