"""The command line: which commands there are, and their options. Exit codes: 0 done, 1 failed, 2
bad usage or configuration.

Each command has a function here that declares its options and its help texts, and one in another
module of this folder that runs it.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from fastticket import __version__
from fastticket.commands import terminal
from fastticket.commands.admin import add_address, add_admin, probe
from fastticket.commands.completion import SHELLS, print_completion
from fastticket.commands.demo import demo
from fastticket.commands.examples import add_examples
from fastticket.commands.keys import add_key_commands
from fastticket.commands.migrate import add_migrate_commands
from fastticket.commands.moving import add_copy, add_export, add_import
from fastticket.commands.options import (
    DEFAULT_LISTEN,
    JSON_ANYWAY_HELP,
    KEYS_FOR_TICKET_HELP,
    STORE_OF_INSPECT_HELP,
    add_addresses,
    add_config,
    add_json,
    add_keys,
    add_linkis,
    add_store,
    add_store_and_keys,
    port,
    ports,
    sessions_config_of,
    threads,
)
from fastticket.commands.schemas import print_schemas
from fastticket.commands.serve import check_config, serve
from fastticket.commands.status import status, top
from fastticket.commands.store import list_sessions, print_events, revoke, revoke_all_but, revoke_everybody
from fastticket.commands.tickets import inspect, issue
from fastticket.core.ticket import SESSION_ID_TEXT_CHARS
from fastticket.errors import ConfigError, FastticketError, InvalidPrincipal
from fastticket.gateway import errorlog
from fastticket.gateway.exitcodes import BAD_USAGE, FAILED
from fastticket.keyfile import create_key_file, key_file_text, new_ring, read_ring
from fastticket.loglines import TextLines


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit code."""
    terminal.prepare()
    options = parser().parse_args(terminal.arguments() if arguments is None else arguments)
    to_standard_error = logging.StreamHandler()
    to_standard_error.setFormatter(TextLines())
    logging.basicConfig(handlers=[to_standard_error], level=logging.INFO)
    try:
        return int(options.run(options))
    except (ConfigError, InvalidPrincipal) as error:
        errorlog.say(f"fastticket: {error}")
        return BAD_USAGE
    except FastticketError as error:
        errorlog.say(f"fastticket: {error}")
        return FAILED
    except KeyboardInterrupt:
        return FAILED
    except BrokenPipeError:  # the reader has closed the pipe, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def parser() -> argparse.ArgumentParser:
    """The parser of all commands; `run` of what it returns is the function to call."""
    made = argparse.ArgumentParser(prog="fastticket", description="Session tickets: a gateway, and tools around it.")
    made.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = made.add_subparsers(required=True, metavar="COMMAND")
    for name, text, add_options in COMMANDS:
        add_options(commands.add_parser(name, help=text))
    add_examples(made)
    return made


def _serve(command: argparse.ArgumentParser) -> None:
    add_config(command)
    add_linkis(command)
    add_addresses(command)
    add_store_and_keys(command)
    command.add_argument("--threads", type=threads, metavar="N", help="threads that serve (default: 1)")
    command.add_argument("--workers", type=threads, help=argparse.SUPPRESS)  # the former name of --threads
    command.add_argument("--trial", action="store_true", help=argparse.SUPPRESS)  # of an upgrade: gateway/upgrade
    command.set_defaults(run=serve)


def _demo(command: argparse.ArgumentParser) -> None:
    where = command.add_mutually_exclusive_group()
    where.add_argument("--listen", metavar="HOST:PORT", help=f"of the gateway ({DEFAULT_LISTEN})")
    where.add_argument("--port", type=port, help="the same on 127.0.0.1; 0: one that is free")
    command.add_argument(
        "--app-ports", type=ports, metavar="PORT,PORT", help="of the applications (9001,9002, or free ones)"
    )
    command.add_argument("--dir", type=Path, default=Path("demo"), help="for keys and sessions (./%(default)s)")
    command.set_defaults(run=_run_demo)


def _keygen(command: argparse.ArgumentParser) -> None:
    command.add_argument("--out", type=Path, metavar="FILE", help="a new file, mode 600 (default: standard output)")
    add_json(command)
    command.add_argument("--rotate", help=argparse.SUPPRESS)  # gone; the error says what to use instead
    command.set_defaults(run=_run_keygen)


def _issue(command: argparse.ArgumentParser) -> None:
    command.add_argument("principal", help="whose session")
    add_config(command)
    add_store_and_keys(command)
    add_json(command)
    command.set_defaults(run=issue)


def _inspect(command: argparse.ArgumentParser) -> None:
    command.add_argument("ticket", help="the ticket, or - to read it from standard input (out of the shell's history)")
    add_config(command)
    add_keys(command)
    command.add_argument("--store", metavar="URL", help=STORE_OF_INSPECT_HELP)
    add_json(command, JSON_ANYWAY_HELP)
    command.set_defaults(run=inspect)


def _sessions(command: argparse.ArgumentParser) -> None:
    whose = command.add_mutually_exclusive_group(required=True)
    whose.add_argument("--user", metavar="NAME", help="those of this principal")
    whose.add_argument("--all", action="store_true", help="everybody's, in no order, page by page")
    command.add_argument("--count", action="store_true", help="only how many there are")
    add_store(command)
    command.set_defaults(run=_run_sessions)


def _revoke(command: argparse.ArgumentParser) -> None:
    command.add_argument("ticket_or_id", nargs="?", metavar="TICKET-OR-ID", help="- reads it from standard input")
    command.add_argument("--user", metavar="NAME", help="whose session an id is; without an id, all of the user's")
    command.add_argument("--but", metavar="ID", help="with --user: all but this one; --but=ID if it begins with -")
    command.add_argument("--all", action="store_true", help="everybody's: all have to log in again; needs --yes")
    command.add_argument("--yes", action="store_true", help="with --all: that it is meant")
    add_store(command)
    add_keys(command, KEYS_FOR_TICKET_HELP)
    command.set_defaults(run=_run_revoke)


def _events(command: argparse.ArgumentParser) -> None:
    command.add_argument("--follow", action="store_true", help="go on with new events, until interrupted")
    add_store(command)
    command.set_defaults(run=_run_events)


def _probe(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "page", nargs="?", choices=("readyz", "healthz"), default="readyz", help="readyz or healthz (%(default)s)"
    )
    add_address(command)
    add_config(command)
    add_json(command, JSON_ANYWAY_HELP)
    command.set_defaults(run=probe)


def _status(command: argparse.ArgumentParser) -> None:
    add_admin(command)
    add_json(command)
    command.set_defaults(run=status)


def _top(command: argparse.ArgumentParser) -> None:
    add_admin(command)
    command.set_defaults(run=top)


def _check_config(command: argparse.ArgumentParser) -> None:
    add_config(command)
    add_linkis(command)
    add_addresses(command)
    add_keys(command)
    command.add_argument("--show-secrets", action="store_true", help="print the store's passwords, too")
    command.add_argument(
        "--live", action="store_true", help="also ask the store, resolve names, open logs, look at the modes of files"
    )
    add_json(command)
    command.set_defaults(run=check_config)


def _schema(command: argparse.ArgumentParser) -> None:
    command.add_argument("command", nargs="*", metavar="COMMAND", help="as in `keys list` (default: all, by name)")
    command.set_defaults(run=print_schemas)


def _completion(command: argparse.ArgumentParser) -> None:
    command.add_argument("shell", choices=SHELLS, help="bash or zsh")
    command.set_defaults(run=lambda options: print_completion(options, parser))


#: Name, help text, and the function that declares the options.
COMMANDS: tuple[tuple[str, str, Callable[[argparse.ArgumentParser], None]], ...] = (
    ("serve", "run the gateway", _serve),
    ("demo", "run a gateway and two applications to try it on", _demo),
    ("keygen", "make a key ring", _keygen),
    ("keys", "list, add, promote and retire the keys of a key file", add_key_commands),
    ("issue", "create a session and print its ticket", _issue),
    ("inspect", "show what a ticket says, whether its signature is good and whether its session lives", _inspect),
    ("sessions", "list or count the live sessions of a user, or of all", _sessions),
    ("revoke", "end a session, or all sessions of a user, or of everybody", _revoke),
    ("events", "print what was created, revoked and expired", _events),
    ("export", "write all sessions with their attributes to a file", add_export),
    ("import", "bring the sessions of an exported file into a store", add_import),
    ("migrate", "move the sessions of another system here; delete nothing there", add_migrate_commands),
    ("copy", "copy all sessions into the store's mirror, while gateways serve", add_copy),
    ("probe", "ask a running gateway whether it is ready or healthy: exit code 0 or 1", _probe),
    (
        "status",
        "say how a running gateway is: exit code 1 if its worker, a store or a whole upstream is away, else 0",
        _status,
    ),
    ("top", "show how a running gateway is, anew each second; needs fastticket[tui]", _top),
    ("check-config", "check a configuration, and print it in full", _check_config),
    ("schema", "print the JSON Schema of what a command prints with --json", _schema),
    ("completion", "print what a shell completes commands and options by; needs fastticket[completion]", _completion),
)


# --- commands that only call one function


def _run_demo(options: argparse.Namespace) -> int:
    listen = f"127.0.0.1:{options.port}" if options.port is not None else options.listen or DEFAULT_LISTEN
    return demo(listen, options.app_ports, options.dir)


def _run_keygen(options: argparse.Namespace) -> int:
    if options.rotate:
        raise ConfigError(
            "keygen --rotate is no more: its key signed at once, which gateways that had not reloaded yet refused; use "
            f"`fastticket keys add {options.rotate}`, reload every gateway, then `fastticket keys promote`"
        )
    if options.out:
        create_key_file(options.out)
        if options.json:
            ids = [key.id for key in read_ring(options.out)]
            terminal.print_json({"file": str(options.out), "ids": ids})
    elif options.json:
        raise ConfigError("keygen --json needs --out FILE: what it prints without that is the secret ring, in TOML")
    else:
        print(key_file_text(new_ring()), end="")
    return 0


def _run_sessions(options: argparse.Namespace) -> int:
    return asyncio.run(list_sessions(sessions_config_of(options, "sessions"), options))


def _run_revoke(options: argparse.Namespace) -> int:
    if options.ticket_or_id == "-":
        options.ticket_or_id = sys.stdin.readline().strip()
    if fault := _fault_of_revoke(options):
        raise ConfigError(f"revoke {fault}")
    config = sessions_config_of(options, "revoke")
    if options.all:
        return asyncio.run(revoke_everybody(config, options.json))
    if options.but:
        return asyncio.run(revoke_all_but(config, options))
    return asyncio.run(revoke(config, options))


def _fault_of_revoke(options: argparse.Namespace) -> str:
    """What is wrong with what is to end; "": nothing."""
    if options.all and (options.ticket_or_id or options.user or options.but):
        return "--all ends everybody's sessions; leave out the ticket, the id, --user and --but"
    if options.all and not options.yes:
        return "--all logs everybody out; say --yes, too, if it is meant"
    if options.yes and not options.all:
        return "--yes is for --all; leave it out"
    if options.but is not None and (options.ticket_or_id or not options.user):
        return "--but is for all sessions of a user but one; name --user, and no ticket or other id"
    if options.but is not None and len(options.but) != SESSION_ID_TEXT_CHARS:
        return f"--but needs the id of a session, of {SESSION_ID_TEXT_CHARS} characters"
    if options.ticket_or_id is None and not options.user and not options.all:
        return "needs a ticket, or a session id and --user, or --user alone for all of the user's sessions"
    return ""


def _run_events(options: argparse.Namespace) -> int:
    return asyncio.run(print_events(sessions_config_of(options, "events"), options.follow, options.json))


if __name__ == "__main__":
    sys.exit(main())
