"""`fastticket keys`: lists the keys of a key file, and adds, promotes and retires them.

Nothing that is printed contains a secret. docs/reference/ticket-format.md has the procedure for a
fleet.
"""

from __future__ import annotations

import argparse
import datetime
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path

from fastticket.commands import terminal
from fastticket.commands.admin import AdminError, add_address, read_metrics
from fastticket.commands.options import add_json
from fastticket.gateway.exitcodes import FAILED
from fastticket.keyfile import Key, add_key, add_keys_of, promote_key, read_ring, refuse_signing, retire_key

USES = "fastticket_key_uses_total"  # in /metrics; its only label is the key id
WATCH_S = 10.0
MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86400


def add_key_commands(parser: argparse.ArgumentParser) -> None:
    """Declare `keys list`, `add`, `promote` and `retire`."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = _command(commands, "list", "show ids, ages, and which one signs", list_keys)
    add_address(command, ": and which keys a running gateway has loaded, and how many tickets it verified by each")

    command = _command(commands, "add", "put in a new key, which verifies and does not sign; its id is printed", add)
    which = command.add_mutually_exclusive_group()
    which.add_argument(
        "--id", type=_key_id, metavar="N", help="of the new key (default: above all that the file has had)"
    )
    which.add_argument(
        "--from",
        dest="source",
        metavar="FILE",
        help="add the keys of this key file that are missing; - reads standard input",
    )

    command = _command(commands, "promote", "let a key sign", promote)
    command.add_argument("id", type=_key_id, metavar="ID", help="of the key")

    command = _command(commands, "retire", "take out a key that does not sign", retire)
    command.add_argument("id", type=_key_id, metavar="ID", help="of the key")
    add_address(command, ": refuse if a running gateway verifies new tickets by the key meanwhile")
    command.add_argument(
        "--watch-s", type=_seconds, default=WATCH_S, metavar="S", help="how long to look, with --admin (%(default)g)"
    )


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    text: str,
    run: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text)
    command.add_argument("file", type=Path, metavar="FILE", help="key file")
    add_json(command)
    command.set_defaults(run=run)
    return command


def _key_id(text: str) -> int:
    if not text.isdecimal() or int(text) > 255:
        raise argparse.ArgumentTypeError(f"{text!r} is not a key id, 0 to 255")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= DAY_S:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return seconds


def list_keys(options: argparse.Namespace) -> int:
    """Print the keys in the order of the file, the one that signs last."""
    keys = read_ring(options.file)
    _warn_of_readers(options.file)
    uses = read_uses(options.admin, options.ca) if options.admin else {}
    rows = [_values(key, key is keys[-1]) | ({"uses": uses.get(key.id)} if options.admin else {}) for key in keys]
    if options.json:
        terminal.print_json(rows)
        return 0
    for row in rows:
        age = f"created {row['created']}, {_age(row['age_s'])} old" if row["created"] else "age unknown"
        print(f"{row['id']:3}  {row['state']:8}  {age}{_there(row['uses']) if options.admin else ''}")
    if missing := sorted(uses.keys() - {key.id for key in keys}):
        names = ", ".join(map(str, missing))
        print(f"fastticket: the gateway has used other keys, too, since its start: {names}", file=sys.stderr)
    return 0


def _there(uses: object) -> str:
    """What a running gateway does with the key, whatever the file lets it do. None: nothing."""
    if uses is None:
        return "; the gateway has not loaded it"
    return f"; the gateway has verified {uses} ticket{'' if uses == 1 else 's'} by it"


def _values(key: Key, signs: bool) -> dict[str, object]:
    age_s = int((datetime.datetime.now(datetime.UTC) - key.created).total_seconds()) if key.created else None
    created = key.created.isoformat().replace("+00:00", "Z") if key.created else None
    return {"id": key.id, "state": "signs" if signs else "verifies", "created": created, "age_s": age_s}


def _age(seconds: object) -> str:
    """A time in its largest unit of which there are at least two."""
    age_s = max(0, int(str(seconds)))
    for unit_s, name in ((DAY_S, "d"), (HOUR_S, "h"), (MINUTE_S, "min")):
        if age_s >= 2 * unit_s:
            return f"{age_s // unit_s} {name}"
    return f"{age_s} s"


def _warn_of_readers(path: Path) -> None:
    if path.stat().st_mode & stat.S_IROTH:
        print(f"fastticket: {path}: everybody on this machine can read it; chmod o= {path}", file=sys.stderr)


def add(options: argparse.Namespace) -> int:
    """Add a fresh key, or those of another key file; print their ids, one a line."""
    if options.source:
        source = "/dev/stdin" if options.source == "-" else options.source
        added = add_keys_of(options.file, read_ring(source))
    else:
        added = [add_key(options.file, options.id)]
    if options.json:
        terminal.print_json({"file": str(options.file), "added": added})
    else:
        print(*added, sep="\n", end="\n" if added else "")
    names = f"key{'s' if len(added) > 1 else ''} {', '.join(map(str, added))}"
    said = f"{names} added, to verify; reload every gateway before you promote" if added else "has all of them already"
    print(f"{options.file}: {said}", file=sys.stderr)
    return 0


def promote(options: argparse.Namespace) -> int:
    """Let a key sign. Every gateway must have loaded it before, or it refuses the new tickets."""
    promote_key(options.file, options.id)
    if options.json:
        terminal.print_json({"file": str(options.file), "signs": options.id})
    print(f"{options.file}: key {options.id} signs, once the gateway has reloaded", file=sys.stderr)
    return 0


def retire(options: argparse.Namespace) -> int:
    """Take a key out. With --admin, first watch the gateway; 1 if it still verifies tickets by the
    key.
    """
    used = _watch_uses(options) if options.admin else None
    if not used:
        retire_key(options.file, options.id)
        print(
            f"{options.file}: key {options.id} is out; its tickets are refused once the gateway has reloaded",
            file=sys.stderr,
        )
    if options.json:
        terminal.print_json({"file": str(options.file), "id": options.id, "is_out": not used, "uses": used})
    return FAILED if used else 0


def _watch_uses(options: argparse.Namespace) -> int:
    """How many tickets the gateway verifies by the key in the time that it is watched; says so.
    AdminError.
    """
    refuse_signing(options.file, read_ring(options.file), options.id)
    before = read_uses(options.admin, options.ca)
    if options.id not in before:
        raise AdminError(f"{options.admin}: the gateway does not say how often key {options.id} is used")
    time.sleep(options.watch_s)
    used = max(0, read_uses(options.admin, options.ca).get(options.id, 0) - before[options.id])
    said = (
        f"key {options.id} stays: the gateway has verified {used} tickets by it in {options.watch_s:g} s"
        if used
        else f"no uses of key {options.id} seen in {options.watch_s:g} s; that proves nothing for sessions "
        "that gateways hold: wait for the longest life of a ticket"
    )
    print(f"fastticket: {said}", file=sys.stderr)
    return used


# --- a running gateway


def read_uses(address: str, ca: Path | None = None) -> dict[int, int]:
    """Key id -> good signatures that a gateway has verified under it since its start, from its
    /metrics. AdminError; ConfigError: the address.
    """
    samples = [sample for sample in read_metrics(address, ca) if sample.name == USES]
    return {int(next(iter(sample.labels.values()))): int(sample.value) for sample in samples}
