"""The names of a Host: the domains above it, as browsers see them, and whether it is loopback.

What a client says is its own. A label that is not one of a name makes the whole Host nameless here,
so that nothing else of a client's Host gets into a Set-Cookie value.
"""

from __future__ import annotations

import ipaddress
import re

DOMAIN_LABELS_MIN = 2  # a cookie with a shorter Domain would be one for a whole top-level domain
DOMAIN_LABELS_MAX = 127  # of a name in DNS
LABEL = re.compile(r"[A-Za-z0-9_-]+")
#: How many domains above a host can have planted cookies that are cleared: those nearest to the
#: top, where the host's siblings can set some.
PARENTS_MAX = 8
LOOPBACK_NAME = "localhost"


def parent_domain(host: str, level: int) -> str:
    """The last `level` labels of a Host's name; empty where that is no domain to set a cookie for:
    level 0, an address, or fewer than DOMAIN_LABELS_MIN labels.
    """
    labels = _labels_of(host)[-level:] if level else []
    return ".".join(labels) if len(labels) >= DOMAIN_LABELS_MIN else ""


def domains_above(host: str) -> list[str]:
    """The domains whose cookies a browser sends to a host, the host's own name first, then those
    above it, the longest first; at most PARENTS_MAX of these.
    """
    labels = _labels_of(host)
    most = len(labels) - DOMAIN_LABELS_MIN + 1
    counts = [len(labels), *range(min(len(labels) - 1, PARENTS_MAX), DOMAIN_LABELS_MIN - 1, -1)] if most > 0 else []
    return [".".join(labels[-count:]) for count in counts]


def is_loopback(host: str) -> bool:
    """Whether a browser that names this Host talks to its own machine: `localhost`, a name below
    it, 127.0.0.0/8 or [::1].
    """
    name = host.rpartition(":")[0] if re.search(r":[0-9]*$", host) and not host.endswith("]") else host
    name = name.lower().rstrip(".")
    if name == LOOPBACK_NAME or name.endswith(f".{LOOPBACK_NAME}"):
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def _labels_of(host: str) -> list[str]:
    """The labels of a Host's name, without the port; none of an address, or of what is no name."""
    name = host.partition(":")[0].rstrip(".")
    labels = name.split(".")
    return labels if all(map(LABEL.fullmatch, labels)) and not _is_address(name) else []


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
