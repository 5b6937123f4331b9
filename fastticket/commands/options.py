"""Options that several commands have, with their help texts, and the configuration that they
name.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from fastticket.errors import ConfigError
from fastticket.gateway.linkis import Around, load_linkis
from fastticket.gateway.reader import STORE_VARIABLE, load_config, simple_config
from fastticket.gateway.settings import Config, StoreSettings

DEFAULT_LISTEN = "127.0.0.1:8080"
DEFAULT_UPSTREAM = "127.0.0.1:9001"
SIZES = ("threads", "workers")  # of which one is given, or none
OF_LINKIS = ("tokens", "until", "admin", "trusted_proxy", "login", "linkis_ticket")

CONFIG_HELP = (
    "TOML, see reference/configuration in the documentation; or Linkis' *.properties; repeatable, the later one wins"
)
TOKENS_HELP = "with Linkis' files: its tokens, the table linkis_mg_gateway_auth_token as CSV"
UNTIL_HELP = "with Linkis' files: the last day on which its sessions go on here, as 2027-01-31"
ADMIN_ADDRESS_HELP = "with Linkis' files: [gateway] admin, of metrics, readiness and the admin API"
PROXY_HELP = "with Linkis' files: the balancer's address or network, whose X-Forwarded-For counts; repeatable"
LOGIN_HELP = (
    "with Linkis' files: a server of your login service; fastticket is in the place of linkis-gateway then, and "
    "--upstream names the services; repeatable"
)
LINKIS_TICKET_HELP = "with --login: the ticket that services get, des for Linkis up to 1.8.0, aes-gcm for later ones"
VERBOSE_HELP = "name each setting of Linkis' files that is ignored"
LISTEN_HELP = "host:port, [v6]:port, unix:PATH or fd:N; repeatable"
UPSTREAM_HELP = "host:port or unix:PATH; repeatable"
STORE_HELP = "where the sessions are (default: FASTTICKET_STORE)"
STORE_OF_INSPECT_HELP = "ask this store, or that of --config, whether the session lives (default: FASTTICKET_STORE)"
STORE_OF_SERVE_HELP = (
    "sqlite:///PATH or redis://HOST, see how-to/redis in the documentation "
    "(default: FASTTICKET_STORE; of serve alone, then, sqlite:///fastticket.db)"
)
KEYS_HELP = "key file (default: FASTTICKET_KEYS)"
KEYS_FOR_TICKET_HELP = "key file, for a ticket (default: FASTTICKET_KEYS)"
JSON_HELP = "for programs; `fastticket schema` describes it"
JSON_ANYWAY_HELP = "for programs; it is JSON without this option, too"


def add_config(parser: argparse.ArgumentParser) -> None:
    """--config"""
    parser.add_argument("--config", type=Path, action="append", metavar="FILE", help=CONFIG_HELP)


def add_linkis(parser: argparse.ArgumentParser) -> None:
    """What Linkis' files do not contain, and --verbose: what is said of them."""
    parser.add_argument("--tokens", metavar="FILE", help=TOKENS_HELP)
    parser.add_argument("--until", metavar="DAY", help=UNTIL_HELP)
    parser.add_argument("--admin", metavar="ADDRESS", help=ADMIN_ADDRESS_HELP)
    parser.add_argument("--trusted-proxy", action="append", metavar="NETWORK", help=PROXY_HELP)
    parser.add_argument("--login", action="append", metavar="ADDRESS", help=LOGIN_HELP)
    parser.add_argument("--linkis-ticket", choices=("des", "des-raw", "aes-gcm"), help=LINKIS_TICKET_HELP)
    parser.add_argument("--verbose", action="store_true", help=VERBOSE_HELP)


def add_addresses(parser: argparse.ArgumentParser) -> None:
    """--listen, --upstream"""
    parser.add_argument("--listen", action="append", metavar="ADDRESS", help=LISTEN_HELP)
    parser.add_argument("--upstream", action="append", metavar="ADDRESS", help=UPSTREAM_HELP)


def add_store(parser: argparse.ArgumentParser) -> None:
    """--config, --store, --json: for commands that look into the store."""
    add_config(parser)
    parser.add_argument("--store", metavar="URL", help=STORE_HELP)
    add_json(parser)


def add_json(parser: argparse.ArgumentParser, text: str = JSON_HELP) -> None:
    """--json"""
    parser.add_argument("--json", action="store_true", help=text)


def add_store_and_keys(parser: argparse.ArgumentParser) -> None:
    """--store, --keys"""
    parser.add_argument("--store", metavar="URL", help=STORE_OF_SERVE_HELP)
    add_keys(parser)


def add_keys(parser: argparse.ArgumentParser, text: str = KEYS_HELP) -> None:
    """--keys"""
    parser.add_argument("--keys", metavar="FILE", help=text)


def port(text: str) -> int:
    """The type of an option: a port, 0 for any that is free."""
    if not text.isdecimal() or not 0 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port")
    return int(text)


def ports(text: str) -> list[int]:
    """The type of an option: ports with commas between."""
    return [port(part) for part in text.split(",")]


def threads(text: str) -> int:
    """The type of an option: how many threads."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of threads")
    return int(text)


def config_of(options: argparse.Namespace) -> Config:
    """The configuration of --config, or of the other options; both together are refused, so that
    neither overrides the other silently. ConfigError.
    """
    names = ("listen", "upstream", "store", "keys", *SIZES, *OF_LINKIS)
    given = {name: value for name in names if (value := getattr(options, name, None))}
    if options.config and any(map(is_linkis, options.config)):
        return _linkis_config(options.config, given, names_ignored=getattr(options, "verbose", False))
    if options.config:
        if given:
            raise ConfigError(
                f"--{next(iter(given)).replace('_', '-')} does not go with --config, whose file sets it; leave one of them out"
            )
        return load_config(*options.config)
    if of_linkis := [name for name in OF_LINKIS if name in given]:
        raise ConfigError(
            f"--{of_linkis[0].replace('_', '-')} is for Linkis' files; leave it out, or name them with --config"
        )
    return simple_config(
        given.get("listen", [DEFAULT_LISTEN]),
        given.get("upstream", [DEFAULT_UPSTREAM]),
        given.get("store") or os.environ.get(STORE_VARIABLE) or StoreSettings.url,
        given.get("keys", ""),
        {name: given[name] for name in SIZES if name in given},
    )


def store_config_of(options: argparse.Namespace, command: str) -> Config:
    """As `config_of`, for a command about sessions. It has no default store: in the wrong one,
    every answer would be "there is none". ConfigError.
    """
    if not names_store(options):
        raise ConfigError(f"{command} needs --config FILE, --store URL or {STORE_VARIABLE}: where are the sessions?")
    return config_of(options)


def sessions_config_of(options: argparse.Namespace, command: str) -> Config:
    """As `store_config_of`, for a command that needs nothing but the store: if the file cannot be
    used, the message says how to do without it. ConfigError.
    """
    try:
        return store_config_of(options, command)
    except ConfigError as error:
        if not options.config:
            raise
        raise ConfigError(f"{command} does without the file by --store URL", *error.problems) from None


def names_store(options: argparse.Namespace) -> bool:
    """Whether options or the environment say where the sessions are."""
    return bool(options.config or options.store or os.environ.get(STORE_VARIABLE))


def is_linkis(path: Path) -> bool:
    """Whether --config names a file of Linkis."""
    return path.suffix == ".properties"


def _linkis_config(paths: list[Path], given: dict[str, Any], *, names_ignored: bool) -> Config:
    """Linkis' files do not contain addresses, keys and the number of threads: options do."""
    named = ", ".join(map(str, paths))
    if not all(map(is_linkis, paths)):
        raise ConfigError(
            f"{named}: a file of Linkis and one of fastticket do not go together; `fastticket check-config` makes one of "
            "fastticket of Linkis'"
        )
    if "store" in given:
        raise ConfigError(f"--store does not go with {named}, which sets it; leave one of them out")
    around = Around(
        given.get("listen", [DEFAULT_LISTEN]),
        given.get("upstream", [DEFAULT_UPSTREAM]),
        given.get("keys", ""),
        trusted_proxies=given.get("trusted_proxy", ()),
        login=given.get("login", ()),
        sizes={name: given[name] for name in SIZES if name in given},
        **{name: given.get(name, "") for name in ("tokens", "until", "admin", "linkis_ticket")},
    )
    return load_linkis(paths, around, names_ignored=names_ignored)
