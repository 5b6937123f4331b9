"""`fastticket issue` and `fastticket inspect`."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time

from fastticket import Keyring, Ticket
from fastticket.commands import terminal
from fastticket.commands.options import config_of, store_config_of
from fastticket.commands.store import iso
from fastticket.errors import ConfigError
from fastticket.gateway.assembly import make_cache
from fastticket.gateway.exitcodes import FAILED
from fastticket.stores import without_password


def issue(options: argparse.Namespace) -> int:
    """Create a session and print its ticket. FastticketError."""
    config = store_config_of(options, "issue")

    async def login() -> str:
        async with make_cache(config, config.keyring()) as cache:
            return await cache.login(options.principal)

    ticket = asyncio.run(login())
    print(f"fastticket: a session in {without_password(config.store.url)}", file=sys.stderr)
    print(ticket)
    return 0


def inspect(options: argparse.Namespace) -> int:
    """Print as JSON what a ticket contains and whether it is authentic; the exit code: 1 if not."""
    text = sys.stdin.readline().strip() if options.ticket == "-" else options.ticket
    keys = _keyring_of(options)
    ticket = keys.verify(text, 0)  # at 0 ms no ticket has expired
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


def _keyring_of(options: argparse.Namespace) -> Keyring:
    """The key ring of --config, of --keys or of the environment. ConfigError."""
    if options.config and options.keys:
        raise ConfigError("--keys does not go with --config, whose file sets it; leave one of them out")
    if options.config:
        return config_of(options).keyring()
    return Keyring.from_file(options.keys) if options.keys else Keyring.from_env()
