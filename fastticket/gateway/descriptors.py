"""How many file descriptors there are, and who may have them: clients are refused before service
is.

Each client takes two, one of his own and one to an upstream server. RESERVED are kept for what is
neither: the store, listeners, logs, health checks. So clients beyond the half of what is left have
to wait in the listen queue.
"""

from __future__ import annotations

import contextlib
import resource
from typing import NamedTuple

RESERVED = 64
LIMIT_MAX = 1 << 20  # what more connections than connections_max may be could need
PER_CLIENT = 2


class Shares(NamedTuple):
    """Of what one process has."""

    connections: int  #: of clients and to upstreams, together
    clients: int  #: at most


def raise_limit() -> None:
    """The soft limit to the hard one, for this process and those that it forks."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = LIMIT_MAX if hard == resource.RLIM_INFINITY else min(hard, LIMIT_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # where that is forbidden, less has to do
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def limit() -> int:
    """How many there may be in this process."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return LIMIT_MAX if soft == resource.RLIM_INFINITY else soft


def share(descriptors: int, servers: int) -> Shares:
    """`servers`: of upstreams, each of which is perhaps asked whether it is well."""
    reserved = min(RESERVED + servers, descriptors // 2)
    connections = descriptors - reserved
    return Shares(connections, max(1, connections // PER_CLIENT))
