"""Asks the admin listener of a running gateway: for commands, and `fastticket probe`, which asks
whether it is well.
"""

from __future__ import annotations

import argparse
import http.client
import socket
import urllib.parse
from collections.abc import Iterable

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from fastticket.commands.options import config_of
from fastticket.errors import ConfigError, FastticketError
from fastticket.gateway.exitcodes import FAILED

ADMIN_TIMEOUT_S = 5.0


class AdminError(FastticketError):
    """A gateway's admin listener does not answer, or its answer lacks what was asked."""

    reason = "admin_unavailable"


def probe(options: argparse.Namespace) -> int:
    """Print what /readyz or /healthz says; the exit code: 0 for 200, else 1. AdminError,
    ConfigError.
    """
    address = options.admin or (config_of(options).admin_address() if options.config else None)
    if not address:
        raise ConfigError("probe needs --admin ADDRESS, or --config FILE with [gateway] admin: whom is it to ask?")
    status, text = ask(str(address), f"/{options.page}")
    print(text, end="")
    return 0 if status == http.client.OK else FAILED


def read_metrics(address: str) -> Iterable[Sample]:
    """The samples of a gateway's /metrics. AdminError; ConfigError: the address."""
    status, text = ask(address, "/metrics")
    if status != http.client.OK:
        raise AdminError(f"{address}: /metrics says {status}")
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def ask(address: str, path: str) -> tuple[int, str]:
    """GET a page of the admin listener at `unix:PATH` or `http://HOST:PORT`: (status, body).
    AdminError; ConfigError: the address.
    """
    connection = _connection(address)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    except (OSError, http.client.HTTPException, UnicodeDecodeError) as error:
        raise AdminError(f"{address}: {error}") from None
    finally:
        connection.close()


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


def _connection(address: str) -> http.client.HTTPConnection:
    if address.startswith("unix:"):
        return _UnixConnection(address.removeprefix("unix:"))
    try:
        split = urllib.parse.urlsplit(address if "://" in address else f"http://{address}")
        if split.scheme == "http" and split.hostname and split.port:
            return http.client.HTTPConnection(split.hostname, split.port, timeout=ADMIN_TIMEOUT_S)
    except ValueError:
        pass
    raise ConfigError(f"--admin {address}: must be unix:PATH or http://HOST:PORT")
