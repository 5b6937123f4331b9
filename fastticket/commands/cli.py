"""The command line. Exit codes: 0 done, 1 failed, 2 bad usage or configuration."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fastticket import Keyring, Ticket
from fastticket.commands import terminal
from fastticket.commands.demo import demo
from fastticket.commands.keys import add_key_commands
from fastticket.commands.store import iso, list_sessions, print_events, revoke
from fastticket.errors import ConfigError, FastticketError, InvalidPrincipal
from fastticket.gateway import descriptors, errorlog
from fastticket.gateway.checks import look, problems_of, warnings_of
from fastticket.gateway.linkis import load_linkis
from fastticket.gateway.reader import STORE_VARIABLE, FaultyConfig, load_config, simple_config
from fastticket.gateway.settings import Config, StoreSettings
from fastticket.gateway.supervisor import run
from fastticket.gateway.worker import make_cache
from fastticket.gateway.writer import to_toml, without_secrets
from fastticket.keyfile import create_key_file, key_file_text, new_ring
from fastticket.stores import without_password

FAILED = 1
BAD_USAGE = 2
DEFAULT_LISTEN = "127.0.0.1:8080"
DEFAULT_UPSTREAM = "127.0.0.1:9001"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit code."""
    terminal.prepare()
    options = _parser().parse_args(terminal.arguments() if arguments is None else arguments)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    try:
        return int(options.command(options))
    except (ConfigError, InvalidPrincipal) as error:
        errorlog.say(f"fastticket: {error}")
        return BAD_USAGE
    except FastticketError as error:
        errorlog.say(f"fastticket: {error}")
        return FAILED
    except KeyboardInterrupt:
        return FAILED
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fastticket", description="Session tickets: a gateway, and tools around it.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("serve", help="run the gateway")
    _add_config(command)
    _add_addresses(command)
    _add_store_and_keys(command)
    command.add_argument("--workers", type=_count, metavar="N", help="processes that serve (default: 1)")
    command.set_defaults(command=_serve)

    command = commands.add_parser("demo", help="run a gateway and two applications to try it on")
    command.add_argument("--port", type=_port, default=8080, help="of the gateway (%(default)s)")
    command.add_argument(
        "--app-ports", type=_ports, default=[9001, 9002], metavar="PORT,PORT", help="of the applications (9001,9002)"
    )
    command.add_argument("--dir", type=Path, default=Path("demo"), help="for keys and sessions (./%(default)s)")
    command.set_defaults(command=lambda options: demo(options.port, options.app_ports, options.dir))

    command = commands.add_parser("keygen", help="make a key ring")
    command.add_argument("--out", type=Path, metavar="FILE", help="a new file, mode 600 (default: standard output)")
    command.add_argument("--rotate", help=argparse.SUPPRESS)  # was: says what to use
    command.set_defaults(command=_keygen)

    add_key_commands(commands.add_parser("keys", help="list, add, promote and retire the keys of a key file"))

    command = commands.add_parser("issue", help="create a session and print its ticket")
    command.add_argument("principal", help="whose session")
    _add_config(command)
    _add_store_and_keys(command)
    command.set_defaults(command=_issue)

    command = commands.add_parser("inspect", help="show what a ticket says, and whether its signature is good")
    command.add_argument("ticket", help="the ticket, or - to read it from standard input (out of the shell's history)")
    _add_config(command)
    command.add_argument("--keys", metavar="FILE", help="key file (default: FASTTICKET_KEYS)")
    command.set_defaults(command=_inspect)

    command = commands.add_parser("sessions", help="list a user's live sessions")
    command.add_argument("--user", required=True, metavar="NAME", help="the principal")
    _add_store(command)
    command.set_defaults(command=_sessions)

    command = commands.add_parser("revoke", help="end a session, or all sessions of a user")
    command.add_argument("ticket_or_id", nargs="?", metavar="TICKET-OR-ID", help="- reads it from standard input")
    command.add_argument("--user", metavar="NAME", help="whose session an id is; without an id, all of the user's")
    _add_store(command)
    command.add_argument("--keys", metavar="FILE", help="key file, for a ticket (default: FASTTICKET_KEYS)")
    command.set_defaults(command=_revoke)

    command = commands.add_parser("events", help="print what was created, revoked and expired")
    command.add_argument("--follow", action="store_true", help="and what comes, until interrupted")
    _add_store(command)
    command.set_defaults(command=_events)

    command = commands.add_parser("check-config", help="check a configuration, and print it in full")
    _add_config(command)
    _add_addresses(command)
    command.add_argument("--keys", metavar="FILE", help="key file (default: FASTTICKET_KEYS)")
    command.add_argument("--show-secrets", action="store_true", help="print the store's passwords, too")
    command.add_argument(
        "--live", action="store_true", help="and ask the store, resolve names, open logs, look at the modes of files"
    )
    command.set_defaults(command=_check_config)
    return parser


def _add_config(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--config", type=Path, metavar="FILE", help="TOML, see docs/configuration.md; or linkis.properties"
    )


def _add_addresses(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--listen", action="append", metavar="ADDRESS", help="host:port, [v6]:port, unix:PATH or fd:N; repeatable"
    )
    command.add_argument("--upstream", action="append", metavar="ADDRESS", help="host:port or unix:PATH; repeatable")


def _add_store(command: argparse.ArgumentParser) -> None:
    _add_config(command)
    command.add_argument("--store", metavar="URL", help="where the sessions are (default: FASTTICKET_STORE)")
    command.add_argument("--json", action="store_true", help="for programs")


def _add_store_and_keys(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--store",
        metavar="URL",
        help="sqlite:///PATH or redis://HOST, see docs/redis.md (default: FASTTICKET_STORE; of serve alone, then, sqlite:///fastticket.db)",
    )
    command.add_argument("--keys", metavar="FILE", help="key file (default: FASTTICKET_KEYS)")


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of processes")
    return int(text)


def _ports(text: str) -> list[int]:
    return [_port(part) for part in text.split(",")]


def _config(options: argparse.Namespace) -> Config:
    """The file, or what the simple flags say; not a mixture, so that nobody wonders which one won."""
    names = ("listen", "upstream", "store", "keys", "workers")
    flags = {name: value for name in names if (value := getattr(options, name, None))}
    if options.config and _is_linkis(options.config):
        return _linkis_config(options.config, flags)
    if options.config:
        if flags:
            raise ConfigError(
                f"--{next(iter(flags))} is said in the file when there is --config; leave one of them out"
            )
        return load_config(options.config)
    return simple_config(
        flags.get("listen", [DEFAULT_LISTEN]),
        flags.get("upstream", [DEFAULT_UPSTREAM]),
        flags.get("store") or os.environ.get(STORE_VARIABLE) or StoreSettings.url,
        flags.get("keys", ""),
        flags.get("workers", 1),
    )


def _is_linkis(path: Path) -> bool:
    return path.suffix == ".properties"


def _linkis_config(path: Path, flags: dict[str, Any]) -> Config:
    """Linkis' file says nothing of where to listen, what is behind, keys and workers: flags do."""
    if "store" in flags:
        raise ConfigError(f"--store is said in {path}; leave one of them out")
    keys = str(Path(flags["keys"]).absolute()) if "keys" in flags else ""
    return load_linkis(
        path,
        flags.get("listen", [DEFAULT_LISTEN]),
        flags.get("upstream", [DEFAULT_UPSTREAM]),
        keys,
        flags.get("workers", 1),
    )


def _serve(options: argparse.Namespace) -> int:
    if not options.config and not options.upstream:
        raise ConfigError("serve needs --config FILE, or --upstream host:port")
    if not options.upstream and _is_linkis(options.config):
        _config(options)  # what is wrong with the file comes first
        raise ConfigError(
            f"{options.config} does not say what is behind the gateway: serve needs --upstream host:port, too"
        )
    errorlog.begin()
    descriptors.raise_limit()
    return run(lambda: _config(options), lambda addresses: _say_aside(f"fastticket: serving {', '.join(addresses)}\n"))


def _say_aside(text: str) -> None:
    """On the standard output, if somebody reads it: nobody waits for that."""
    threading.Thread(target=_write, args=(text.encode(),), daemon=True, name="fastticket-serving").start()


def _write(text: bytes) -> None:
    with contextlib.suppress(OSError):
        os.write(1, text)


def _keygen(options: argparse.Namespace) -> int:
    if options.rotate:
        raise ConfigError(
            "keygen --rotate is no more: its key signed at once, which gateways that had not reloaded yet refused; use "
            f"`fastticket keys add {options.rotate}`, reload every gateway, then `fastticket keys promote`"
        )
    if options.out:
        create_key_file(options.out)
    else:
        print(key_file_text(new_ring()), end="")
    return 0


def _issue(options: argparse.Namespace) -> int:
    config = _store_config(options, "issue")

    async def issue() -> str:
        async with make_cache(config, config.keyring()) as cache:
            return await cache.login(options.principal)

    ticket = asyncio.run(issue())
    print(f"fastticket: a session in {without_password(config.store.url)}", file=sys.stderr)
    print(ticket)
    return 0


def _sessions(options: argparse.Namespace) -> int:
    return asyncio.run(list_sessions(_store_config(options, "sessions"), options.user, options.json))


def _revoke(options: argparse.Namespace) -> int:
    if options.ticket_or_id == "-":
        options.ticket_or_id = sys.stdin.readline().strip()
    if options.ticket_or_id is None and not options.user:
        raise ConfigError(
            "revoke needs a ticket, or a session id and --user, or --user alone for all of the user's sessions"
        )
    return asyncio.run(revoke(_store_config(options, "revoke"), options))


def _events(options: argparse.Namespace) -> int:
    return asyncio.run(print_events(_store_config(options, "events"), options.follow, options.json))


def _store_config(options: argparse.Namespace, command: str) -> Config:
    """No default: out of the wrong store, an answer reads as "there is none", and a session is
    nobody's.
    """
    if not (options.config or options.store or os.environ.get(STORE_VARIABLE)):
        raise ConfigError(f"{command} needs --config FILE, --store URL or {STORE_VARIABLE}: where are the sessions?")
    return _config(options)


def _inspect(options: argparse.Namespace) -> int:
    text = sys.stdin.readline().strip() if options.ticket == "-" else options.ticket
    if options.config and options.keys:
        raise ConfigError("--keys is said in the file when there is --config; leave one of them out")
    if options.config:
        keys = _config(options).keyring()
    elif options.keys:
        keys = Keyring.from_file(options.keys)
    else:
        keys = Keyring.from_env()
    ticket = keys.verify(text, 0)
    if not isinstance(ticket, Ticket):
        print(json.dumps({"verdict": ticket.reason}))
        return FAILED
    verdict = keys.verify(text, time.time_ns() // 1_000_000)
    print(
        terminal.json_text(
            {
                "verdict": "authentic" if isinstance(verdict, Ticket) else verdict.reason,
                "principal": ticket.principal,
                "session_id": ticket.session_id,
                "key_id": ticket.key_id,
                "issued_at": iso(ticket.issued_at_ms),
                "idle_timeout_s": ticket.idle_timeout_s,
                "absolute_lifetime_s": ticket.absolute_lifetime_s,
            },
            indent=2,
        )
    )
    return 0 if isinstance(verdict, Ticket) else FAILED


def _check_config(options: argparse.Namespace) -> int:
    if not options.config:
        raise ConfigError("check-config needs --config FILE")
    problems: list[str] = []
    try:
        config = _config(options)
    except FaultyConfig as error:
        config = error.config
        problems += error.problems
    problems += problems_of(config)
    if problems:
        return _say_all([*problems, *(asyncio.run(look(config)) if options.live else [])], BAD_USAGE)
    _say_all([f"warning: {warning}" for warning in warnings_of(config)], 0)
    shown = config if options.show_secrets else without_secrets(config)
    if shown != config:
        print("# *** stands for a secret; --show-secrets prints it\n")
    print(terminal.toml_text(to_toml(shown)))
    return _say_all(asyncio.run(look(config)), FAILED) if options.live else 0


def _say_all(lines: Iterable[str], code: int) -> int:
    """Each once; the code, if there was one."""
    lines = dict.fromkeys(lines)
    for line in lines:
        print(f"fastticket: {line}", file=sys.stderr)
    return code if lines else 0


if __name__ == "__main__":
    sys.exit(main())
