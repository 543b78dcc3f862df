"""chatctl top: looks at a running chatd again and again, and shows what happened between two looks."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, Final

from chatd.config import ChatConfig
from chatd.ctl import Refused
from chatd.ctl.live import asked
from chatd.ctl.rates import Look, between, lines
from chatd.ctl.screen import Paper, Place, Screen, screen

FIRST_S_MAX: Final = 1.0  # rates need two looks: the first frame need not wait for a long interval


def show_top(config: ChatConfig, options: argparse.Namespace) -> None:
    """chatctl top"""
    is_screen = sys.stdout.isatty() and not options.json and options.count is None
    try:
        first = asked(config, options, "top", rows=options.rows)  # before the screen changes: it may be refused
        with screen() if is_screen else nullcontext(Paper()) as place:
            _go_on(config, options, first, place)
    except KeyboardInterrupt:  # the way to end it
        return
    except BrokenPipeError:  # whoever read has enough; Python would say so once more when it flushes at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _go_on(config: ChatConfig, options: argparse.Namespace, before: Look, place: Place) -> None:
    shown, wait_s = 0, min(options.interval, FIRST_S_MAX)
    while shown != options.count and place.wait(wait_s):
        wait_s = options.interval
        try:
            now = asked(config, options, "top", rows=options.rows)
        except Refused as why:
            if not isinstance(place, Screen):
                raise
            place.show([str(why)])  # it may come back: a restart is worth watching
            continue
        if now["node"] == before["node"]:  # else it was started anew, and its counters with it
            place.show(_shown(options, between(before, now)))
            shown += 1
        before = now


def _shown(options: argparse.Namespace, frame: dict[str, Any]) -> Sequence[str]:
    return [json.dumps(frame)] if options.json else list(lines(frame))
