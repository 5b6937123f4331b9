"""`export`, `import` and `copy`: all sessions to a file, out of a file, into the store's mirror."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastticket.commands import terminal
from fastticket.commands.options import add_store, store_config_of
from fastticket.commands.progress import progress
from fastticket.commands.store import opened, to_look, to_try
from fastticket.errors import ConfigError
from fastticket.gateway.settings import Config
from fastticket.moving import dump
from fastticket.moving.copying import copy_store
from fastticket.moving.exporting import export_sessions
from fastticket.moving.importing import Imported, import_sessions
from fastticket.moving.journal import Journal
from fastticket.moving.sealing import read_secret
from fastticket.stores import without_password

KEY_FILE_HELP = "seal the file with the secret in this one: 32 random bytes or more, in base64"
KEY_FILE_OF_IMPORT_HELP = "the secret that the file was sealed with"
RATE_HELP = "sessions a second at most (default: as many as the store takes)"
MIRROR_HELP = "where to (default: [store] mirror_url)"
CLOCKS_APART_MS = 1000
PROGRESS_HELP = "where it is written down what is done (default: FILE.progress)"


def add_export(command: argparse.ArgumentParser) -> None:
    """The options of `export`."""
    command.add_argument("file", type=Path, metavar="FILE", help="a new file, mode 600; while it grows, FILE.partial")
    command.add_argument("--key-file", type=Path, metavar="FILE", help=KEY_FILE_HELP)
    add_rate(command)
    add_store(command)
    command.set_defaults(run=_run_export)


def add_import(command: argparse.ArgumentParser) -> None:
    """The options of `import`."""
    command.add_argument("file", type=Path, metavar="FILE", help="what `fastticket export` wrote")
    command.add_argument("--key-file", type=Path, metavar="FILE", help=KEY_FILE_OF_IMPORT_HELP)
    command.add_argument("--dry-run", action="store_true", help="write nothing, and say what would be done")
    command.add_argument("--progress", type=Path, metavar="FILE", help=PROGRESS_HELP)
    add_rate(command)
    add_store(command)
    command.set_defaults(run=_run_import)


def add_copy(command: argparse.ArgumentParser) -> None:
    """The options of `copy`."""
    command.add_argument("--mirror", metavar="URL", help=MIRROR_HELP)
    add_rate(command)
    add_store(command)
    command.set_defaults(run=_run_copy)


def add_rate(command: argparse.ArgumentParser) -> None:
    """--rate"""
    command.add_argument("--rate", type=_rate, default=0, metavar="N", help=RATE_HELP)


def _rate(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of sessions a second")
    return int(text)


def _run_export(options: argparse.Namespace) -> int:
    return asyncio.run(_export(store_config_of(options, "export"), options))


async def _export(config: Config, options: argparse.Namespace) -> int:
    secret = read_secret(options.key_file) if options.key_file else None
    source = without_password(config.store.url)
    async with to_look(config) as store:
        with progress("export", "sessions", await store.count()) as advance:
            exported = await export_sessions(
                store, source, options.file, secret=secret, rate_per_s=options.rate, advance=advance
            )
    if options.json:
        terminal.print_json({"file": str(options.file), **exported._asdict()})
    else:
        before = f", {exported.done_before} of them by an earlier run" if exported.done_before else ""
        print(f"{exported.sessions} sessions written to {options.file}{before}")
    return 0


def _run_import(options: argparse.Namespace) -> int:
    return asyncio.run(_import(store_config_of(options, "import"), options))


async def _import(config: Config, options: argparse.Namespace) -> int:
    secret = read_secret(options.key_file) if options.key_file else None
    summary = dump.check(options.file, secret)
    journal = None
    if not options.dry_run:
        path = options.progress or options.file.with_name(f"{options.file.name}.progress")
        journal = Journal(path, f"export {summary.dump} into {without_password(config.store.url)}")
    try:
        async with to_try(config) if options.dry_run else opened(config, creates=True) as store:
            with progress("import", "sessions", summary.sessions) as advance:
                imported = await import_sessions(
                    store,
                    dump.records(options.file, secret),
                    journal=journal,
                    rate_per_s=options.rate,
                    is_dry_run=options.dry_run,
                    advance=advance,
                )
    finally:
        if journal:
            journal.close()
    print_imported(imported, options.dry_run, options.json)
    return 0


def _run_copy(options: argparse.Namespace) -> int:
    config = store_config_of(options, "copy")
    mirror_url = options.mirror or config.store.mirror_url
    if not mirror_url:
        raise ConfigError("copy needs --mirror URL, or [store] mirror_url in the file of --config: where to?")
    mirror = dataclasses.replace(config, store=dataclasses.replace(config.store, url=mirror_url, mirror_url=""))
    return asyncio.run(_copy(config, mirror, options))


async def _copy(truth_config: Config, mirror_config: Config, options: argparse.Namespace) -> int:
    async with to_look(truth_config) as truth, opened(mirror_config, creates=True) as mirror:
        with progress("copy", "sessions", await truth.count()) as advance:
            copied = await copy_store(truth, mirror, rate_per_s=options.rate, advance=advance)
    if options.json:
        terminal.print_json(dataclasses.asdict(copied))
        return 0
    print(f"{copied.sessions} sessions, {copied.written} of them written to the mirror")
    print(f"{copied.ended} that it does not take: it knows that they have ended")
    what = "ended there" if copied.strays_ended else "left alone: gateways use it as their store already"
    print(f"{copied.strays} that only the mirror had, {what}")
    if abs(copied.clock_ahead_ms) > CLOCKS_APART_MS:
        print(f"fastticket: the mirror's clock is {copied.clock_ahead_ms} ms ahead: set the clocks", file=sys.stderr)
    return 0


def print_imported(imported: Imported, is_dry_run: bool, as_json: bool) -> None:
    """What became of the sessions that a reader yielded."""
    if as_json:
        terminal.print_json({**imported_values(imported), "dry_run": is_dry_run})
        return
    would = "would be " if is_dry_run else ""
    print(f"{imported.created} sessions {would}made, {imported.exists} were there already")
    print(f"{imported.expired} have expired, {imported.ended} were ended, and stay so")
    if imported.done_before:
        print(
            f"{imported.done_before} were brought by an earlier run"
            f" ({imported.in_doubt} of them perhaps: they are not there, and may have been ended since)"
        )
    for why, count in imported.skipped.items():
        print(f"{count} were left out: {why}")
    for skipped in imported.examples:
        print(f"fastticket: left out: {skipped.what}: {skipped.why}", file=sys.stderr)


def imported_values(imported: Imported) -> Mapping[str, Any]:
    """As --json shows it."""
    names = ("created", "exists", "ended", "expired", "done_before", "in_doubt")
    return {name: getattr(imported, name) for name in names} | {"skipped": dict(imported.skipped)}
