"""How the file descriptors of a process are shared, so that it accepts fewer clients rather than
fails to serve them.

Each client takes two: its connection, and one to an upstream server. RESERVED are kept for
everything else: the store, listeners, logs, health checks. Clients beyond half of the rest wait in
the listen queue.
"""

from __future__ import annotations

import contextlib
import resource
from typing import NamedTuple

RESERVED = 64
LIMIT_MAX = 1 << 20  # more than the largest connections_max needs
PER_CLIENT = 2
PER_THREAD = 8  # listeners, epoll, and what wakes it and the event loop


class Shares(NamedTuple):
    """How many of a process's descriptors are for connections."""

    connections: int  #: of clients and to upstream servers together
    clients: int  #: at most


def raise_limit() -> None:
    """Raise the soft limit to the hard one, for this process and its children, as far as
    allowed.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = LIMIT_MAX if hard == resource.RLIM_INFINITY else min(hard, LIMIT_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def limit() -> int:
    """How many descriptors this process may have (RLIMIT_NOFILE)."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return LIMIT_MAX if soft == resource.RLIM_INFINITY else soft


def share(descriptors: int, servers: int, threads: int = 1) -> Shares:
    """The shares of so many descriptors. `servers`: upstream servers, each of which may be under a
    health check. `threads`: each but the first one needs some for itself.
    """
    reserved = min(RESERVED + servers + PER_THREAD * (threads - 1), descriptors // 2)
    connections = descriptors - reserved
    return Shares(connections, max(1, connections // PER_CLIENT))
