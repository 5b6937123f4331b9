"""Addresses as a configuration writes them: `host:port`, `[v6]:port`, `unix:PATH`, `fd:N`."""

from __future__ import annotations

import contextlib
import grp
import ipaddress
import pwd
import re
from pathlib import Path
from typing import NamedTuple

#: A server as the data plane takes it: (numeric host, port), or the path of a Unix socket.
Server = tuple[str, int] | str

NAME = re.compile(r"[^\s,;:/@\[\]*'\"]+")  # the characters of a host name; the name server decides the rest


class Address(NamedTuple):
    """One of host and port, path, or file descriptor."""

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
    """Which users may connect to a Unix socket: mode and owner of its file; -1: the process's
    own.
    """

    mode: int = 0o600
    user: int = -1
    group: int = -1


def parse_access(mode: str, owner: str) -> Access:
    """`mode` like 0660; `owner` as `user`, `user:group` or `:group`, by name or number. ValueError,
    with a message for the user.
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
    """An address to listen on. Paths are relative to `base`. ValueError, with a message that says
    what to write.
    """
    if text.startswith("fd:"):
        if not _is_number(text[3:]):
            raise ValueError(f"{text}: write the number of a descriptor that is handed over, as in fd:3")
        return Address(fd=int(text[3:]))
    if text.lower().startswith("https://"):
        raise ValueError(f"{text}: TLS ends at the load balancer in front; write host:port for plain HTTP")
    return _parse(text, base, "host:port, [v6]:port, unix:PATH or fd:N")


def parse_server(text: str, base: Path) -> Address:
    """The address of an upstream server: as `parse_address`, without `fd:N`. ValueError."""
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
    """`host:port` of `http://host:port/`, as a browser shows it; other texts as they are.
    ValueError.
    """
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
    """Whether the text is an IPv6 address, without brackets."""
    try:
        ipaddress.IPv6Address(text)
        return True
    except ValueError:
        return False


def is_numeric(host: str) -> bool:
    """Whether a host is an IP address, not a name."""
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host)
        return True
    return False


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def is_loopback(address: Address) -> bool:
    """Whether only this machine can connect to the address."""
    if address.path or address.host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(address.host).is_loopback
    return False
