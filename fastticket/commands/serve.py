"""`fastticket serve` and `fastticket check-config`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import threading
import tomllib
from collections.abc import Iterable

from fastticket import __version__
from fastticket.commands import terminal
from fastticket.commands.options import config_of, is_linkis
from fastticket.errors import ConfigError
from fastticket.gateway import descriptors, errorlog
from fastticket.gateway.admin.access import access_of
from fastticket.gateway.checks import live_problems_of, problems_of, warnings_of
from fastticket.gateway.exitcodes import BAD_USAGE, FAILED
from fastticket.gateway.reader import FaultyConfig
from fastticket.gateway.supervisor import run
from fastticket.gateway.upgrade import Program, inherited
from fastticket.gateway.writer import to_toml, without_secrets


def serve(options: argparse.Namespace) -> int:
    """Run a gateway until SIGTERM; the exit code. FastticketError."""
    if not options.config and not options.upstream:
        raise ConfigError("serve needs --config FILE, or --upstream host:port")
    if not options.upstream and any(map(is_linkis, options.config)):
        config_of(options)  # errors in the files come first
        raise ConfigError(
            f"{options.config[0]} does not say what is behind the gateway: serve needs --upstream host:port, too"
        )
    if options.trial:
        inherited()
        config = config_of(options)
        config.key_pairs()
        access_of(config)
        return 0
    errorlog.begin()
    descriptors.raise_limit()
    return run(
        lambda: config_of(options),
        lambda addresses: _print_aside(f"fastticket: serving {', '.join(addresses)}\n"),
        Program.of_this_process(__version__),
    )


def _print_aside(text: str) -> None:
    """Print in a thread: a standard output that nobody reads must not block the gateway."""
    threading.Thread(target=_write, args=(text.encode(),), daemon=True, name="fastticket-serving").start()


def _write(text: bytes) -> None:
    with contextlib.suppress(OSError):
        os.write(1, text)


def check_config(options: argparse.Namespace) -> int:
    """Print what is wrong with a configuration, or all of it with its defaults; the exit code."""
    if not options.config:
        raise ConfigError("check-config needs --config FILE")
    problems: list[str] = []
    try:
        config = config_of(options)
    except FaultyConfig as error:
        config = error.config
        problems += error.problems
    problems += problems_of(config)
    live = asyncio.run(live_problems_of(config)) if options.live else []
    shown = None if problems else config if options.show_secrets else without_secrets(config)
    code = BAD_USAGE if problems else FAILED if live else 0
    found = list(dict.fromkeys([*problems, *live]))
    warnings = [] if problems else list(dict.fromkeys(warnings_of(config)))
    if options.json:
        configuration = tomllib.loads(to_toml(shown)) if shown else None
        terminal.print_json({"problems": found, "warnings": warnings, "configuration": configuration})
        return code
    _complain(f"warning: {warning}" for warning in warnings)
    if shown:
        if shown != config:
            print("# *** stands for a secret; --show-secrets prints it\n")
        print(terminal.toml_text(to_toml(shown)))
    _complain(found)
    return code


def _complain(lines: Iterable[str]) -> None:
    for line in lines:
        print(f"fastticket: {line}", file=sys.stderr)
