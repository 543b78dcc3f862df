"""chatctl: accounts, keys, tokens, queues, traces and dead letters from the command line. Reads the same settings as chatd.

Exit codes: 0 done, 1 refused (a sentence on stderr says why), 2 wrong usage or settings. What a script wants (a token,
a generated password, --json) is alone on stdout. Only argparse is imported until a command runs: --help is instant.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # argparse has no public name for it
    Command = Callable[[Commands, str, str, str], argparse.ArgumentParser]

EXIT_REFUSED: Final = 1
EXIT_USAGE: Final = 2
INTERVAL_S_MIN: Final = 0.1
INTERVAL_S_MAX: Final = 86_400.0
ALGS: Final = ("EdDSA", "ES256", "HS256")


class Refused(Exception):
    """It was not done; the text says why."""


def main(argv: Sequence[str] | None = None) -> int:
    """The console script. Gives the exit code."""
    options = build_parser().parse_args(argv)
    from brokerd.ports import LinkDown
    from brokerd.settings import SettingsError
    from chatd.auth.files import FileBroken
    from chatd.config import read

    try:
        config = read(getattr(options, "config", None), None, getattr(options, "data_dir", None))
        module, _, name = options.run.partition(":")
        getattr(import_module(f"chatd.ctl.{module}"), name)(config, options)
    except SettingsError as error:
        sys.stderr.write("".join(f"chatctl: {problem}\n" for problem in error.problems))
        return EXIT_USAGE
    except (Refused, FileBroken) as error:
        sys.stderr.write(f"chatctl: {error}\n")
        return EXIT_REFUSED
    except LinkDown as error:
        sys.stderr.write(f"chatctl: the store can not be reached: {error}\n")
        return EXIT_REFUSED
    except OSError as error:
        sys.stderr.write(f"chatctl: {error.filename or 'the system'}: {error.strerror or error}\n")
        return EXIT_REFUSED
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        return EXIT_REFUSED
    return 0


def say(text: str) -> None:
    """A line of result, to stdout."""
    sys.stdout.write(text + "\n")


def hint(text: str) -> None:
    """A line for a person, to stderr: scripts do not see it."""
    sys.stderr.write(text + "\n")


def build_parser() -> argparse.ArgumentParser:
    """All commands. Every leaf sets `run` to "module:function" in chatd.ctl."""
    shared = argparse.ArgumentParser(add_help=False)
    # SUPPRESS: or the default of the inner parser would undo what stands before the command
    shared.add_argument("--config", metavar="FILE", default=argparse.SUPPRESS, help="chatd's TOML file ($CHATD_CONFIG)")
    shared.add_argument("--data-dir", metavar="DIR", default=argparse.SUPPRESS, help="instead of data_dir")
    top = argparse.ArgumentParser("chatctl", description="accounts, keys and queues of chatd", parents=[shared])
    groups = top.add_subparsers(required=True, metavar="COMMAND")

    def command(within: Commands, name: str, run: str, says: str) -> argparse.ArgumentParser:
        made = within.add_parser(name, help=says, description=says, parents=[shared])
        made.set_defaults(run=run)
        return made

    _add_users(groups, shared, command)
    _add_keys(groups, shared, command)
    token = command(groups, "token", "keyring:print_token", "print a signed token for a user")
    token.add_argument("name", metavar="NAME")
    token.add_argument(
        "--ttl", metavar="TIME", default="1h", help="how long it is good: 90s, 15m, 1h, 30d (default 1h)"
    )
    token.add_argument("--kid", metavar="KID", help="the key to sign with (default: the active one)")
    _add_support(groups, shared, command)
    _add_live(groups, command)
    stores = groups.add_parser("store", help="the store as a whole", parents=[shared])
    says = "go on with a store that came back empty, from a backup, or with another one, as it is"
    command(stores.add_subparsers(required=True, metavar="COMMAND"), "accept", "stores:accept_the_store", says)
    saved = command(groups, "backup", "backup:make_backup", "copy accounts and the embedded store, while chatd runs")
    saved.add_argument("folder", metavar="DIR", help="a new folder: the copy, to be used as a data_dir")
    command(groups, "demo", "demo:run_demo", "make the users ann and bob and a key, once, and say how to log in")
    return top


def _add_support(groups: Commands, shared: argparse.ArgumentParser, command: Command) -> None:
    queue = command(
        groups, "queue", "queues:show_queue", "show what waits for a user, since when, and for which device"
    )
    queue.add_argument("name", metavar="USER")
    queue.add_argument("--entries", metavar="N", type=int, default=20, help="how many of the oldest (default 20)")
    trace = command(groups, "trace", "traces:show_trace", "show where a message went, and where it is")
    trace.add_argument("id", metavar="ID", help="the message's id, as clients show it: 32 hexadecimal digits")
    trace.add_argument("--to", metavar="USER", help="its receiver: whose queue to look into")
    group = groups.add_parser("dead", help="batches that could not be worked off", parents=[shared])
    dead = group.add_subparsers(required=True, metavar="COMMAND")
    listed = command(dead, "list", "letters:list_letters", "list them: name, shard, time, size, reason")
    shown = command(dead, "show", "letters:show_letter", "show what is in one; of what cannot be read the bytes")
    shown.add_argument("letter", metavar="LETTER", help="its name in the list")
    shown.add_argument("--all", action="store_true", help="all bytes")
    for made in (queue, trace, listed, shown):
        made.add_argument("--json", action="store_true", help="for scripts")
    for name, says in (
        ("requeue", "put letters back to their shard; what was saved before is not saved twice"),
        ("drop", "throw letters away"),
    ):
        made = command(dead, name, f"letters:{name}_letters", says)
        made.add_argument("letters", metavar="LETTER", nargs="*", help="names in the list")
        made.add_argument("--all", action="store_true", help="all of them")
        if name == "requeue":
            says = "though later messages of their senders were saved; only for what surely never was"
            made.add_argument("--as-new", action="store_true", help=says)


def _add_live(groups: Commands, command: Command) -> None:
    """What a running chatd is asked over its local socket."""
    status = command(groups, "status", "live:show_status", "show how the running chatd is")
    who = command(groups, "who", "live:show_who", "list who is logged in here, with devices")
    sessions = command(groups, "sessions", "live:show_sessions", "list sessions: since when, from where, what waits")
    sessions.add_argument("name", metavar="USER", nargs="?", help="only this user's")
    kick = command(groups, "kick", "live:kick_user", "end sessions; a client may come back (to keep it out: user del)")
    kick.add_argument("name", metavar="USER")
    kick.add_argument("device", metavar="DEVICE", nargs="?", help="only this one (default: all of the user)")
    drain = command(groups, "drain", "live:drain_node", "end the running chatd as SIGTERM does: nothing is lost")
    limits = command(groups, "limits", "live:show_limits", "show the limits that are in effect, and what is used")
    again = command(
        groups, "reload", "live:reload_node", "read the configuration again, as SIGHUP does, and say what changed"
    )
    level = command(
        groups, "loglevel", "live:set_log_level", "show or set the least that is logged, until the next reload"
    )
    level.add_argument("level", nargs="?", choices=("debug", "info", "warning", "error"))
    top = command(groups, "top", "top:show_top", "show what happens now, again and again: rates, slow readers, queues")
    says = "seconds between two looks, from 0.1 (default 2)"
    top.add_argument("--interval", metavar="SECONDS", type=_interval, default=2.0, help=says)
    top.add_argument(
        "--count", metavar="N", type=_count, help="so many times, as plain text (default: until q or Ctrl-C)"
    )
    says = "how many slow readers and queues, up to 100 (default 10)"
    top.add_argument("--rows", metavar="N", type=_count, default=10, help=says)
    says = "show where a user's devices are, as the register says, and how far they read"
    register = command(groups, "register", "register:show_register", says)
    register.add_argument("name", metavar="USER")
    for made in (status, who, sessions, kick, drain, limits, again, level, top, register):
        made.add_argument("--json", action="store_true", help="for scripts")
        made.add_argument("--socket", metavar="PATH", help="of the chatd to ask (default: control_socket)")


def _interval(text: str) -> float:
    seconds = float(text)
    if not INTERVAL_S_MIN <= seconds <= INTERVAL_S_MAX:
        raise argparse.ArgumentTypeError(f"{INTERVAL_S_MIN:g} to {INTERVAL_S_MAX:g} seconds are allowed")
    return seconds


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("1 or more is allowed")
    return number


def _add_users(groups: Commands, shared: argparse.ArgumentParser, command: Command) -> None:
    group = groups.add_parser("user", help="accounts with passwords", parents=[shared])
    users = group.add_subparsers(required=True, metavar="COMMAND")
    for name, says in (("add", "make a user"), ("passwd", "change a user's password")):
        made = command(users, name, f"users:{name}_user", says)
        made.add_argument("name", metavar="NAME")
        how = made.add_mutually_exclusive_group()
        how.add_argument("--password-stdin", action="store_true", help="the password is the first line of stdin")
        how.add_argument("--generate", action="store_true", help="make a password and print it")
    gone = command(users, "del", "users:del_user", "close an account: sessions end, its queue is deleted")
    gone.add_argument("name", metavar="NAME")
    listed = command(users, "list", "users:list_users", "list the users with passwords")
    listed.add_argument("--json", action="store_true", help="for scripts")


def _add_keys(groups: Commands, shared: argparse.ArgumentParser, command: Command) -> None:
    group = groups.add_parser("keys", help="the keys that sign tokens", parents=[shared])
    keys = group.add_subparsers(required=True, metavar="COMMAND")
    for name, says in (("init", "make the keys file with one key"), ("add", "add a key; activate it later")):
        made = command(keys, name, f"keyring:{name}_keys", says)
        made.add_argument("--kid", metavar="KID", help="the key's id (default: a random one)")
        made.add_argument("--alg", choices=ALGS, default="EdDSA", help="default EdDSA")
        if name == "add":
            made.add_argument("--public", metavar="FILE", help="a PEM public key of somebody who mints elsewhere")
    listed = command(keys, "list", "keyring:list_keys", "list the keys, without secrets")
    listed.add_argument("--json", action="store_true", help="for scripts")
    for name, says in (("activate", "mint with this key"), ("drop", "forget a key: its tokens end now")):
        command(keys, name, f"keyring:{name}_keys", says).add_argument("kid", metavar="KID")
