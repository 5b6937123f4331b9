"""Sockets that listen: bound to an address, beside another process or in place of it."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator

from fastticket.errors import ConfigError
from fastticket.gateway.addresses import Access, Address
from fastticket.gateway.lookups import UnresolvedName, look_up

BACKLOG = 4096
HINTS = {
    errno.EADDRINUSE: "; is another one running?",
    errno.EADDRNOTAVAIL: ": this machine has no such address",
    errno.EBADF: ": no descriptor of that number was handed over",
    errno.ENOTSOCK: ": what was handed over is not a socket",
}
NOT_A_SOCKET = "there is a file that is not a socket"


def bind(address: Address, *, shared: bool) -> socket.socket:
    """A bound, non-blocking socket. The kernel sends it no clients before `listen(BACKLOG)`.

    `shared`: other sockets may be bound to the same host and port (SO_REUSEPORT), and the kernel
    spreads connections over them. ConfigError.
    """
    with _closed_on_failure(address):
        if address.fd >= 0:
            bound = _inherited(address.fd)
        elif address.path:
            bound = _bind_unix(address.path)
        else:
            bound = _bind_tcp(address, shared)
        bound.setblocking(False)
        return bound


def listen(address: Address, *, shared: bool) -> socket.socket:
    """A socket as `bind` makes it, listening. ConfigError."""
    bound = bind(address, shared=shared)
    with _closed_on_failure(address, bound):
        bound.listen(BACKLOG)
    return bound


def listen_beside(address: Address, access: Access) -> socket.socket:
    """Listen although another process may still do so: on a host and port with SO_REUSEPORT, on a
    path under another name until `take_place`, with the mode and owner of `access`. ConfigError.
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
        bound.listen(BACKLOG)  # last: whatever mode the umask has left, nobody could connect before
    except OSError as error:
        discard(bound)
        raise ConfigError(f"listen {address}: {error.strerror}") from None
    return bound


def take_place(bound: socket.socket, address: Address) -> None:
    """Rename the file of a socket from `listen_beside` to the path of the address: new clients
    connect to this socket. ConfigError.
    """
    if address.path:
        with _closed_on_failure(address, bound):
            os.rename(bound.getsockname(), address.path)


def duplicate(bound: socket.socket) -> socket.socket:
    """Another descriptor of a socket, which outlives that one. ConfigError."""
    try:
        return bound.dup()
    except OSError as error:
        raise ConfigError(f"listen: {error.strerror}") from None


def discard(bound: socket.socket) -> None:
    """Close a socket from `listen_beside` that is not needed after all, and remove its file."""
    if bound.family == socket.AF_UNIX:
        with contextlib.suppress(OSError):
            os.unlink(bound.getsockname())
    bound.close()


@contextlib.contextmanager
def _closed_on_failure(address: Address, bound: socket.socket | None = None) -> Iterator[None]:
    """Turns what the system calls raise into a ConfigError with a hint, and closes the socket."""
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
    numeric = _numeric(address)
    bound = socket.socket(socket.AF_INET6 if ":" in numeric[0] else socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if bound.family == socket.AF_INET6:
        bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return _bound_to(bound, numeric)


def _bind_unix(path: str) -> socket.socket:
    """Replaces the socket file that an ended process has left, not that of a process which
    answers.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise FileExistsError(errno.EEXIST, NOT_A_SOCKET)
        if not _answers(path):
            os.unlink(path)
    return _bound_to(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), path)


def _bound_to(fresh: socket.socket, place: tuple[str, int] | str) -> socket.socket:
    try:
        fresh.bind(place)
    except OSError:
        fresh.close()
        raise
    return fresh


def _numeric(address: Address) -> tuple[str, int]:
    """The address of a name to bind to: the first of IPv4, else the first of IPv6. ConfigError."""
    try:
        found = look_up(address)
    except UnresolvedName as error:
        raise ConfigError(f"{address}: {error}") from None
    return min(found, key=lambda each: ":" in each[0])


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(path) == 0
