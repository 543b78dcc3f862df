"""O07, the part that needs no running systemd: the units are correct, and closed as far as a chat server can be."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from brokerd.pulse import SPARE_FILES
from chatd.config import ChatConfig
from tests.systemd.units import ANALYZE, SERVICES, UNITS, analyze, placed

EXPOSURE_TENTHS_MAX = 15
CLOSING_S = 6  # chatd closes what is left: two of ListenerConfig.end_s_max
needs_analyze = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")


@needs_analyze
def test_o07_the_units_are_verified_without_a_word(tmp_path: Path) -> None:
    said = analyze("verify", "--man=no", *map(str, placed(tmp_path)))
    assert said.returncode == 0
    assert said.stderr == ""  # an unknown key is only told here: the exit status stays 0


@needs_analyze
@pytest.mark.parametrize("service", SERVICES)
def test_o07_a_service_is_exposed_by_at_most_one_and_a_half_of_ten(service: str, tmp_path: Path) -> None:
    placed(tmp_path)
    unit = tmp_path / service.replace("@.", "@1.")
    said = analyze("security", "--offline=true", f"--threshold={EXPOSURE_TENTHS_MAX}", "--no-pager", str(unit))
    print(said.stdout[-200:])
    assert said.returncode == 0, said.stdout


def unit(name: str) -> dict[str, dict[str, list[str]]]:
    """The lines of a unit: section → key → values."""
    found: dict[str, dict[str, list[str]]] = {}
    section: dict[str, list[str]] = {}
    for line in (UNITS / name).read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = found.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            section.setdefault(key, []).append(value)
    return found


def test_the_limits_of_chatds_unit_are_those_of_its_configuration() -> None:
    service, config = unit("chatd@.service")["Service"], ChatConfig()
    assert int(service["LimitNOFILE"][0]) >= config.limits.connections_max + SPARE_FILES
    assert int(service["TimeoutStopSec"][0]) > config.drain_s_max + CLOSING_S


@pytest.mark.parametrize("name", SERVICES)
def test_o07_nothing_makes_a_crash_loop_give_up(name: str) -> None:
    said = unit(name)
    assert said["Unit"]["StartLimitIntervalSec"] == ["0"]
    assert float(said["Service"]["RestartSec"][0]) >= 1, "and it is no busy loop"


@pytest.mark.parametrize("name", ["chatd@.socket", "chatd-http@.socket"])
def test_o07_no_crowd_makes_a_socket_give_up(name: str) -> None:
    socket = unit(name)["Socket"]
    assert socket["TriggerLimitIntervalSec"] == ["0"]
    assert socket["ReusePort"] == ["yes"], "instances share the port"
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+(%i)?", place) for place in socket["ListenStream"]), "closed until opened"


def test_no_secret_stands_in_a_unit_or_an_example() -> None:
    for path in [*UNITS.glob("*@.service"), *UNITS.glob("etc/*")]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"^[^#]*(amqp|redis)s?://", text, re.MULTILINE), path


def test_the_two_services_are_closed_by_the_same_lines() -> None:
    own = {"ExecStart", "ExecReload", "Environment", "EnvironmentFile", "LoadCredential", "Sockets", "User", "Group"}
    own |= {"StateDirectory", "StateDirectoryMode", "DynamicUser", "LimitNOFILE", "TasksMax", "TimeoutStopSec"}
    first, second = (
        {key: values for key, values in unit(name)["Service"].items() if key not in own} for name in SERVICES
    )
    assert first == second
