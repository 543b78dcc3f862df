"""Shell completion of chatctl: what is installed is made from the parser of today, and bash completes with it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import shtab

from chatd.ctl import build_parser

FOLDER = Path(__file__).resolve().parents[2] / "systemd/completion"


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_completion_is_that_of_the_commands_there_are(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    made = shtab.complete(build_parser(), shell)
    assert (FOLDER / f"chatctl.{shell}").read_text(encoding="utf-8").rstrip("\n") == made.rstrip("\n"), (
        "run `make docs`"
    )


def test_bash_completes_a_command_and_an_option_with_it() -> None:
    def completed(*words: str) -> set[str]:
        line = " ".join(words)
        script = (
            f'. "{FOLDER}/chatctl.bash"; COMP_WORDS=({line} ""); COMP_CWORD={len(words)}; COMPREPLY=(); '
            '"$(complete -p chatctl | sed -E "s/.*-F ([^ ]+).*/\\1/")"; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        bash = shutil.which("bash")
        assert bash
        ran = subprocess.run([bash, "-c", script], capture_output=True, text=True, timeout=30, check=True)
        return set(ran.stdout.split())

    assert completed("chatctl") >= {
        "status",
        "who",
        "sessions",
        "kick",
        "drain",
        "limits",
        "reload",
        "loglevel",
        "top",
        "register",
        "queue",
    }
    assert completed("chatctl", "loglevel") >= {"debug", "warning"}
