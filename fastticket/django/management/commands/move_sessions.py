"""`manage.py move_sessions`: the sessions of another engine become sessions of tickets."""

from __future__ import annotations

import itertools
import json
from argparse import ArgumentParser
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from asgiref.sync import async_to_sync, sync_to_async
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError

from fastticket.django import fastticket_settings
from fastticket.django.moving import ROWS, OldSessions
from fastticket.errors import ConfigError, StoreUnavailable
from fastticket.moving.importing import Imported, import_sessions
from fastticket.moving.journal import Journal
from fastticket.moving.record import MovedSession, Skipped
from fastticket.moving.report import told, values
from fastticket.stores import open_store, without_password
from fastticket.stores.contract import Store
from fastticket.stores.looking import open_to_look

DEFAULT_PROGRESS = Path("move_sessions.progress")


class Command(BaseCommand):
    """See above."""

    help = (
        "Move the sessions of another session engine to the ticket store. Nothing is deleted there; the same again "
        "goes on where it was."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """--from, --dry-run, --json, --rate, --progress"""
        parser.add_argument("--from", dest="engine", help='the engine (default: FASTTICKET["moved_from"])')
        parser.add_argument("--dry-run", action="store_true", help="write nothing, and say what would be done")
        parser.add_argument("--json", action="store_true", help="for programs")
        parser.add_argument("--rate", type=int, default=0, help="sessions a second at most")
        parser.add_argument("--progress", type=Path, default=DEFAULT_PROGRESS, help="what is done (%(default)s)")

    def handle(self, *_: Any, **options: Any) -> None:
        """Move them, and print what became of them. CommandError."""
        engine = options["engine"] or fastticket_settings().get("moved_from")
        if not engine:
            raise CommandError("name the engine that the sessions are in: --from django.contrib.sessions.backends.db")
        try:
            old = OldSessions(engine)
            imported = async_to_sync(_move)(old, engine, options)
        except (ImproperlyConfigured, ConfigError, StoreUnavailable) as error:
            raise CommandError(str(error)) from error
        shown = values(imported, old.left) | {"source": "django", "dry_run": options["dry_run"]}
        lines = [json.dumps(shown)] if options["json"] else told(imported, old.left, is_dry_run=options["dry_run"])
        self.stdout.write("\n".join(lines))


async def _move(old: OldSessions, engine: str, options: dict[str, Any]) -> Imported:
    """StoreUnavailable, ConfigError."""
    said = fastticket_settings()["store"]
    if options["dry_run"]:
        store = await open_to_look(lambda creates: _store(said, creates=creates))
        try:
            return await import_sessions(store, _records(old), rate_per_s=options["rate"], is_dry_run=True)
        finally:
            await store.aclose()
    store, name = _store(said, creates=True), without_password(said) if isinstance(said, str) else "a store"
    journal = Journal(options["progress"], f"{engine} into {name}")
    try:
        await store.open()
        return await import_sessions(store, _records(old), journal=journal, rate_per_s=options["rate"])
    finally:
        await store.aclose()
        journal.close()


def _store(said: str | Store, *, creates: bool) -> Store:
    """ConfigError."""
    return open_store(said, creates=creates) if isinstance(said, str) else said


async def _records(old: OldSessions) -> AsyncIterator[MovedSession | Skipped]:
    """The database is asked in the thread that the command runs in."""
    records = old.records()
    while page := await sync_to_async(lambda: list(itertools.islice(records, ROWS)))():
        for record in page:
            yield record
