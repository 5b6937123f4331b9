"""Asks the admin listener of a running gateway: for commands, and `fastticket probe`, which asks
whether it is well.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import socket
import ssl
import urllib.parse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from fastticket.commands.options import add_config, config_of
from fastticket.errors import ConfigError, FastticketError
from fastticket.gateway.addresses import Address, is_loopback
from fastticket.gateway.exitcodes import FAILED
from fastticket.gateway.reader import FaultyConfig
from fastticket.gateway.settings import Config

ADMIN_TIMEOUT_S = 5.0
ADMIN_HELP = "unix:PATH, http://HOST:PORT or https://HOST:PORT"
CA_HELP = "PEM; whose certificates to trust at an https:// address (default: the system's)"
TOKEN_FILE_HELP = "as [gateway] admin_token_file, of which the first token is sent; not needed for a Unix socket"  # noqa: S105 -- a help text


#: X509_V_ERR_: not yet valid, expired, of another name, of another address. No --ca mends these.
OTHER_FAULTS = (9, 10, 62, 64)


class AdminError(FastticketError):
    """A gateway's admin listener does not answer, or its answer lacks what was asked."""

    reason = "admin_unavailable"


def probe(options: argparse.Namespace) -> int:
    """Print what /readyz or /healthz says; the exit code: 0 for 200, else 1. AdminError,
    ConfigError.
    """
    address, _ = _whom(options, "probe")
    status, text = ask(address, f"/{options.page}", ca=options.ca)
    print(text, end="")
    return 0 if status == http.client.OK else FAILED


def read_metrics(address: str, ca: Path | None = None) -> Iterable[Sample]:
    """The samples of a gateway's /metrics. AdminError; ConfigError: the address."""
    status, text = ask(address, "/metrics", ca=ca)
    if status != http.client.OK:
        raise AdminError(f"{address}: /metrics says {status}")
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def ask(address: str, path: str, token: str = "", ca: Path | None = None) -> tuple[int, str]:
    """GET a page of the admin listener at `unix:PATH`, `http://HOST:PORT` or `https://HOST:PORT`:
    (status, body). `ca`: the file of certificates to trust; None: the system's. AdminError;
    ConfigError: the address, or that file.
    """
    connection = _connection(address, ca)
    if token and _is_read_along(connection):
        raise ConfigError(f"--admin {address}: a token goes to another machine over https:// only")
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
        with connection.getresponse() as response:  # whose socket it is by now
            return response.status, response.read().decode()
    except ssl.SSLCertVerificationError as error:
        hint = "" if error.verify_code in OTHER_FAULTS else "; --ca FILE names whose certificates to trust"
        raise AdminError(f"{address}: {error.verify_message}{hint}") from None
    except (OSError, http.client.HTTPException, UnicodeDecodeError) as error:
        raise AdminError(f"{address}: {error}") from None
    finally:
        connection.close()


class AdminApi:
    """The operations under /v1/ that commands read by. `token`: "" for a Unix socket of ours."""

    def __init__(self, address: str, token: str = "", ca: Path | None = None) -> None:
        self.address = address
        self._token = token
        self._ca = ca

    def page(self, path: str) -> tuple[int, str]:
        """As `ask`."""
        return ask(self.address, path, self._token, self._ca)

    def read(self, path: str) -> Any:
        """The JSON of a page. AdminError, which has the gateway's own words."""
        status, text = self.page(path)
        try:
            answer = json.loads(text)
        except ValueError:
            raise AdminError(f"{self.address}: {path} says {status}, and no JSON") from None
        if status != http.client.OK:
            said = answer.get("message") or answer.get("error") if isinstance(answer, dict) else ""
            raise AdminError(f"{self.address}: {path} says {status}: {said}")
        return answer


def add_address(command: argparse.ArgumentParser, text: str = "") -> None:
    """--admin, --ca: of a command that asks a running gateway; what for."""
    command.add_argument("--admin", metavar="ADDRESS", help=f"{ADMIN_HELP}, as [gateway] admin{text}")
    command.add_argument("--ca", type=Path, metavar="FILE", help=CA_HELP)


def add_admin(command: argparse.ArgumentParser) -> None:
    """--admin, --ca, --token-file, --config: of a command that asks the API of a gateway."""
    add_address(command)
    command.add_argument("--token-file", type=Path, metavar="FILE", help=TOKEN_FILE_HELP)
    add_config(command)


def admin_of(options: argparse.Namespace, command: str) -> AdminApi:
    """The gateway that options name. ConfigError: none, or a token file that cannot be read."""
    address, config = _whom(options, command)
    path: Path | None = options.token_file
    if not path and config and config.gateway.admin_token_file and not address.startswith("unix:"):
        path = config.base / config.gateway.admin_token_file
    return AdminApi(address, _read_token(path) if path else "", options.ca)


def _whom(options: argparse.Namespace, command: str) -> tuple[str, Config | None]:
    """The address of the admin listener, and the configuration if it is from there. ConfigError."""
    if options.admin:
        return options.admin, None
    config = _config_to_ask_by(options, command) if options.config else None
    address = config and config.admin_address()
    if not address:
        raise ConfigError(f"{command} needs --admin ADDRESS, or --config FILE with [gateway] admin: whom is it to ask?")
    return f"https://{address}" if config and config.gateway.admin_certificate else str(address), config


def _config_to_ask_by(options: argparse.Namespace, command: str) -> Config:
    """The configuration, whatever is wrong with the rest of it, if it says where the admin listener
    is: that a file was refused is what somebody asks the gateway about. ConfigError.
    """
    try:
        return config_of(options)
    except FaultyConfig as error:
        with contextlib.suppress(ConfigError):
            if error.config.admin_address():
                return error.config
        problems = error.problems
    except ConfigError as error:
        problems = error.problems
    raise ConfigError(f"{command} asks the gateway without the file by --admin ADDRESS", *problems)


def _read_token(path: Path) -> str:
    """The first token of a file with lines of NAME TOKEN. ConfigError, which does not show it."""
    try:
        lines = [line.split() for line in path.read_text("utf-8").splitlines() if line.strip() and line[0] != "#"]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {getattr(error, 'strerror', None) or 'is not UTF-8'}") from None
    if not lines or len(lines[0]) != 2 or not lines[0][1].isascii():
        raise ConfigError(f"{path}: its first line must be a name and a token, of ASCII characters")
    return lines[0][1]


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("admin", timeout=ADMIN_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        """Connect to the path."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _connection(address: str, ca: Path | None) -> http.client.HTTPConnection:
    if address.startswith("unix:"):
        return _UnixConnection(address.removeprefix("unix:"))
    try:
        split = urllib.parse.urlsplit(address if "://" in address else f"http://{address}")
        if "@" in split.netloc or split.path.strip("/") or split.query:
            raise ConfigError(f"--admin: must be {ADMIN_HELP}, and nothing more; a token comes from --token-file")
        if split.scheme in ("http", "https") and split.hostname and split.port:
            if split.scheme == "http":
                return http.client.HTTPConnection(split.hostname, split.port, timeout=ADMIN_TIMEOUT_S)
            return http.client.HTTPSConnection(
                split.hostname, split.port, timeout=ADMIN_TIMEOUT_S, context=_trusting(ca)
            )
    except ValueError:
        pass
    raise ConfigError(f"--admin {address}: must be {ADMIN_HELP}")


def _is_read_along(connection: http.client.HTTPConnection) -> bool:
    """Whether somebody on the way could read what is sent."""
    is_plain = not isinstance(connection, http.client.HTTPSConnection | _UnixConnection)
    return is_plain and not is_loopback(Address(connection.host, connection.port))


def _trusting(ca: Path | None) -> ssl.SSLContext:
    """ConfigError."""
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:
        reason = "no certificates in PEM" if isinstance(error, ssl.SSLError) else error.strerror
        raise ConfigError(f"--ca {ca}: {reason}") from None
