"""`fastticket issue` and `fastticket inspect`."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Mapping
from typing import Any

from fastticket import Keyring, Ticket
from fastticket.commands import terminal
from fastticket.commands.options import config_of, names_store, store_config_of
from fastticket.commands.store import HISTORY_MAX, event_values, iso, session_values, to_look
from fastticket.errors import ConfigError, StoreUnavailable, Verdict
from fastticket.gateway.assembly import make_cache
from fastticket.gateway.exitcodes import FAILED
from fastticket.gateway.settings import Config
from fastticket.stores import without_password
from fastticket.stores.contract import Event, shard_of


def issue(options: argparse.Namespace) -> int:
    """Create a session and print its ticket. FastticketError."""
    config = store_config_of(options, "issue")
    keys = config.keyring()

    async def login() -> str:
        async with make_cache(config, keys) as cache:
            return await cache.login(options.principal)

    ticket = asyncio.run(login())
    shown = without_password(config.store.url)
    print(f"fastticket: a session in {shown}", file=sys.stderr)
    if not options.json:
        print(ticket)
        return 0
    read = keys.verify(ticket, 0)
    assert isinstance(read, Ticket)  # noqa: S101 -- we have just made it
    terminal.print_json(
        {"ticket": ticket, "session_id": read.session_id, "principal": options.principal, "store": shown}
    )
    return 0


def inspect(options: argparse.Namespace) -> int:
    """Print as JSON what a ticket contains, whether it is authentic and, if a store is named,
    whether its session lives. The exit code: 1 if it is not, does not, or that is not known.
    """
    text = sys.stdin.readline().strip() if options.ticket == "-" else options.ticket
    keys = _keyring_of(options)
    ticket = keys.verify(text, 0)  # at 0 ms no ticket has expired
    if not isinstance(ticket, Ticket):
        terminal.print_json({"verdict": ticket.reason})
        if ticket is Verdict.BAD_SIGNATURE and not options.config:
            print(
                "fastticket: a ticket of another audience than the usual one has this verdict, too: name --config FILE, "
                "which has the audiences, instead of the keys",
                file=sys.stderr,
            )
        return FAILED
    verdict = keys.verify(text, time.time_ns() // 1_000_000)
    told = {
        "verdict": "authentic" if isinstance(verdict, Ticket) else verdict.reason,
        "principal": ticket.principal,
        "session_id": ticket.session_id,
        "key_id": ticket.key_id,
        "issued_at": iso(ticket.issued_at_ms),
        "idle_timeout_s": ticket.idle_timeout_s,
        "absolute_lifetime_s": ticket.absolute_lifetime_s,
    }
    if names_store(options):
        told |= asyncio.run(_session_of(store_config_of(options, "inspect"), ticket))
    terminal.print_json(told)
    return 0 if told["verdict"] == "authentic" and told.get("session", "lives") == "lives" else FAILED


async def _session_of(config: Config, ticket: Ticket) -> Mapping[str, Any]:
    """What the store says of a ticket's session. That it does not answer is said, and no error: the
    ticket can be read without it.
    """
    try:
        async with to_look(config) as store:
            for session in await store.sessions(ticket.principal):
                if session.id == ticket.session_id:
                    shown = session_values(session)
                    return {"session": "lives"} | {name: shown[name] for name in ("idle_deadline", "absolute_deadline")}
            shard = shard_of(ticket.principal, store.shards)
            ends = [event for event in await store.history(shard, HISTORY_MAX) if _ends(event, ticket.session_id)]
    except StoreUnavailable as error:
        print(f"fastticket: {error}", file=sys.stderr)
        return {"session": "unknown"}
    return {"session": "ended", "end": _end_values(ends[-1]) if ends else None}


def _ends(event: Event, session_id: str) -> bool:
    return event.session_id == session_id and event.kind in ("rotated", "revoked", "expired")


def _end_values(event: Event) -> Mapping[str, Any]:
    shown = event_values(event)
    return {name: shown[name] for name in ("kind", "reason", "successor_id", "at")}


def _keyring_of(options: argparse.Namespace) -> Keyring:
    """The key ring of --config, of --keys or of the environment. ConfigError."""
    if options.config and options.keys:
        raise ConfigError("--keys does not go with --config, whose file sets it; leave one of them out")
    if options.config:
        return config_of(options).keyring()
    return Keyring.from_file(options.keys) if options.keys else Keyring.from_env()
