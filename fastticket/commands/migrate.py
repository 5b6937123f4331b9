"""`fastticket migrate`: the sessions of another system become sessions here, and oauth2-proxy's
configuration becomes ours.

Nothing is written or deleted at the source. What is done is noted in a file, so that the same
command again goes on where it was, and moves what has come since; a session that was moved, and has
ended, does not come back by it.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

from fastticket.commands import terminal
from fastticket.commands.moving import add_rate
from fastticket.commands.options import add_json, add_store, config_of, store_config_of
from fastticket.commands.progress import progress
from fastticket.commands.store import opened, to_try
from fastticket.errors import ConfigError
from fastticket.gateway.settings import Config, TicketSettings
from fastticket.moving import report
from fastticket.moving.importing import Imported, import_sessions
from fastticket.moving.journal import Journal
from fastticket.moving.record import LIFETIME_S_END
from fastticket.moving.sources import Source, flask_session, spring, starsessions
from fastticket.moving.sources.flask_session import FlaskSessions
from fastticket.moving.sources.oauth2_proxy import translate
from fastticket.moving.sources.spring import SpringSessions
from fastticket.moving.sources.spring_jdbc import SpringExport
from fastticket.moving.sources.starsessions import StarSessions
from fastticket.stores import without_password
from fastticket.stores.redis.foreign import ForeignRedis

LINKIS_HEADER = "bfs_"
LINKIS_IDLE_TIMEOUT_S = 7200  # wds.linkis.server.web.session.timeout, where it is not set

FROM_HELP = (
    "the Redis where the sessions are: redis://, rediss://, unix:// or redis+sentinel://, as a store's (default: the url "
    "of their [[migration]] in --config)"
)
PRINCIPAL_HELP = "the attribute that names the user, or a path as user.name; repeatable, the first that is there counts"
PROGRESS_HELP = "where it is written down what is done (default: migrate-SOURCE.progress)"
IDLE_HELP = "idle timeout there, where a session does not say its own (%(default)s)"
LINKIS_IDLE_HELP = f"idle timeout there (default: [ticket] idle_timeout_s of --config, or {LINKIS_IDLE_TIMEOUT_S})"
ABSOLUTE_HELP = "absolute lifetime from the login on, where a session does not say its own; 0: none (%(default)s)"
CRYPT_KEY_HELP = "a file with wds.linkis.crypt.key (default: the key that everybody has)"
ALPHA_HELP = "the alpha configuration, in YAML, beside oauth2-proxy.cfg or alone"
CSV_HELP = "an export of the table SPRING_SESSION as CSV, with the names of the columns in its first line"


def add_migrate_commands(parser: argparse.ArgumentParser) -> None:
    """Declare `migrate linkis`, `spring`, `flask-session`, `starsessions` and `oauth2-proxy`."""
    commands = parser.add_subparsers(required=True, metavar="SOURCE")
    for name, text, add_options in SOURCES:
        add_options(commands.add_parser(name, help=text))


def _linkis(command: argparse.ArgumentParser) -> None:
    _add_from(command)
    command.add_argument("--crypt-key-file", type=Path, metavar="FILE", help=CRYPT_KEY_HELP)
    command.add_argument("--ticket-header", default=LINKIS_HEADER, help="wds.linkis.ticket.header (%(default)s)")
    command.add_argument("--user-suffix", default="", help="linkis.username.suffix.name, if that is enabled")
    _add_lifetimes(command, None, help_text=LINKIS_IDLE_HELP)
    _add_target(command, _linkis_source)


def _spring(command: argparse.ArgumentParser) -> None:
    where = command.add_mutually_exclusive_group()
    where.add_argument("--from", dest="url", metavar="URL", help=FROM_HELP)
    where.add_argument("--csv", type=Path, metavar="FILE", help=CSV_HELP)
    command.add_argument("--namespace", default=spring.NAMESPACE, help="of the keys in Redis (%(default)s)")
    _add_principal(command, [spring.INDEX])
    command.add_argument("--absolute-lifetime-s", type=_seconds, default=0, metavar="S", help=ABSOLUTE_HELP)
    _add_target(command, _spring_source)


def _flask_session(command: argparse.ArgumentParser) -> None:
    _add_from(command)
    command.add_argument("--prefix", default=flask_session.PREFIX, help="SESSION_KEY_PREFIX (%(default)s)")
    _add_principal(command, list(flask_session.PRINCIPALS))
    _add_lifetimes(command, flask_session.LIFETIME_S)
    _add_target(command, _flask_source)


def _starsessions(command: argparse.ArgumentParser) -> None:
    _add_from(command)
    command.add_argument("--prefix", default=starsessions.PREFIX, help="of the keys in Redis (%(default)s)")
    _add_principal(command)
    command.add_argument(
        "--rolling", action="store_true", help="the middleware is rolling: each use prolongs a session"
    )
    _add_lifetimes(command, TicketSettings.idle_timeout_s, TicketSettings.absolute_lifetime_s)
    _add_target(command, _star_source)


def _oauth2_proxy(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", type=Path, metavar="FILE", nargs="?", help="oauth2-proxy.cfg")
    command.add_argument("--alpha-config", type=Path, metavar="FILE", help=ALPHA_HELP)
    command.add_argument("--out", type=Path, metavar="FILE", help="a new file for ours (default: standard output)")
    add_json(command)
    command.set_defaults(run=_translate)


#: Name, help text, and the function that declares the options.
SOURCES = (
    ("linkis", "sessions of Apache Linkis, in Redis", _linkis),
    ("spring", "sessions of Spring Session, in Redis or exported from a database", _spring),
    ("flask-session", "sessions of Flask-Session, in Redis", _flask_session),
    ("starsessions", "sessions of starsessions, in Redis", _starsessions),
    ("oauth2-proxy", "print our configuration for oauth2-proxy's, and what has no counterpart", _oauth2_proxy),
)


# --- options


def _add_from(command: argparse.ArgumentParser) -> None:
    command.add_argument("--from", dest="url", metavar="URL", help=FROM_HELP)


def _add_principal(command: argparse.ArgumentParser, usual: list[str] | None = None) -> None:
    usually = f" (default: {', '.join(usual)})" if usual else ""
    command.add_argument(
        "--principal-attribute",
        action="append",
        dest="principals",
        metavar="NAME",
        required=not usual,
        help=PRINCIPAL_HELP + usually,
    )


def _add_lifetimes(
    command: argparse.ArgumentParser, idle_s: int | None, absolute_s: int = 0, help_text: str = IDLE_HELP
) -> None:
    command.add_argument("--idle-timeout-s", type=_seconds, default=idle_s, metavar="S", help=help_text)
    command.add_argument("--absolute-lifetime-s", type=_seconds, default=absolute_s, metavar="S", help=ABSOLUTE_HELP)


def _add_target(command: argparse.ArgumentParser, source_of: Callable[[argparse.Namespace], Source]) -> None:
    command.add_argument("--dry-run", action="store_true", help="write nothing, and say what would be done")
    command.add_argument("--progress", type=Path, metavar="FILE", help=PROGRESS_HELP)
    add_rate(command)
    add_store(command)
    name = command.prog.rpartition(" ")[2]
    command.set_defaults(run=lambda options: _migrate(name, source_of, options))


def _seconds(text: str) -> int:
    if not text.isdecimal() or int(text) >= LIFETIME_S_END:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return int(text)


# --- sources


def _linkis_source(options: argparse.Namespace) -> Source:
    try:
        from fastticket.moving.formats.linkis_ticket import DEFAULT_CRYPT_KEY, LinkisTickets
        from fastticket.moving.sources.linkis import LinkisSessions
    except ImportError as error:
        raise ConfigError(f"{error}: Linkis' tickets need pip install 'fastticket[migration]'") from None
    key = _first_line(options.crypt_key_file) if options.crypt_key_file else DEFAULT_CRYPT_KEY
    return LinkisSessions(
        _redis(options),
        LinkisTickets(key, header=options.ticket_header, user_suffix=options.user_suffix),
        idle_timeout_s=_linkis_idle_timeout_s(options),
        absolute_lifetime_s=options.absolute_lifetime_s,
    )


def _linkis_idle_timeout_s(options: argparse.Namespace) -> int:
    """Linkis' sessions do not say their own. A configuration that was made of Linkis' does."""
    if options.idle_timeout_s is not None:
        return int(options.idle_timeout_s)
    return config_of(options).ticket.idle_timeout_s if options.config else LINKIS_IDLE_TIMEOUT_S


def _spring_source(options: argparse.Namespace) -> Source:
    if options.csv:
        return SpringExport(options.csv, absolute_lifetime_s=options.absolute_lifetime_s)
    return SpringSessions(
        _redis(options),
        namespace=options.namespace,
        principals=options.principals or [spring.INDEX],
        absolute_lifetime_s=options.absolute_lifetime_s,
    )


def _flask_source(options: argparse.Namespace) -> Source:
    return FlaskSessions(
        _redis(options),
        prefix=options.prefix,
        principals=options.principals or flask_session.PRINCIPALS,
        idle_timeout_s=options.idle_timeout_s,
        absolute_lifetime_s=options.absolute_lifetime_s,
    )


def _star_source(options: argparse.Namespace) -> Source:
    return StarSessions(
        _redis(options),
        principals=options.principals,
        prefix=options.prefix,
        is_rolling=options.rolling,
        idle_timeout_s=options.idle_timeout_s,
        absolute_lifetime_s=options.absolute_lifetime_s,
    )


def _redis(options: argparse.Namespace) -> ForeignRedis:
    """ConfigError."""
    return ForeignRedis(options.url, options.base)


def _url_in_config(name: str, options: argparse.Namespace) -> tuple[str, Path]:
    """And the folder that files in it are in. ConfigError."""
    config = config_of(options) if options.config else None
    found = [(each.url, config.base) for each in config.migration if each.source == name] if config else []
    if len(found) != 1:
        raise ConfigError(
            f"migrate {name} needs --from URL, or a --config FILE with one [[migration]] of {name}: where are the sessions?"
        )
    return found[0]


def _first_line(path: Path) -> str:
    """ConfigError."""
    try:
        line = path.read_text("utf-8-sig").partition("\n")[0].removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
    if not line:
        raise ConfigError(f"{path}: its first line is empty; the key belongs there")
    return line


# --- what is done


def _migrate(name: str, source_of: Callable[[argparse.Namespace], Source], options: argparse.Namespace) -> int:
    options.base = None
    if not options.url and not getattr(options, "csv", None):
        options.url, options.base = _url_in_config(name, options)
    source = source_of(options)
    config = store_config_of(options, f"migrate {name}")
    imported = asyncio.run(_import(name, source, config, options))
    if options.json:
        terminal.print_json(report.values(imported, source.left) | {"source": name, "dry_run": options.dry_run})
        return 0
    for line in report.told(imported, source.left, is_dry_run=options.dry_run):
        print(line)
    for skipped in imported.examples:
        print(f"fastticket: skipped: {skipped.what}: {skipped.why}", file=sys.stderr)
    return 0


async def _import(name: str, source: Source, config: Config, options: argparse.Namespace) -> Imported:
    place = options.csv if getattr(options, "csv", None) else without_password(options.url)
    journal = None
    if not options.dry_run:
        about = f"{name} of {place} into {without_password(config.store.url)}"
        journal = Journal(options.progress or Path(f"migrate-{name}.progress"), about)
    try:
        async with to_try(config) if options.dry_run else opened(config, creates=True) as store:
            with progress("migrate", "sessions") as advance:
                return await import_sessions(
                    store,
                    source.records(),
                    journal=journal,
                    rate_per_s=options.rate,
                    is_dry_run=options.dry_run,
                    advance=advance,
                )
    finally:
        await source.aclose()
        if journal:
            journal.close()


def _translate(options: argparse.Namespace) -> int:
    if not options.file and not options.alpha_config:
        raise ConfigError("name oauth2-proxy.cfg, or --alpha-config with the other file, or both")
    alpha = (_text_of(options.alpha_config), str(options.alpha_config)) if options.alpha_config else None
    made = translate(_text_of(options.file) if options.file else "", str(options.file or ""), alpha)
    if options.out:
        _write_new(options.out, made.toml)
    if options.json:
        lines = [line._asdict() for line in made.lines]
        terminal.print_json({"configuration": made.toml, "lines": lines, "to_do": made.to_do})
        return 0
    if not options.out:
        print(terminal.toml_text(made.toml))
    for file, number, key, ours, note in made.lines:
        became = ours or "no counterpart"
        print(f"{file}:{number}: {key}: {became}{f'; {note}' if note else ''}", file=sys.stderr)
    for each in made.to_do:
        print(f"to do: {each}", file=sys.stderr)
    return 0


def _text_of(path: Path) -> str:
    """ConfigError."""
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None


def _write_new(path: Path, text: str) -> None:
    """ConfigError: it is there already, or cannot be written."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
