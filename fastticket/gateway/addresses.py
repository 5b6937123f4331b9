"""Addresses as they are written in a configuration: `host:port`, `[v6]:port`, `unix:PATH`, `fd:N`."""

from __future__ import annotations

import contextlib
import errno
import grp
import ipaddress
import os
import pwd
import re
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fastticket.errors import ConfigError

BACKLOG = 4096
HINTS = {
    errno.EADDRINUSE: "; is another one running?",
    errno.EADDRNOTAVAIL: ": it is none of this machine",
    errno.EBADF: ": no descriptor of that number was handed over",
    errno.ENOTSOCK: ": what was handed over is not a socket",
}
NOT_A_SOCKET = "there is a file that is not a socket"
NAME = re.compile(r"[^\s,;:/@\[\]*'\"]+")  # of a host, as far as that can be seen without asking


class Address(NamedTuple):
    """One of host and port, path, or fd."""

    host: str = ""
    port: int = 0
    path: str = ""
    fd: int = -1

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        if self.fd >= 0:
            return f"fd:{self.fd}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Access(NamedTuple):
    """Who may connect to a Unix socket: the mode and owners of its file; -1: whoever makes it."""

    mode: int = 0o600
    user: int = -1
    group: int = -1


def parse_access(mode: str, owner: str) -> Access:
    """`0660`, and `user`, `user:group` or `:group`, by name or number. ValueError, with a message
    for the user.
    """
    if not re.fullmatch(r"0?[0-7]{3}", mode):
        raise ValueError(f"{mode!r} is not a mode like 0660")
    user, _, group = owner.partition(":")
    try:
        uid = -1 if not user else int(user) if user.isdecimal() else pwd.getpwnam(user).pw_uid
        gid = -1 if not group else int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise ValueError(str(error.args[0])) from None
    return Access(int(mode, 8), uid, gid)


def parse_address(text: str, base: Path) -> Address:
    """Where to listen. ValueError, with a message for the user that says what to write. Paths are
    relative to `base`.
    """
    if text.startswith("fd:"):
        if not _is_number(text[3:]):
            raise ValueError(f"{text}: write the number of a descriptor that is handed over, as in fd:3")
        return Address(fd=int(text[3:]))
    if text.lower().startswith("https://"):
        raise ValueError(f"{text}: TLS ends at the load balancer in front; write host:port for plain HTTP")
    return _parse(text, base, "host:port, [v6]:port, unix:PATH or fd:N")


def parse_server(text: str, base: Path) -> Address:
    """Where a server of an upstream is. The same; `http://host:port` is host:port."""
    if text.startswith("fd:"):
        raise ValueError(f"{text}: an upstream can not be a descriptor; write host:port, [v6]:port or unix:PATH")
    if text.lower().startswith("https://"):
        raise ValueError(f"{text}: TLS is not spoken to upstreams; write host:port of where plain HTTP is")
    address = _parse(text, base, "host:port, [v6]:port or unix:PATH")
    if not address.path and not address.port:
        raise ValueError(f"{text}: the port of a server is from 1 to 65535")
    return address


def _parse(text: str, base: Path, forms: str) -> Address:
    if text.startswith("unix:"):
        if text == "unix:":
            raise ValueError(f"{text}: the path is missing; write unix:PATH")
        return Address(path=str(base / text.removeprefix("unix:")))
    place = _without_scheme(text, forms)
    host, colon, port = place.rpartition(":")
    if _is_number(place) or (host in ("", "*") and _is_number(port)):
        raise ValueError(f"{text}: the host is missing; write {_hosts_for(port, may_listen='fd:N' in forms)}")
    if is_v6(place) and not (_is_number(port) and is_v6(host)):
        raise ValueError(f"{text}: write an IPv6 address in brackets and with a port, as [{place}]:80")
    if is_v6(host):
        raise ValueError(f"{text}: write an IPv6 address in brackets, as [{host}]:{port}")
    if place and (not colon or place.endswith("]")) and not set(place) & set(" ,/@"):
        raise ValueError(f"{text}: the port is missing; write {place}:80, or whichever it is")
    if "," in place:
        raise ValueError(f"{text}: write one address; each of several is an entry of its own")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if not is_v6(host):
            raise ValueError(f"{text}: {host} is no IPv6 address; brackets are for those")
    elif not NAME.fullmatch(host):
        raise ValueError(f"{text}: not an address; write {forms}")
    if not _is_number(port) or int(port) > 65535:
        raise ValueError(f"{text}: {port or 'nothing'} is no port; those are numbers up to 65535")
    return Address(host, int(port))


def _without_scheme(text: str, forms: str) -> str:
    """What a browser shows, `http://host:port/`, is host:port. ValueError."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        return text
    if scheme.lower() != "http":
        raise ValueError(f"{text}: {scheme}:// is not spoken here; write {forms}")
    place, _, path = rest.partition("/")
    if path:
        raise ValueError(f"{text}: an address has no path; write {place}")
    return place if re.search(r":[0-9]*$", place.rpartition("]")[2]) else f"{place}:80"


def _hosts_for(port: str, *, may_listen: bool) -> str:
    here = f"127.0.0.1:{port}"
    return f"{here} for this machine alone, 0.0.0.0:{port} (and [::]:{port}) for every address" if may_listen else here


def is_v6(text: str) -> bool:
    """Whether it is an IPv6 address."""
    try:
        ipaddress.IPv6Address(text)
        return True
    except ValueError:
        return False


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _numeric(address: Address) -> tuple[socket.AddressFamily, tuple[str, int]]:
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except (OSError, ValueError) as error:  # UnicodeError: no name at all
        raise ConfigError(f"{address}: the name does not resolve: {getattr(error, 'strerror', error)}") from None
    family, _, _, _, numeric = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return family, (str(numeric[0]), int(numeric[1]))


def is_loopback(address: Address) -> bool:
    """Whether only this machine can come there."""
    if address.path or address.host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(address.host).is_loopback
    return False


def listen(address: Address, *, shared: bool) -> socket.socket:
    """A listening socket. `shared`: others may listen there, too (SO_REUSEPORT), and the kernel
    spreads connections. ConfigError.
    """
    bound = bind(address, shared=shared)
    with _closed_on_failure(address, bound):
        bound.listen(BACKLOG)
    return bound


def bind(address: Address, *, shared: bool) -> socket.socket:
    """A socket that is to listen, with `listen(BACKLOG)`; nobody is sent there before. ConfigError."""
    with _closed_on_failure(address):
        if address.fd >= 0:
            bound = _inherited(address.fd)
        elif address.path:
            bound = _bind_unix(address.path)
        else:
            bound = _bind_tcp(address, shared)
        bound.setblocking(False)
        return bound


def listen_beside(address: Address, access: Access) -> socket.socket:
    """Listen beside whoever does: its successor must not wait until it has gone. On a path, under
    another name, and for whom `access` says. ConfigError.
    """
    if not address.path:
        return listen(address, shared=True)
    with _closed_on_failure(address):
        if os.path.exists(address.path) and not stat.S_ISSOCK(os.stat(address.path).st_mode):
            raise FileExistsError(errno.EEXIST, NOT_A_SOCKET)
    bound = bind(Address(path=f"{address.path}.{os.getpid()}"), shared=True)
    try:
        path = bound.getsockname()
        os.chown(path, access.user, access.group)
        os.chmod(path, access.mode)
        bound.listen(BACKLOG)  # before that nobody gets in, whatever the umask has left
    except OSError as error:
        leave_place(bound)
        raise ConfigError(f"listen {address}: {error.strerror}") from None
    return bound


def take_place(bound: socket.socket, address: Address) -> None:
    """From now on clients come to this one. ConfigError."""
    if address.path:
        with _closed_on_failure(address, bound):
            os.rename(bound.getsockname(), address.path)


def leave_place(bound: socket.socket) -> None:
    """Of one that was to take a place."""
    if bound.family == socket.AF_UNIX:
        with contextlib.suppress(OSError):
            os.unlink(bound.getsockname())
    bound.close()


@contextlib.contextmanager
def _closed_on_failure(address: Address, bound: socket.socket | None = None) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, OverflowError) as error:
        if bound:
            bound.close()
        hint = HINTS.get(error.errno or 0, "") if isinstance(error, OSError) else ""
        raise ConfigError(f"listen {address}: {getattr(error, 'strerror', None) or error}{hint}") from None


def _inherited(fd: int) -> socket.socket:
    own = os.dup(fd)
    try:
        return socket.socket(fileno=own)
    except OSError:
        os.close(own)
        raise


def _bind_tcp(address: Address, shared: bool) -> socket.socket:
    family, numeric = _numeric(address)
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if family == socket.AF_INET6:
        bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:
        bound.bind(numeric)
    except OSError:
        bound.close()
        raise
    return bound


def _bind_unix(path: str) -> socket.socket:
    """Takes over the socket file of one that is gone, not of one that lives."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise FileExistsError(errno.EEXIST, NOT_A_SOCKET)
        if not _answers(path):
            os.unlink(path)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bound.bind(path)
    except OSError:
        bound.close()
        raise
    return bound


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(path) == 0
