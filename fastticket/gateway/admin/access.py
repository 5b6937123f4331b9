"""Who may ask the admin listener, and for what.

probes      /healthz, /readyz, /metrics: this machine, and `admin_networks`; /drain: this machine,
            by TCP with a token if there is an `admin_token_file`
/v1/        through a Unix socket: root, the user who runs the gateway, and `admin_owner`, by what
            the kernel says of the process at the other end; any other user that the socket's mode
            lets connect, and everybody who comes by TCP: a token of `admin_token_file`, and TLS
            unless the address is a loopback one
pages       as /v1/, but without a token: they hold nothing

Browsers  A page of another site can make a browser ask here. So Host must be an address,
          `localhost` or one of `admin_hosts` (a name of the site's own could lead here, too: DNS
          rebinding), Origin and Sec-Fetch-Site must be those of a page from here, and a change must
          have what a page of another site cannot send: JSON, or the field CHANGE_FIELD.

Rule of this file: tokens are compared in constant time, as digests, and stand in no message.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import hmac
import ipaddress
import logging
import os
import pwd
import re
import socket
import ssl
import stat
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fastticket.errors import ConfigError
from fastticket.gateway.addresses import is_loopback
from fastticket.gateway.admin.contract import Who
from fastticket.gateway.admin.refusals import Refused
from fastticket.gateway.settings import Config, Network

log = logging.getLogger("fastticket.admin")

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

TOKEN_CHARS_MIN = 32
TOKENS_MAX = 100
#: A change needs it, unless its body is JSON: no page of another site can send either.
CHANGE_FIELD = "x-fastticket-admin"
TOKEN_LINE = re.compile(r"(\S{1,64})[ \t]+([!-~]+)")
#: A request with one of these fields comes from a page in a browser on this machine, not from an
#: operator.
BROWSER_FIELDS = ("origin", "sec-fetch-site")
SAME_SITE = ("same-origin", "none")
_CREDENTIALS = struct.Struct("=3i")  # struct ucred: pid, uid, gid


class Client(NamedTuple):
    """The other end of a connection."""

    address: IPAddress | None  #: None: it came through a Unix socket
    uid: int | None = None  #: of a Unix socket, as unix(7) has them
    pid: int | None = None

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine."""
        return self.address is None or self.address.is_loopback

    @property
    def stranger(self) -> Who:
        """Who asks, as long as nothing else is known."""
        return Who("", self.uid, self.pid, str(self.address or ""))


@dataclasses.dataclass(frozen=True)
class Access:
    """What one configuration allows. `tokens`: the name of each, by its digest."""

    readers: Sequence[Network]
    operators: frozenset[int]  #: uids
    hosts: frozenset[str]
    tokens: Mapping[bytes, str] = dataclasses.field(repr=False)
    tls: ssl.SSLContext | None
    is_private: bool  #: nobody on the way can read along: a Unix socket, a loopback address, or TLS

    def admits(self, client: Client) -> bool:
        """Whether a client may ask anything at all."""
        address = client.address
        return client.is_local or any(address in network for network in self.readers)

    def check_page(self, client: Client, fields: Mapping[str, Sequence[str]], host: str) -> None:
        """Refused: the request is not for this gateway, or a page of another site made it."""
        name = _host_name(host)
        is_own = _is_address(name) or name == "localhost" or (client.address is None and name == "admin")
        is_named = name in self.hosts
        if not (is_own or is_named):
            raise Refused("forbidden", f"Host {name!r} is no name of this gateway: see [gateway] admin_hosts")
        own = f"{'https' if self.tls else 'http'}://{host.lower()}"
        if any(origin.lower() != own for origin in fields.get("origin", ())):
            raise Refused("forbidden", "a page of another site asks: Origin is not this gateway")
        if any(site not in SAME_SITE for site in fields.get("sec-fetch-site", ())):
            raise Refused("forbidden", "a page of another site asks: Sec-Fetch-Site is not same-origin")

    def check_change(self, fields: Mapping[str, Sequence[str]]) -> None:
        """Refused: a page of another site could have made the request."""
        if CHANGE_FIELD not in fields and not is_json(fields):
            raise Refused("forbidden", f"a change needs Content-Type: application/json, or the field {CHANGE_FIELD}: 1")

    def who(self, client: Client, fields: Mapping[str, Sequence[str]]) -> Who:
        """Who asks for what is under /v1/. Refused."""
        if not self.is_private:
            raise Refused("forbidden", "only over TLS: set [gateway] admin_certificate and admin_key")
        given = fields.get("authorization", ())
        if not given and client.uid in self.operators:
            return Who(_user_name(client.uid), client.uid, client.pid)
        if not self.tokens:
            raise Refused("forbidden", "this needs a token, and [gateway] admin_token_file is not set")
        return self._by_token(client, given)

    def who_drains(self, client: Client, fields: Mapping[str, Sequence[str]]) -> Who:
        """Who asks for /drain. Refused."""
        if not client.is_local or any(name in fields for name in BROWSER_FIELDS):
            raise Refused("forbidden", "/drain is for programs on this machine")
        if client.address is None or not self.tokens:
            return client.stranger
        return self._by_token(client, fields.get("authorization", ()))

    def _by_token(self, client: Client, given: Sequence[str]) -> Who:
        """Who has the token of these Authorization fields. Refused."""
        name = self._token_of(given)
        if name is None:
            if given:  # the page asks before somebody has typed the token in
                whom = client.address or f"uid {client.uid}"
                log.warning("an admin request with a token that is not known, from %s", whom)
            raise Refused("unauthorized")
        return Who(name, client.uid, client.pid, str(client.address or ""))

    def _token_of(self, given: Sequence[str]) -> str | None:
        """The name of the token in Authorization; None: it is not known."""
        scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        digest = _digest(token.strip())
        found = [name for each, name in self.tokens.items() if hmac.compare_digest(each, digest)]
        return found[0] if found and scheme.lower() == "bearer" else None


def access_of(config: Config) -> Access:
    """Who may ask, by a configuration. ConfigError: a file of it cannot be read, or used."""
    address = config.admin_address()
    tls = _tls_of(config)
    return Access(
        readers=config.admin_readers(),
        operators=frozenset({0, os.geteuid(), config.admin_access().user} - {-1}),
        hosts=frozenset(host.lower() for host in config.gateway.admin_hosts),
        tokens=_read_tokens(config.base / config.gateway.admin_token_file) if config.gateway.admin_token_file else {},
        tls=tls,
        is_private=tls is not None or (address is not None and is_loopback(address)),
    )


def client_of(connection: socket.socket, peer: object) -> Client:
    """The client of a connection; `peer`: its address, as asyncio has it."""
    if isinstance(peer, tuple):
        return Client(ipaddress.ip_address(peer[0].partition("%")[0]))
    with contextlib.suppress(OSError):
        pid, uid, _ = _CREDENTIALS.unpack(
            connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        return Client(None, uid, pid)
    return Client(None)


def is_json(fields: Mapping[str, Sequence[str]]) -> bool:
    """Whether a request says that its body is JSON."""
    kinds = [kind.partition(";")[0].strip().lower() for kind in fields.get("content-type", ())]
    return kinds == ["application/json"]


def gathered(fields: Iterable[tuple[bytes, bytes, int]]) -> dict[str, list[str]]:
    """The values of each field, by its name in lower case."""
    found: dict[str, list[str]] = {}
    for name, value, _ in fields:
        found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return found


def _host_name(host: str) -> str:
    """Host without its port, in lower case; an IPv6 address without brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()


def _is_address(name: str) -> bool:
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(name)
        return True
    return False


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


# --- files


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _read_tokens(path: Path) -> dict[bytes, str]:
    """The tokens of a file, a line each: NAME TOKEN. ConfigError, which shows none."""
    where = f"[gateway] admin_token_file: {path}"
    try:
        lines = path.read_text("utf-8").splitlines()
        if path.stat().st_mode & stat.S_IROTH:
            log.warning("%s: everybody on this machine can read the tokens; chmod o= it", path)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{where}: {getattr(error, 'strerror', None) or 'is not UTF-8'}") from None
    tokens: dict[bytes, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        found = TOKEN_LINE.fullmatch(line.strip())
        if not found or len(found[2]) < TOKEN_CHARS_MIN:
            raise ConfigError(
                f"{where}: line {number} must be a name and a token of at least {TOKEN_CHARS_MIN} characters"
            )
        if found[1] in tokens.values() or _digest(found[2]) in tokens:
            raise ConfigError(f"{where}: line {number} has the name or the token of another one")
        tokens[_digest(found[2])] = found[1]
    if not 0 < len(tokens) <= TOKENS_MAX:
        raise ConfigError(f"{where}: has {len(tokens)} tokens; write one a line, NAME TOKEN, at most {TOKENS_MAX}")
    return tokens


def _tls_of(config: Config) -> ssl.SSLContext | None:
    """TLS with the certificate and key of a configuration; None: without. ConfigError."""
    gateway = config.gateway
    if not gateway.admin_certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # With a password it would be asked for at the terminal.
        context.load_cert_chain(config.base / gateway.admin_certificate, config.base / gateway.admin_key, lambda: "")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or "not a certificate with its key"
        raise ConfigError(f"[gateway] admin_certificate, admin_key: {reason}") from None
    return context
